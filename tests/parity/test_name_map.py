"""`--name-map`: every weight of the code, and the tensor of the source that it is."""

import json
import re

import harness
import numpy as np
import pytest
import torch
from harness import modelport

NAMES = ("cnn_resource", "cnn_partitioned", "cnn_training", "unet", "nasnet", "inception_v3", "mlp", "text_cnn")
CASES = [case for case in harness.cases() if case.name in NAMES]
# Variables of optimizers, and of heads that are not asked for.
TRAINS = "Momentum$|ExponentialMovingAverage$|^global_step$|AuxLogits/"
PURPOSES = ("training", "inference")


def names_in(checkpoint):
    """All tensors of a checkpoint, as `inspect` tells them."""
    index = checkpoint.with_name(checkpoint.name + ".index")
    return {tensor["name"] for tensor in json.loads(modelport("inspect", index, "--json").stdout)["tensors"]}


def keys_of(weights):
    if weights.suffix == ".pth":
        return set(torch.load(weights, weights_only=True))
    layers = np.load(weights, allow_pickle=True).item()
    return {f"{layer}/{key}" for layer, tensors in layers.items() for key in tensors}


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize(("framework", "extension"), [("pytorch", "pth"), ("keras", "npy")])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_name_map(case, framework, extension, purpose, tmp_path):
    weights, path = tmp_path / f"model.{extension}", tmp_path / "names.json"
    options = ["-df", framework, "-om", weights, "--name-map", path, "--for", purpose]
    modelport("convert", *case.source(), *options)
    names = json.loads(path.read_text())
    assert set(names) == keys_of(weights)
    known = names_in(case.path("weights"))
    found = {name for name in names.values() if name}
    assert found <= known
    if purpose == "training":
        missing = {name for name in known - found if not re.search(TRAINS, name)}
        assert not missing
    else:
        # What is folded into a layer is in none of its own weights.
        assert {name for name in found if name.endswith(("kernel", "weights"))}
