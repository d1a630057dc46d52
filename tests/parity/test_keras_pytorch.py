"""PyTorch networks in Keras: through the code and through the `.keras` file, on each backend.

State dicts where networks are recognised by them, exported programs for the rest, scripts and whole modules of a few.
"""

import json
import subprocess
import sys

import aten_nets
import own_nets
import pytest
import test_archs
import test_aten
import torch
from harness import to_target
from test_keras import BACKENDS, batches, convert, work
from torch import nn
from torchvision import models


class TwoHeads(nn.Module):
    """A ResNet's trunk with two heads, one of them on its last feature map."""

    def __init__(self):
        super().__init__()
        trunk = models.resnet.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], width_per_group=64)
        self.trunk = nn.Sequential(*list(trunk.children())[:-2])
        self.label, self.box = nn.Linear(512, 5), nn.Conv2d(512, 4, 1)

    def forward(self, x):
        x = self.trunk(x)
        return self.label(x.mean((2, 3))), self.box(x).sigmoid()


class Masked(nn.Module):
    """Scores of what the mask lets through, with one mask per image."""

    def forward(self, x):
        mask = torch.ones(x.shape[2], 1, dtype=torch.bool).expand(x.shape[0], 3, -1, x.shape[3]).logical_and(x > -1)
        return x.masked_fill(~mask, float("-inf")).softmax(-1)


class Capitals(nn.Module):
    """A product whose equation has capital letters for axes."""

    def forward(self, x):
        return torch.einsum("NCIW,NCJW->NCIJ", x, x.exp())


def image(size):
    return lambda batch: (torch.randn(batch, 3, size, size),)


def ids(batch):
    return (torch.randint(0, 20, (batch, 7)),)


# Settings of networks that are there in others: each takes seconds.
MORE = {"mobilenet_v2_full", "mnasnet1_0", "convnext_2", "vit_2", "swin_2", "wide_resnet", "squeezenet1_1"}
# What PyTorch gives, inputs for a batch, and the kinds of files it is read from.
NETWORKS = {
    name: (make, image(size), "state") for name, (make, size, _) in test_archs.NETWORKS.items() if name not in MORE
}
NETWORKS |= {
    "encoder_decoder": (aten_nets.EncoderDecoder, image(16), "program script"),
    "two_heads": (TwoHeads, image(64), "program script"),
    "squeezenet_ceil": (lambda: models.squeezenet1_1(num_classes=2), image(49), "program"),
    "resnet": (test_aten.resnet, image(48), "state program script module"),
    "lstm": (lambda: aten_nets.Classifier("LSTM"), ids, "program script"),
    "gru": (lambda: aten_nets.Classifier("GRU"), ids, "program"),
    "rnn": (lambda: aten_nets.Classifier("RNN"), ids, "program"),
    "states": (aten_nets.States, ids, "program"),
    "gpt": (aten_nets.Gpt, ids, "program"),
    "attention": (aten_nets.Folded, ids, "fixed script"),
    "capitals": (Capitals, image(6), "program script"),
    "masked": (Masked, image(6), "program"),
    "scattered": (aten_nets.Scattered, lambda batch: (torch.randn(batch, 5, 6),), "program"),
    "odd": (aten_nets.Odd, image(9), "program"),
}
NETWORKS |= {
    "unet": (own_nets.UNet, lambda batch: (torch.randn(batch, 3, 18, 22),), "program"),
    "audio": (own_nets.Audio, lambda batch: (torch.randn(batch, 1, 256),), "program"),
    "encoder": (own_nets.Encoder, ids, "program"),
    "crnn": (own_nets.Crnn, lambda batch: (torch.randn(batch, 1, 16, 20),), "program"),
    "super_resolution": (own_nets.SuperResolution, lambda batch: (torch.rand(batch, 3, 6, 8),), "program"),
    "volume": (own_nets.Volume, lambda batch: (torch.randn(batch, 2, 4, 16, 16),), "program"),
    "pooled": (own_nets.Pooled, ids, "program"),
    "siamese": (
        own_nets.Siamese,
        lambda batch: (torch.randn(batch, 1, 12, 12), torch.randn(batch, 1, 12, 12)),
        "program",
    ),
}
CASES = [f"{name}-{kind}" for name, (_, _, kinds) in NETWORKS.items() for kind in kinds.split()]


def save(net, inputs, kind, path):
    if kind == "state":
        torch.save(net.state_dict(), path)
    elif kind == "module":
        torch.save(net, path)
    elif kind == "script":
        torch.jit.trace(net, inputs, check_trace=False).save(str(path))
    else:
        batch = torch.export.Dim("batch", min=1, max=64)
        shapes = tuple({0: batch} for _ in inputs) if kind == "program" else None
        torch.export.save(torch.export.export(net, inputs, dynamic_shapes=shapes), path)


def outputs_of(net, inputs):
    with torch.no_grad():
        y = net(*inputs)
    return [y] if torch.is_tensor(y) else list(y.values() if isinstance(y, dict) else y)


def job(case, folder, *extra, model="model.keras"):
    name, kind = case.rsplit("-", 1)
    make, inputs, _ = NETWORKS[name]
    net = test_archs.randomised(make)
    folder.mkdir(parents=True)
    path = folder / {"program": "net.pt2", "fixed": "net.pt2", "script": "net.pt"}.get(kind, "net.pth")
    example = inputs(2)
    save(net, example, kind, path)
    shape = ["--inputShape", ",".join(map(str, example[0].shape[1:]))] if kind in ("state", "script", "module") else []
    result = convert(["-sf", "pytorch", "-iw", path, *shape], folder / "out", *extra, model=model, check=False)
    if result.returncode != 0:
        return {"id": case, "wrong": result.stdout + result.stderr}
    report = json.loads(result.stdout)

    def pair(batch):
        x = inputs(batch)
        expected = [y.numpy() for y in outputs_of(net, x)]
        return to_target([x.numpy() for x in x], report["inputs"]), to_target(expected, report["outputs"])

    files = {"code": str(folder / "out" / "model.py"), "weights": str(folder / "out" / model)}
    files["models"] = [files["weights"]] if model.endswith("keras") else []
    return {"id": case, **files, "batches": batches(folder, [pair(1), pair(3)])}


@pytest.fixture(scope="session")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras_pytorch")
    return folder, [job(case, folder / case) for case in CASES]


@pytest.fixture(scope="session")
def results(jobs):
    done = {}

    def of(backend):
        if backend not in done:
            done[backend] = work(jobs[1], jobs[0], backend)
        return done[backend]

    return of


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_network(case, backend, results):
    assert results(backend)[case] is None, results(backend)[case]


@pytest.mark.filterwarnings("ignore")
def test_version_2(tmp_path):
    names = ["resnet-state", "mobilenet_v3_small-state", "swin-state", "gpt-program"]
    version = ["--keras-version", "2"]
    jobs = [job(name, tmp_path / name, *version, model="model.npy") for name in names]
    wrong = work(jobs, tmp_path, "tensorflow", version=2)
    assert not any(wrong.values()), wrong


@pytest.mark.filterwarnings("ignore")
def test_code(jobs):
    """Clean, and lines that fit."""
    folder, cases = jobs
    codes = [job["code"] for job in cases if "code" in job]
    rules = ["--isolated", "--quiet", "--no-cache", "--select", "E,F,W", "--line-length", "120"]
    command = [sys.executable, "-m", "ruff", "check", *rules, *codes]
    ruff = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ruff.returncode == 0, ruff.stdout + ruff.stderr
