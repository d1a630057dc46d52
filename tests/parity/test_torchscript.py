"""TorchScript, traced, scripted and frozen: converted networks compute what the source computes."""

import pytest
import torch
import torchvision
from aten_nets import Scattered
from harness import TOLERANCE, import_file, modelport
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large as lraspp


class Decoder(nn.Module):
    """Depthwise blocks, a skip connection, and both ways of upsampling."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
        self.point = nn.Conv2d(8, 12, 1)
        self.up = nn.Upsample(scale_factor=2)
        self.out = nn.ConvTranspose2d(20, 2, 2, 2)

    def forward(self, x):
        skip = self.down(x)
        y = torch.sigmoid(self.point(self.depthwise(skip)))
        y = torch.cat([self.up(y), skip], 1)
        small = self.out(y)
        return small, nn.functional.interpolate(small, size=(20, 24), mode="bilinear", align_corners=False)


class Branches(nn.Module):
    """What scripts have and traces do not: conditions, loops, defaults, sizes."""

    def __init__(self, deep: bool):
        super().__init__()
        self.deep = deep
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.head = nn.Linear(12, 4)

    def forward(self, x, scale: float = 2.0):
        if x.dim() != 2:
            raise ValueError("two axes, please")
        parts = []
        for index, layer in enumerate(self.layers):
            x = torch.relu(layer(x)) * scale
            if index != 1 and self.deep:
                parts.append(x)
        n, _ = x.shape
        return self.head(torch.cat(parts, dim=1).view(n, -1))


def resnet():
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=5, width_per_group=64)


def vit():
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)


def mobilenet():
    return torchvision.models.mobilenet_v3_small(num_classes=5, width_mult=0.5)


NETWORKS = {
    "resnet": (resnet, (3, 48, 48), "traced scripted frozen"),
    "vit": (vit, (3, 32, 32), "traced scripted"),
    "mobilenet": (mobilenet, (3, 64, 64), "traced scripted"),
    "shufflenet": (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5), (3, 64, 64), "traced scripted"),
    "densenet": (lambda: torchvision.models.DenseNet(8, (3, 4), 16, num_classes=5), (3, 64, 64), "scripted"),
    "lraspp": (lambda: lraspp(num_classes=5, weights_backbone=None), (3, 64, 64), "traced scripted"),
    "decoder": (Decoder, (3, 32, 40), "traced scripted frozen"),
    "branches": (lambda: Branches(True), (6,), "scripted"),
    "scattered": (Scattered, (5, 6), "traced scripted"),
}
CASES = [(name, kind) for name, (_, _, kinds) in NETWORKS.items() for kind in kinds.split()]


def randomised(model):
    """Statistics and biases that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


def saved(model, example, kind, path):
    if kind == "traced":
        script = torch.jit.trace(model, example, check_trace=False, strict=False)
    else:
        script = torch.jit.script(model)
    if kind == "frozen":
        script = torch.jit.freeze(script)
    torch.jit.save(script, str(path))


def outputs(result):
    if isinstance(result, dict):
        return list(result.values())
    return [result] if isinstance(result, torch.Tensor) else list(result)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kind"), CASES)
@torch.no_grad()
def test_converted_scripts_compute_the_same(name, kind, tmp_path):
    make, shape, _ = NETWORKS[name]
    torch.manual_seed(len(name))
    model = randomised(make())
    saved(model, torch.randn(2, *shape), kind, tmp_path / "model.pt")
    size = ",".join(map(str, shape))
    modelport(
        "convert",
        "-sf",
        "pytorch",
        "-in",
        tmp_path / "model.pt",
        "-df",
        "pytorch",
        "-om",
        tmp_path / "out.pth",
        "--inputShape",
        size,
    )
    converted = import_file(tmp_path / "out.py").load(str(tmp_path / "out.pth"))
    for batch in (1, 3):
        x = torch.randn(batch, *shape)
        for ours, theirs in zip(outputs(converted(x)), outputs(model(x)), strict=True):
            assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()
    if kind != "frozen":
        keys = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
        ours = {key for key in converted.state_dict() if not key.endswith("num_batches_tracked")}
        assert ours == keys
        classes = {type(module).__name__ for module in model.modules() if "torchvision" in type(module).__module__}
        missing = {name for name in classes if f"class {name}(" not in (tmp_path / "out.py").read_text()}
        # Chains that are written in their place.
        assert all("Norm" in name or "Activation" in name or "Dropout" in name for name in missing), missing


@pytest.mark.filterwarnings("ignore")
def test_a_trace_tells_its_input(tmp_path):
    embedding = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(20, 2)).eval()
    tokens = torch.randint(0, 10, (2, 5))
    torch.jit.trace(embedding, tokens, check_trace=False).save(str(tmp_path / "model.pt"))
    modelport("convert", "-sf", "pytorch", "-in", tmp_path / "model.pt", "-df", "pytorch", "-om", tmp_path / "out.pth")
    converted = import_file(tmp_path / "out.py").load(str(tmp_path / "out.pth"))
    assert torch.allclose(converted(tokens), embedding(tokens), atol=1e-6)


class Gate(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x


@pytest.mark.filterwarnings("ignore")
def test_control_flow_on_data_is_an_error_with_its_line(tmp_path):
    torch.jit.script(Gate()).save(str(tmp_path / "model.pt"))
    arguments = ["-sf", "pytorch", "-in", tmp_path / "model.pt", "-df", "pytorch", "-om", tmp_path / "out.pth"]
    result = modelport("convert", *arguments, "--inputShape", "3,8,8", check=False)
    assert result.returncode != 0
    assert "not known before it runs" in result.stderr and "line 8" in result.stderr
    assert not (tmp_path / "out.py").exists()
