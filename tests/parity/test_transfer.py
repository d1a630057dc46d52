"""Parameters that `modelport transfer` copies between twins, written by hand in PyTorch and in Keras."""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import torch
from harness import modelport
from keras import layers
from torch import nn

UNITS = 5


class Twin(nn.Module):
    """One of every kind of layer that is turned."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.conv = nn.Conv2d(3, 8, 3, padding=1)  # square kernels say nothing
        self.stem.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False)
        self.act = nn.PReLU(16)
        self.up = nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1, output_padding=1)
        self.norm = nn.LayerNorm(16)
        self.conv1d = nn.Conv1d(16, 16, 3, padding=1)
        self.lstm = nn.LSTM(16, UNITS, batch_first=True)
        self.gru = nn.GRU(UNITS, UNITS, batch_first=True)
        self.both = nn.GRU(UNITS, UNITS, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * UNITS, 2 * UNITS)
        self.embed = nn.Embedding(7, 2 * UNITS)

    def forward(self, x, ids):
        x = self.act(self.grouped(self.depthwise(torch.relu(self.stem.bn(self.stem.conv(x))))))
        x = self.norm(self.up(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 16))
        x = self.conv1d(x.transpose(1, 2)).transpose(1, 2)
        x = self.both(self.gru(self.lstm(x)[0])[0])[0]
        return self.fc(x[:, -1]) + self.embed(ids)


def names(style):
    dotted = {"stem": "stem.conv", "bn": "stem.bn"}
    return lambda name: dotted.get(name, name).replace(".", style)


def keras_twin(style="."):
    n = names(style)
    x = inputs = keras.Input((6, 6, 3), name="x")
    ids = keras.Input((), dtype="int32", name="ids")
    x = layers.Conv2D(8, 3, padding="same", name=n("stem"))(x)
    x = layers.BatchNormalization(epsilon=1e-5, name=n("bn"))(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2D(16, 3, padding="same", groups=4, use_bias=False, name="grouped")(x)
    x = layers.PReLU(shared_axes=[1, 2], name="act")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, name="up")(x)
    x = layers.Cropping2D(((1, 0), (1, 0)), name="crop")(x)
    x = layers.Reshape((-1, 16), name="rows")(x)
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    x = layers.Conv1D(16, 3, padding="same", name="conv1d")(x)
    x = layers.LSTM(UNITS, return_sequences=True, name="lstm")(x)
    x = layers.GRU(UNITS, return_sequences=True, name="gru")(x)
    x = layers.Bidirectional(layers.GRU(UNITS, return_sequences=True), name="both")(x)
    x = layers.Cropping1D((143, 0), name="last")(x)
    x = layers.GlobalMaxPooling1D(name="vector")(x)
    x = layers.Dense(2 * UNITS, name="fc")(x)
    y = layers.Embedding(7, 2 * UNITS, name="embed")(ids)
    return keras.Model([inputs, ids], layers.Add(name="sum")([x, y]))


def randomize_torch(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
                if "running_var" in name:
                    tensor.abs_().add_(0.5)
    return model.eval()


def randomize_keras(model, seed=0):
    random = np.random.RandomState(seed)
    for variable in model.weights:
        values = random.randn(*variable.shape).astype("float32") * 0.3
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)
    return model


X = np.random.RandomState(1).randn(3, 6, 6, 3).astype("float32")
IDS = np.array([1, 6, 0], np.int32)


def run_torch(model, batch):
    with torch.no_grad():
        return model(torch.from_numpy(X[:batch].transpose(0, 3, 1, 2).copy()), torch.from_numpy(IDS[:batch])).numpy()


def run_keras(model, batch):
    return np.asarray(keras.ops.convert_to_numpy(model([X[:batch], IDS[:batch]], training=False)))


def assert_equal_outputs(torch_model, keras_model):
    for batch in (1, 3):
        left, right = run_torch(torch_model, batch), run_keras(keras_model, batch)
        assert left.shape == right.shape
        assert np.abs(left - right).max() <= 1e-5 * np.abs(left).max()


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Files of both: trained ones, and skeletons with other weights."""
    folder = tmp_path_factory.mktemp("twins")
    trained = randomize_torch(Twin())
    torch.save(trained.state_dict(), folder / "trained.pth")
    torch.save(randomize_torch(Twin(), 5).state_dict(), folder / "skeleton.pth")
    model = randomize_keras(keras_twin(), 7)
    model.save(folder / "skeleton.keras")
    model.save_weights(folder / "skeleton.weights.h5")
    underscored = randomize_keras(keras_twin("_"), 8)
    underscored.save(folder / "skeleton.h5")
    return folder, trained


