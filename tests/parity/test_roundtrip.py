"""PyTorch networks come back as they were: module names, state-dict keys, outputs, and about as many lines."""

import ast
import inspect
import textwrap
from functools import partial

import pytest
import torch
from harness import TOLERANCE, import_file, modelport
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.vision_transformer import VisionTransformer


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Layers(nn.Module):
    """Weights of a module itself and parts of them, a list of modules, a layer that computes with another's weights."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Linear(16, 24)
        self.wpe = nn.Parameter(torch.zeros(1, 9, 24))
        self.kind = nn.Embedding(9, 24)
        self.register_buffer("kinds", torch.arange(9).reshape(1, -1) // 2)
        self.scale = nn.Parameter(torch.ones(24))
        self.blocks = nn.ModuleList(Block(24, 3) for _ in range(3))
        self.lm_head = nn.Linear(24, 24, bias=False)
        self.out = nn.Linear(16, 24, bias=False)
        self.out.weight = self.wte.weight

    def forward(self, x):
        x = self.wte(x) * self.scale.view(1, 1, -1) + self.wpe[:, : x.shape[1]]
        x = x + self.kind(self.kinds[:, : x.shape[1]])
        for block in self.blocks:
            x = block(x)
        return nn.functional.linear(self.lm_head(x), self.out.weight.t())


class BatchNormAct2d(nn.BatchNorm2d):
    def __init__(self, width, act):
        super().__init__(width, eps=1e-3)
        self.act = act

    def forward(self, x):
        return self.act(super().forward(x))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Conv2dSame(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class MobileBlock(nn.Module):
    def __init__(self, width, stride):
        super().__init__()
        conv = nn.Conv2d(width, width, 3, padding=1) if stride == 1 else Conv2dSame(width, width, 3, stride)
        self.conv = conv
        self.bn = BatchNormAct2d(width, nn.ReLU())

    def forward(self, x):
        return self.bn(self.conv(x))


class Extended(nn.Module):
    """Classes that extend layers, and modules of two kinds under one name."""

    def __init__(self):
        super().__init__()
        self.stem = Conv2dSame(3, 8, 3, 2)
        self.norm = LayerNorm2d(8)
        self.blocks = nn.Sequential(MobileBlock(8, 2), MobileBlock(8, 1), MobileBlock(8, 2))
        self.bn = BatchNormAct2d(8, nn.Hardswish())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.bn(self.blocks(self.norm(self.stem(x))))
        return self.fc(self.pool(x).flatten(1))


class Rotated(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x, cos, sin):
        y = self.fc(x)
        a, b = y.chunk(2, dim=-1)
        return x + y * cos + torch.cat([-b, a], dim=-1) * sin


class Rotary(nn.Module):
    """Constants that all blocks read are given to them, so that the blocks are one class."""

    def __init__(self):
        super().__init__()
        self.register_buffer("speeds", 100 ** (-torch.arange(8) / 8), persistent=False)
        self.blocks = nn.ModuleList(Rotated(16) for _ in range(3))

    def forward(self, x):
        angles = torch.outer(torch.arange(x.shape[1]).float(), self.speeds)
        angles = torch.cat([angles, angles], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        for block in self.blocks:
            x = block(x, cos, sin)
        return x


def vgg():
    stages = [[8, 8], [16, 16], [24, 24, 24], [32, 32, 32], [32, 32, 32]]
    features = make_layers([width for stage in stages for width in [*stage, "M"]], batch_norm=True)
    model = VGG(features, num_classes=5, init_weights=False)
    model.classifier = nn.Sequential(nn.Linear(32 * 49, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 5))
    return model


NETWORKS = {
    "vgg_bn": vgg,
    "resnet": lambda: ResNet(BasicBlock, [2, 2, 1, 2], num_classes=7),
    "resnext": lambda: ResNet(Bottleneck, [2, 1, 3, 1], num_classes=7, groups=4, width_per_group=16),
    "squeezenet": partial(models.squeezenet1_1, num_classes=9),
    "mobilenet_v2": partial(models.mobilenet_v2, width_mult=0.25, num_classes=9),
    "shufflenet_v2": partial(models.shufflenet_v2_x0_5, num_classes=9),
    "googlenet": partial(models.googlenet, init_weights=False, num_classes=9),
    "vit": lambda: VisionTransformer(64, 16, 3, 2, 24, 48, num_classes=7),
    "convnext": lambda: ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 3)], num_classes=7),
    "densenet": lambda: DenseNet(8, (3, 4), 16, num_classes=7),
    "swin": lambda: SwinTransformer([4, 4], 32, [2, 2], [1, 2], [4, 4], num_classes=7),
    "layers": Layers,
    "extended": Extended,
    "rotary": Rotary,
}
# Times the source's lines that the code may have.
LINES = 1.3


def randomize(model):
    """Statistics, scales and biases that a mistake would show in."""
    for name, tensor in model.state_dict().items():
        if tensor.dtype.is_floating_point:
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.normal_(0, (1 / fan_in) ** 0.5)
            elif name.endswith(("weight", "running_var", "scale")):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(0, 0.2)
    return model.eval()


def lines_of(source):
    """Lines of code, without docstrings and comments."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.Module)):
            first = body[0] if body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                body[:1] = [ast.Pass()] if len(body) == 1 else []
    used = set()
    for node in ast.walk(tree):
        if hasattr(node, "lineno") and not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            used.update((node.lineno, node.end_lineno))
        elif hasattr(node, "lineno"):
            used.add(node.lineno)
    return len(used)


