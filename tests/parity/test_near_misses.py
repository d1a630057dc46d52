"""State dicts that are almost those of a known architecture: the error says which, and what differs."""

import os
from pathlib import Path

import torch
import torchvision
from harness import modelport
from torch import nn
from torchvision.models import resnet

SNAPSHOT = Path(__file__).parents[1] / "snapshots" / "near_misses.txt"


def small(**changed):
    model = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=4)
    for name, module in changed.items():
        setattr(model, name, module)
    return model.state_dict()


def without(state, *parts):
    return {key: tensor for key, tensor in state.items() if not any(part in key for part in parts)}


def densenet():
    return torchvision.models.DenseNet(growth_rate=8, block_config=(2, 2, 2, 2), num_init_features=16).state_dict()


CASES = {
    "a_key_is_missing": lambda: without(small(), "layer3.0.downsample.0.weight"),
    "a_block_is_missing": lambda: without(small(), "layer3"),
    "more_keys": lambda: {**small(), "attention.weight": torch.zeros(3, 3), "attention.bias": torch.zeros(3)},
    "another_shape": lambda: {**small(), "layer2.0.conv2.weight": torch.zeros(128, 100, 3, 3)},
    "other_names": lambda: {key.replace("layer", "stage"): tensor for key, tensor in small().items()},
    "only_the_end": lambda: {key: tensor for key, tensor in small().items() if key.startswith(("layer4", "fc"))},
    "for_small_images": lambda: small(conv1=nn.Conv2d(3, 64, 3, padding=1, bias=False)),
    "growing_lists_cut": lambda: dict(list(densenet().items())[:80]),
    "layers_of_no_network": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 2)).state_dict(),
    "nothing": dict,
    "a_list": lambda: [torch.zeros(2)],
}


def test_what_shapes_do_not_tell_can_be_said(tmp_path):
    torch.save(CASES["for_small_images"](), tmp_path / "net.pth")
    said = ["--arch-arg", "stem_stride=1", "--arch-arg", "stem_pool=false"]
    modelport("convert", "-iw", tmp_path / "net.pth", "-om", tmp_path / "out.pth", "--inputShape", "3,32,32", *said)
    code = (tmp_path / "out.py").read_text()
    assert "nn.Conv2d(3, 64, 3, padding=1, bias=False)" in code and "MaxPool2d" not in code


def test_near_misses(tmp_path):
    texts = []
    for name, make in CASES.items():
        torch.save(make(), tmp_path / f"{name}.pth")
        run = modelport("convert", "-iw", tmp_path / f"{name}.pth", "-om", tmp_path / "out.pth", check=False)
        assert run.returncode != 0, name
        texts.append(run.stderr.replace(f"{tmp_path}/", ""))
    assert not (tmp_path / "out.pth").exists() and not (tmp_path / "out.py").exists()
    text = "\n".join(texts)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text()
