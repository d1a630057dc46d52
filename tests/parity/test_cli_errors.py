"""What goes wrong is told in words that help, ends with a failure, and leaves nothing behind."""

import shutil

import harness
import pytest
from harness import FIXTURES, Case, modelport

NETWORKS = FIXTURES / "networks"
SHARDED = Case(NETWORKS / "cnn_sharded")


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of a checkpoint of two shards, to break."""
    folder = tmp_path / "source"
    folder.mkdir()
    for path in SHARDED.folder.glob("model.ckpt*"):
        shutil.copy(path, folder)
    return folder / "model.ckpt"


@pytest.fixture
def fails(tmp_path):
    """`fails(arguments, *words)`: the conversion fails, its message has all the words, and no file has appeared."""

    def fails(arguments, *words, output="model.pth"):
        folder = tmp_path / "out"
        folder.mkdir()
        earlier = {"model.pth": b"an earlier result", "model.py": b"# its code"}
        for name, content in earlier.items():
            (folder / name).write_bytes(content)
        result = modelport("convert", *arguments, "-df", "pytorch", "-om", folder / output, check=False)
        said = result.stdout + result.stderr
        assert result.returncode in range(1, 100), f"status {result.returncode}: {said}"
        assert "panicked" not in said, said
        missing = [word for word in words if word.lower() not in result.stderr.lower()]
        assert not missing, f"not said: {missing}\n{said}"
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == earlier, said
        return result.stderr

    return fails


def source(checkpoint, *, network=None, weights=None, output="output"):
    network = network or checkpoint.with_name("model.ckpt.meta")
    return ["-sf", "tensorflow", "-in", network, "-iw", weights or checkpoint, "--dstNode", output]


def frozen(path, *arguments):
    return ["-sf", "tensorflow", "-in", path, "--dstNode", "output", *arguments]


def test_the_copy_converts(checkpoint, tmp_path):
    """What the other tests break is whole to begin with."""
    modelport("convert", *source(checkpoint), "-df", "pytorch", "-om", tmp_path / "model.pth")


def test_missing_network(checkpoint, fails):
    fails(source(checkpoint, network=checkpoint.with_name("nowhere.ckpt.meta")), "nowhere.ckpt.meta")


def test_missing_weights(checkpoint, fails):
    fails(source(checkpoint, weights=checkpoint.with_name("nowhere.ckpt")), "nowhere.ckpt")


@pytest.mark.parametrize("name", ["text.meta", "text.pb"])
@pytest.mark.parametrize("content", [b"this is a page of text, not a graph\n" * 20, b"\xff" * 300, b""])
def test_not_a_protobuf(checkpoint, name, content, fails):
    path = checkpoint.with_name(name)
    path.write_bytes(content)
    fails(source(checkpoint, network=path), name)


@pytest.mark.parametrize("kept", [0, 40, 300, -1])
def test_truncated_index(checkpoint, kept, fails):
    index = checkpoint.with_name("model.ckpt.index")
    index.write_bytes(index.read_bytes()[:kept])
    fails(source(checkpoint), "model.ckpt.index")


def test_truncated_data(checkpoint, fails):
    data = checkpoint.with_name("model.ckpt.data-00000-of-00002")
    data.write_bytes(data.read_bytes()[:100])
    fails(source(checkpoint), "model.ckpt.data-00000-of-00002")


def test_missing_shard(checkpoint, fails):
    checkpoint.with_name("model.ckpt.data-00001-of-00002").unlink()
    fails(source(checkpoint), "model.ckpt.data-00001-of-00002")


def test_crc_mismatch(checkpoint, fails):
    data = checkpoint.with_name("model.ckpt.data-00000-of-00002")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    fails(source(checkpoint), "crc", "kernel")


def test_missing_variables(checkpoint, fails):
    """Weights of another network: all that is missing is named."""
    fails(source(checkpoint, weights=NETWORKS / "text_cnn" / "model.ckpt"), "stem/conv/kernel", "hidden/bias")


def test_output_not_in_graph(checkpoint, fails):
    said = fails(source(checkpoint, output="MMdnn_Output"), "MMdnn_Output")
    assert "output" in said.replace("MMdnn_Output", "").lower(), "the candidates are named"


def test_several_outputs_to_choose_from(fails):
    """Two ends, none chosen: both are offered, with their operations and shapes."""
    unet = Case(NETWORKS / "unet")
    arguments = ["-sf", "tensorflow", "-in", unet.path("network"), "-iw", unet.path("weights")]
    fails(arguments, "mask/BiasAdd", "coarse_map", "--dstNode")


def test_unsupported_operations(fails):
    """All of them, in one run."""
    words = ["MatrixInverse", "first/inverse", "third/inverse", "Igamma", "second/gamma"]
    fails(frozen(NETWORKS / "errors" / "unsupported.pb"), *words)


def test_unknown_input_shape(fails, tmp_path):
    path = NETWORKS / "errors" / "unknown_shape.pb"
    fails(frozen(path), "images", "--inputShape")
    modelport("convert", *frozen(path, "--inputShape", "11,8,3"), "-df", "pytorch", "-om", tmp_path / "model.pth")
    assert (tmp_path / "model.pth").exists()


def test_unwritable_output(checkpoint, fails):
    """Its folder is a file: that holds for every user, root too."""
    fails(source(checkpoint), "model.py", output="model.py/model.pth")


def test_unknown_framework(checkpoint, fails):
    fails(["-sf", "caffe3", "-in", checkpoint.with_name("model.ckpt.meta"), "-iw", checkpoint], "caffe3")


def test_graph_without_weights(checkpoint, fails):
    # Weights that lie beside the graph are taken; here there are none.
    for file in [checkpoint.with_name("checkpoint"), *checkpoint.parent.glob(f"{checkpoint.name}.[di]*")]:
        file.unlink(missing_ok=True)
    fails(["-sf", "tensorflow", "-in", checkpoint.with_name("model.ckpt.meta"), "--dstNode", "output"], "-iw")


@pytest.mark.parametrize("step", ["to-code", "to-model", "inspect"])
def test_steps_on_a_missing_file(step, tmp_path):
    arguments = {
        "to-code": ["-f", "pytorch", "-n", "nowhere.pb", "-w", "nowhere.npy", "-o", "code.py", "-ow", "code.npy"],
        "to-model": ["-f", "pytorch", "-in", "nowhere.py", "-iw", "nowhere.npy", "-o", "model.pth"],
        "inspect": ["nowhere.pb"],
    }
    result = modelport(step, *arguments[step], cwd=tmp_path, check=False)
    assert result.returncode in range(1, 100) and "nowhere" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_networks_are_where_the_tests_look():
    assert harness.cases(), "no networks"