def source_lines(model):
    classes = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.nn")}
    return sum(lines_of(inspect.getsource(cls)) for cls in classes)


def export(name, folder):
    """A network with random weights and its inputs, exported as `net.pt2`."""
    torch.manual_seed(1)
    with torch.no_grad():
        model = randomize(NETWORKS[name]())
    x = torch.randn(3, 5, 16) if name in ("layers", "rotary") else torch.randn(3, 3, 64, 64)
    batch = torch.export.Dim("N", min=1, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "net.pt2")
    return model, (x,)


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip(name, tmp_path):
    model, (x,) = export(name, tmp_path)
    modelport("convert", "-sf", "pytorch", "-in", tmp_path / "net.pt2", "-df", "pytorch", "-om", tmp_path / "out.pth")
    generated = import_file(tmp_path / "out.py")
    twin = generated.load(str(tmp_path / "out.pth"))

    state = model.state_dict()
    assert sorted(twin.state_dict()) == sorted(state)
    names = {path for path, _ in twin.named_modules()}
    own = {path for path, module in model.named_modules() if not isinstance(module, nn.Dropout)}
    dropped = {path for path in own - names if next(iter(model.get_submodule(path).children()), None) is not None}
    assert not dropped, "containers are missing"
    pools = {path for path in own - names if isinstance(model.get_submodule(path), nn.AdaptiveAvgPool2d)}
    assert not pools, "pools are missing"

    for size in (1, 3):
        with torch.no_grad():
            want, got = model(x[:size]), twin(x[:size])
        assert (got - want).abs().max() <= TOLERANCE * want.abs().max()
    # The source's own weights go in as they are.
    twin.load_state_dict(state)
    with torch.no_grad():
        assert (twin(x) - model(x)).abs().max() <= TOLERANCE * model(x).abs().max()

    code = (tmp_path / "out.py").read_text()
    code = code[code.index("Tensor, nn\n") + len("Tensor, nn\n") : code.index("\ndef load(")]
    have, written = lines_of(code), source_lines(model)
    print(f"{name}: {have} lines, {written} in the source")
    assert have <= LINES * written


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, "mixed"])
@pytest.mark.parametrize("kind", ["state", "program"])
def test_networks_compute_in_the_type_of_their_weights(kind, dtype, tmp_path):
    torch.manual_seed(2)
    with torch.no_grad():
        model = randomize(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5))
    if dtype == "mixed":
        if kind == "program":
            pytest.skip("what is computed in several types says where it changes them")
        # A state dict whose kernels alone are halved is loaded into a network of float32.
        state = {key: value.half() if value.ndim == 4 else value for key, value in model.state_dict().items()}
        model.load_state_dict(state)
        dtype = torch.float32
    else:
        model, state = model.to(dtype), model.to(dtype).state_dict()
    x = torch.randn(3, 3, 64, 64, dtype=dtype)
    source = tmp_path / ("net.pth" if kind == "state" else "net.pt2")
    if kind == "state":
        torch.save(state, source)
    else:
        torch.export.save(torch.export.export(model, (x,)), source)
    modelport("convert", "-sf", "pytorch", "-in", source, "-df", "pytorch", "-om", tmp_path / "out.pth")
    twin = import_file(tmp_path / "out.py").load(str(tmp_path / "out.pth"))
    assert all(a.dtype == b.dtype for a, b in zip(twin.parameters(), model.parameters(), strict=True))
    with torch.no_grad():
        assert torch.equal(twin(x), model(x))