def transfer(source, into, output, *extra, check=True):
    result = modelport("transfer", "-iw", source, "--into", into, "-o", output, "--json", *extra, check=check)
    return json.loads(result.stdout)


@pytest.mark.parametrize("skeleton", ["skeleton.keras", "skeleton.h5"])
def test_pytorch_to_keras(twins, tmp_path, skeleton):
    folder, trained = twins
    output = tmp_path / skeleton
    report = transfer(folder / "trained.pth", folder / skeleton, output)
    assert not report["left_in_source"] and not report["left_in_target"] and not report["conflicts"]
    model = keras.models.load_model(output, compile=False)
    assert_equal_outputs(trained, model)
    before = keras.models.load_model(folder / skeleton, compile=False)
    assert before.get_config() == model.get_config()
    # The skeleton is as it was, and the result is the same every time.
    again = tmp_path / f"again_{skeleton}"
    transfer(folder / "trained.pth", folder / skeleton, again)
    assert again.read_bytes() == output.read_bytes()


def test_pytorch_to_keras_weights(twins, tmp_path):
    folder, trained = twins
    output = tmp_path / "net.weights.h5"
    transfer(folder / "trained.pth", folder / "skeleton.weights.h5", output)
    model = keras_twin()
    model.load_weights(output)
    assert_equal_outputs(trained, model)


@pytest.mark.parametrize("source", ["skeleton.keras", "skeleton.h5", "skeleton.weights.h5"])
def test_keras_to_pytorch(twins, tmp_path, source):
    folder, _ = twins
    output = tmp_path / "net.pth"
    report = transfer(folder / source, folder / "skeleton.pth", output)
    assert not report["left_in_source"] and not report["left_in_target"]
    trained = Twin().eval()
    trained.load_state_dict(torch.load(output, weights_only=True))
    model = keras.models.load_model(folder / source.replace(".weights.h5", ".keras"), compile=False)
    assert_equal_outputs(trained, model)


def test_keras_to_keras(twins, tmp_path):
    folder, _ = twins
    output = tmp_path / "net.keras"
    transfer(folder / "skeleton.h5", folder / "skeleton.keras", output)
    left = keras.models.load_model(output, compile=False)
    right = keras.models.load_model(folder / "skeleton.h5", compile=False)
    assert all(np.array_equal(a, b) for a, b in zip(left.get_weights(), right.get_weights(), strict=True))


def test_nothing_is_written_when_something_is_left(twins, tmp_path):
    folder, _ = twins
    state = torch.load(folder / "trained.pth", weights_only=True)
    del state["fc.bias"]
    state["extra.weight"] = torch.zeros(2)
    state["grouped.weight"] = state["grouped.weight"][:, :, :1]
    torch.save(state, tmp_path / "source.pth")
    output = tmp_path / "net.keras"
    arguments = ["transfer", "-iw", tmp_path / "source.pth", "--into", folder / "skeleton.keras", "-o", output]
    result = modelport(*arguments, check=False)
    assert result.returncode == 1 and not output.exists()
    for part in ["fc/bias", "extra.weight", "grouped/kernel", "[3, 3, 4, 16]", "[1, 3, 4, 16]", "--partial"]:
        assert part in result.stderr, part
    report = json.loads(modelport(*arguments, "--partial", "--json").stdout)
    assert not report["left_in_target"] and report["left_in_source"] == ["extra.weight"]
    assert {conflict["target"] for conflict in report["conflicts"]} == {"grouped/kernel", "fc/bias"}
    # Of a layer that does not fit nothing is taken.
    assert report["left_with_layer"] == ["fc/kernel"]
    before, after = (keras.models.load_model(path, compile=False) for path in (folder / "skeleton.keras", output))
    for name in ("grouped", "fc"):
        weights = [model.get_layer(name).get_weights() for model in (before, after)]
        assert all(np.array_equal(*pair) for pair in zip(*weights, strict=True)), name
    assert np.array_equal(after.get_layer("stem.conv").get_weights()[1], state["stem.conv.bias"])


