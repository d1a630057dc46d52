"""Files that this PyTorch writes, in all its formats: every tensor comes out as `torch.load` gives it."""

import argparse
import collections
import json

import harness
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

LEGACY = {"_use_new_zipfile_serialization": False}


class Net(nn.Module):
    """Tied weights, a buffer that is not saved, one that is, and a module that is used twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = self.again = nn.ReLU()
        self.rnn = nn.LSTM(8, 4, bidirectional=True)
        self.embed = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("grid", torch.arange(6).reshape(2, 3).t())
        self.register_buffer("unsaved", torch.ones(2), persistent=False)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


def views(net):
    base = torch.randn(6, 4)
    return {
        "transposed": base.t(),
        "row": base[3],
        "column": base[:, 1],
        "every_other": base[::2, ::3],
        "repeated": torch.randn(1, 3).expand(4, 3),
        "half": base.half(),
        "brain": base.bfloat16(),
        "double": base.double(),
        "unsigned": torch.arange(5).to(torch.uint16),
        "truth": base > 0,
        "scalar": torch.tensor(2.5),
        "nothing": torch.zeros(0, 2),
        "parameter": nn.Parameter(base),
    }


def training(net):
    optimizer = torch.optim.AdamW(net.parameters())
    state = {"module." + key: value for key, value in net.state_dict().items()}
    options = argparse.Namespace(lr=0.1, betas=(0.9, 0.99))
    history = collections.defaultdict(list, loss=[1.0])
    return {"state_dict": state, "optimizer": optimizer.state_dict(), "args": options, "history": history, "epoch": 7}


CASES = {
    "state": (lambda net: net.state_dict(), lambda saved: saved),
    "whole": (lambda net: net, lambda saved: saved.state_dict()),
    "views": (views, lambda saved: saved),
    "training": (training, lambda saved: saved["state_dict"]),
    "with_module": (lambda net: {"model": net, "ema": None, "updates": 3}, lambda saved: saved["model"].state_dict()),
}


def read_back(path, folder):
    """The tensors of a file, as modelport reads them and PyTorch what it writes."""
    harness.modelport("to-model", "-iw", path, "-o", folder / "out.pth", "-q")
    return torch.load(folder / "out.pth", weights_only=True)


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype, key
        assert torch.equal(ours[key], tensor), key


@pytest.mark.parametrize("options", [{}, LEGACY, {"pickle_protocol": 4}], ids=["zip", "legacy", "protocol_4"])
@pytest.mark.parametrize("case", CASES)
def test_saved(case, options, net, tmp_path):
    make, state_of = CASES[case]
    path = tmp_path / "saved.bin"
    thing = make(net)
    if case == "views" and options == LEGACY:
        del thing["unsigned"]  # PyTorch writes it, but can't read it
    torch.save(thing, path, **options)
    theirs = state_of(torch.load(path, weights_only=False))
    ours = read_back(path, tmp_path)
    same(ours, theirs)
    if case in ("state", "whole"):
        assert ours["head.weight"].data_ptr() == ours["embed.weight"].data_ptr()


def test_safetensors_in_several_files(net, tmp_path):
    state = {key: value.clone().contiguous() for key, value in net.state_dict().items()}
    places = {key: f"model-{index % 3}.safetensors" for index, key in enumerate(state)}
    for name in set(places.values()):
        save_file({key: state[key] for key in state if places[key] == name}, tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    same(read_back(tmp_path / "model.safetensors.index.json", tmp_path), state)
    same(read_back(tmp_path, tmp_path), state)


class Small(nn.Module):
    """Every layer whose weights are ordered otherwise in the neutral graph."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, groups=3)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2, bias=False)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.up(self.norm(self.conv(x)).relu()) * self.scale
        return self.head(x.mean((2, 3)))


def scrambled(net):
    """The network with other weights, statistics included."""
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.1)
    return net


@pytest.mark.parametrize("graph", ["program", "script", "neutral"])
def test_state_dict_beside_a_graph(graph, tmp_path):
    torch.manual_seed(0)
    net, x = Small().eval(), torch.randn(3, 3, 8, 8)
    source = tmp_path / ("net.pt" if graph == "script" else "net.pt2")
    if graph == "script":
        torch.jit.trace(net, x).save(source)
    else:
        batch = {"x": {0: torch.export.Dim("batch")}}
        torch.export.save(torch.export.export(net, (x,), dynamic_shapes=batch), source)
    if graph == "neutral":
        harness.modelport("to-ir", "-in", source, "-o", tmp_path / "neutral", "-q")
        source = tmp_path / "neutral.pb"
    scrambled(net)
    wrapped = {"module." + key: value for key, value in net.state_dict().items()}
    torch.save({"epoch": 1, "model": wrapped}, tmp_path / "tuned.pth")
    harness.modelport("convert", "-in", source, "-iw", tmp_path / "tuned.pth", "-om", tmp_path / "out.pth", "-q")
    ours = harness.import_file(tmp_path / "out.py").load(str(tmp_path / "out.pth"))
    for batch in (1, 3):
        want, got = net(x[:batch]), ours(x[:batch])
        assert (want - got).abs().max() <= harness.TOLERANCE * want.abs().max()
    wrong = net.state_dict()
    wrong["head.bias"] = torch.zeros(7)
    wrong["extra"] = wrong.pop("norm.weight")
    torch.save(wrong, tmp_path / "wrong.pth")
    arguments = ["-in", source, "-iw", tmp_path / "wrong.pth", "-om", tmp_path / "wrong_out.pth"]
    said = harness.modelport("convert", *arguments, check=False).stderr
    assert all(text in said for text in ("wants the shape [5]", "at norm.weight", "at extra")), said
    assert not (tmp_path / "wrong_out.pth").exists()


def test_names_of_files_deceive(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "weights.ckpt")
    found = harness.modelport("inspect", tmp_path / "weights.ckpt", "--json").stdout
    assert [tensor["name"] for tensor in json.loads(found)["tensors"]][0] == "grid"
    said = harness.modelport(
        "convert", "-sf", "tensorflow", "-in", tmp_path / "weights.ckpt", "-om", tmp_path / "x.pth", check=False
    )
    assert said.returncode == 1 and "TensorFlow" not in said.stderr
