"""Training: one step of SGD moves a converted Keras network's weights as it moves the source's, dropout left out.

The source's weights after the step are converted as well, so that the comparison knows nothing of layouts. Moving
variances are those of the batch as it is: TensorFlow's fused kernel and PyTorch correct them by n / (n - 1), Keras 3
does not, which is taken out here.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import harness
import numpy as np
import pytest
import torch
import torchvision
from harness import modelport
from torch import nn

WORKER = Path(__file__).with_name("keras_training.py")
RATE = 0.1
TOLERANCE = 1e-4  # of a variable's largest change, which counts as at least a hundredth of the network's


def resnet():
    return torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=5)


def mobilenet():
    return torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25)


def pytorch_step(make, folder):
    """Weights before and after, as arguments of `convert`; the batch in the layout of Keras."""
    torch.manual_seed(3)
    model = make().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    old = [module.running_var.clone() for module in norms]
    counts = {}
    for module in norms:
        module.register_forward_hook(lambda module, x, _: counts.update({module: x[0].numel() // x[0].shape[1]}))
    for when in ("before", "after"):
        (folder / when).mkdir()
    torch.save(model.state_dict(), folder / "before" / "net.pth")
    # In double precision, as Keras' step is.
    model.double()
    x = torch.randn(8, 3, 64, 64)
    y = model(x.double())
    factors = torch.randn(y.shape)
    (y * factors).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= RATE * parameter.grad
        for module, before in zip(norms, old, strict=True):
            n, kept = counts[module], (1 - module.momentum) * before
            module.running_var.copy_(kept + (module.running_var - kept) * (n - 1) / n)
    torch.save(model.float().state_dict(), folder / "after" / "net.pth")
    np.savez(folder / "batch.npz", x=x.numpy().transpose(0, 2, 3, 1), factors=factors.numpy())
    weights = [folder / when / "net.pth" for when in ("before", "after")]
    return [["-sf", "pytorch", "-iw", path, "--inputShape", "3,64,64"] for path in weights]


def tensorflow_step(name, folder):
    """The same with the training graph of a network of the fixtures."""
    case = next(case for case in harness.cases() if case.name == name)
    script = Path(__file__).with_name("tf1_step.py")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    np.save(folder / "x.npy", np.concatenate([case.inputs(3)[0], case.inputs(3)[0][::-1] * 0.5]))
    command = [sys.executable, script, case.path("network"), case.path("weights"), folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rest = ["--dstNode", *case.outputs, *case.facts["arguments"]]
    weights = [case.path("weights"), folder / "after.ckpt"]
    return [["-sf", "tensorflow", "-in", case.path("network"), "-iw", path, *rest] for path in weights]


SOURCES = {
    "resnet": lambda folder: pytorch_step(resnet, folder),
    "mobilenet_v2": lambda folder: pytorch_step(mobilenet, folder),
    "cnn_training": lambda folder: tensorflow_step("cnn_training", folder),
}


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    done = {}

    def of(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            for when, source in zip(("before", "after"), SOURCES[name](folder), strict=True):
                (folder / when).mkdir(exist_ok=True)
                modelport("convert", *source, "-df", "keras", "-om", folder / when / "net.npy")
            # It is one program, whatever the weights.
            assert (folder / "before" / "net.py").read_text() == (folder / "after" / "net.py").read_text()
            done[name] = folder
        return done[name]

    return of


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
@pytest.mark.parametrize("name", SOURCES)
def test_step(name, backend, steps):
    folder = steps(name)
    files = [folder / "before" / "net.py", folder / "before" / "net.npy", folder / "after" / "net.npy"]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, WORKER, *files, folder / "batch.npz"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    missed = json.loads(done.stdout.split("RESULT")[-1])
    largest = max(change for change, _ in missed.values())
    wrong = {key: pair for key, pair in missed.items() if pair[1] > TOLERANCE * max(pair[0], 1e-2 * largest)}
    assert not wrong, wrong
    assert all(change > 0 for change, _ in missed.values()), missed