def test_maps_and_order(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    randomize_torch(net)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    x = inputs = keras.Input((8, 8, 3))
    for name in ("a", "b", "c"):
        x = layers.Conv2D(4, 3, name=name)(x)
    x = layers.Dense(2, name="head")(layers.Dropout(0.1)(layers.Flatten()(x)))
    keras.Model(inputs, x).save(tmp_path / "skeleton.keras")
    arguments = [tmp_path / "net.pth", tmp_path / "skeleton.keras", tmp_path / "out.keras"]

    # The names have nothing in common.
    assert "error" in transfer(*arguments, check=False)
    # The order does, but for the rows of the dense layer.
    error = transfer(*arguments, "--by-order", check=False)["error"]
    assert {problem["node"] for problem in error} == {"head/kernel", "head/bias", "4.weight", "4.bias"}
    (tmp_path / "wrong.json").write_text(json.dumps({"head": "4"}))
    error = transfer(*arguments, "--by-order", "--map", tmp_path / "wrong.json", check=False)["error"]
    assert any('"flattened"' in (problem["hint"] or "") for problem in error)
    (tmp_path / "map.json").write_text(json.dumps({"head": {"from": "4", "flattened": [4, 2, 2]}}))
    report = transfer(*arguments, "--by-order", "--map", tmp_path / "map.json")
    assert {match["by"] for match in report["matched"]} == {"order", "map"}
    model = keras.models.load_model(tmp_path / "out.keras", compile=False)
    x = np.random.RandomState(0).randn(2, 8, 8, 3).astype("float32")
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    assert np.abs(np.asarray(model(x)) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_tensors_can_be_mapped_one_by_one(tmp_path):
    kernel = torch.randn(4, 3, 3, 3)
    torch.save({"k": kernel, "left": torch.zeros(4)}, tmp_path / "net.pth")
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, layers.Conv2D(4, 3, name="c")(inputs)).save(tmp_path / "skeleton.keras")
    (tmp_path / "map.json").write_text(json.dumps({"c/kernel": {"from": "k", "permute": [2, 3, 1, 0]}, "c/bias": None}))
    arguments = [
        tmp_path / "net.pth",
        tmp_path / "skeleton.keras",
        tmp_path / "out.keras",
        "--map",
        tmp_path / "map.json",
    ]
    assert [problem["node"] for problem in transfer(*arguments, check=False)["error"]] == ["left"]
    transfer(*arguments, "--partial")
    model = keras.models.load_model(tmp_path / "out.keras", compile=False)
    assert np.array_equal(model.get_layer("c").kernel, kernel.numpy().transpose(2, 3, 1, 0))


def test_kinds_are_never_guessed(tmp_path):
    """A file of weights without classes, and names that say nothing: square kernels could be anything."""
    import h5py

    torch.save({"up.weight": torch.randn(4, 4, 3, 3)}, tmp_path / "net.pth")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [b"up"]
        file.create_group("up").attrs["weight_names"] = [b"up/kernel:0"]
        file["up/up/kernel:0"] = np.zeros((3, 3, 4, 4), np.float32)
    error = transfer(tmp_path / "net.pth", tmp_path / "weights.h5", tmp_path / "out.h5", check=False)["error"]
    assert "permute" in error[0]["hint"] and error[0]["node"] == "up/kernel"