class TemporalBlock(nn.Module):
    """Its convolutions are held twice: by name and in a chain."""

    def __init__(self, width_in, width, dilation, norm):
        super().__init__()
        self.conv1 = norm(nn.Conv1d(width_in, width, 3, padding=2 * dilation, dilation=dilation))
        self.conv2 = norm(nn.Conv1d(width, width, 3, padding=2 * dilation, dilation=dilation))
        self.relu = nn.ReLU()
        self.pad = 2 * dilation
        self.net = nn.ModuleList([self.conv1, self.conv2])
        self.downsample = nn.Conv1d(width_in, width, 1) if width_in != width else None

    def forward(self, x):
        y = x
        for conv in self.net:
            y = self.relu(conv(y)[:, :, : -self.pad])
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Tcn(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.blocks = nn.Sequential(*[TemporalBlock(3 if i == 0 else 8, 8, 2**i, norm) for i in range(3)])
        self.up = norm(nn.ConvTranspose1d(8, 6, 4, 2, 1), dim=1)
        self.head = norm(nn.Linear(6, 4))

    def forward(self, x):
        return self.head(self.up(self.blocks(x)).mean(2))


@pytest.mark.parametrize("norm", ["weight_norm", "parametrized"])
@pytest.mark.parametrize("source", ["program", "trace"])
def test_weight_norm_keeps_its_keys(source, norm, tmp_path):
    torch.manual_seed(3)
    norms = {"weight_norm": nn.utils.weight_norm, "parametrized": nn.utils.parametrizations.weight_norm}
    with torch.no_grad():
        model = randomize(Tcn(norms[norm]))
    x = torch.randn(3, 3, 16)
    if source == "program":
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("N", min=1, max=64)},))
        torch.export.save(program, tmp_path / "net.pt2")
    else:
        torch.jit.trace(model, x).save(tmp_path / "net.pt2")
    modelport(
        "convert",
        "-sf",
        "pytorch",
        "-in",
        tmp_path / "net.pt2",
        "-df",
        "pytorch",
        "-om",
        tmp_path / "out.pth",
        "--inputShape",
        "3,16",
    )
    twin = import_file(tmp_path / "out.py").load(str(tmp_path / "out.pth"))
    for size in (1, 3):
        with torch.no_grad():
            want, got = model(x[:size]), twin(x[:size])
        assert (got - want).abs().max() <= TOLERANCE * want.abs().max()
    assert sorted(twin.state_dict()) == sorted(model.state_dict())
    # Other weights go in as they are.
    with torch.no_grad():
        other = randomize(Tcn(norms[norm]))
        twin.load_state_dict(other.state_dict())
        want, got = other(x), twin(x)
    assert (got - want).abs().max() <= TOLERANCE * want.abs().max()
