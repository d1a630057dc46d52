"""Networks of torchvision, as state dicts (recognised from keys and shapes) and as whole modules."""

import json
import os

import pytest
import torch
from harness import compare, import_file, modelport
from torch import nn
from torchvision import models
from torchvision.models import convnext, efficientnet, regnet, segmentation
from torchvision.models._utils import IntermediateLayerGetter

os.environ.setdefault("OMP_NUM_THREADS", "1")


def shapes_only(make):
    """A network at a fraction of its cost: widths are what its arguments say, weights are drawn later."""
    return make


def narrow_resnet(block, layers, **options):
    return lambda: models.resnet.ResNet(block, layers, num_classes=7, **options)


BASIC, BOTTLENECK = models.resnet.BasicBlock, models.resnet.Bottleneck


def efficientnet_b(depths, eps):
    def make():
        widths = [8, 8, 12, 16, 16, 24, 32, 48]
        kernels, strides, ratios = [3, 3, 5, 3, 5, 5, 3], [1, 2, 2, 2, 1, 2, 1], [1, 6, 6, 6, 6, 6, 6]
        rows = zip(ratios, kernels, strides, widths[:-1], widths[1:], depths, strict=True)
        settings = [efficientnet.MBConvConfig(*row, 1.0, 1.0) for row in rows]
        return models.EfficientNet(settings, 0.2, num_classes=7, norm_layer=lambda c: nn.BatchNorm2d(c, eps=eps))

    return make


def efficientnet_v2():
    settings = [
        efficientnet.FusedMBConvConfig(1, 3, 1, 8, 8, 2),
        efficientnet.FusedMBConvConfig(4, 3, 2, 8, 16, 2),
        efficientnet.FusedMBConvConfig(4, 3, 2, 16, 24, 1),
        efficientnet.MBConvConfig(4, 3, 2, 24, 32, 2),
        efficientnet.MBConvConfig(6, 3, 1, 32, 32, 1),
        efficientnet.MBConvConfig(6, 3, 2, 32, 48, 2),
    ]
    norm = lambda c: nn.BatchNorm2d(c, eps=1e-3)  # noqa: E731
    return models.EfficientNet(settings, 0.2, num_classes=7, norm_layer=norm, last_channel=64)


def narrow_regnet(se_ratio):
    def make():
        params = regnet.BlockParams([1, 2, 2, 1], [16, 32, 48, 64], [8, 8, 8, 8], [1.0] * 4, [2] * 4, se_ratio)
        return models.RegNet(params, num_classes=7, stem_width=16)

    return make


def narrow_convnext(depths):
    def make():
        widths = [16, 24, 32, 40]
        settings = [
            convnext.CNBlockConfig(width, after, depth)
            for width, after, depth in zip(widths, [*widths[1:], None], depths, strict=True)
        ]
        return models.ConvNeXt(settings, layer_scale=0.5, num_classes=7)

    return make


def narrow_vit(**options):
    return lambda: models.VisionTransformer(num_heads=2, hidden_dim=128, mlp_dim=96, num_classes=7, **options)


def narrow_swin(window, depths):
    def make():
        return models.SwinTransformer(
            [4, 4], 32, depths, [1, 2], [window, window], num_classes=7, stochastic_depth_prob=0.1
        )

    return make


def narrow_swin_v2():
    return models.SwinTransformer(
        [4, 4],
        32,
        [2, 2],
        [1, 2],
        [4, 4],
        num_classes=7,
        block=models.swin_transformer.SwinTransformerBlockV2,
        downsample_layer=models.swin_transformer.PatchMergingV2,
    )


def narrow_maxvit(window, depths):
    """The last map is one window, as in torchvision's."""
    size = window * 2 ** (len(depths) + 1)
    widths = [16, 32, 48][: len(depths)]
    return lambda: models.MaxVit((size, size), 8, window, widths, depths, 16, 0.2, num_classes=7)


def fcn():
    trunk = models.resnet.ResNet(BOTTLENECK, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True])
    trunk = IntermediateLayerGetter(trunk, {"layer4": "out", "layer3": "aux"})
    head, aux = segmentation.fcn.FCNHead(2048, 5), segmentation.fcn.FCNHead(1024, 5)
    return segmentation.FCN(trunk, head, aux)


def deeplabv3():
    return segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)


def lraspp():
    return segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)


def vgg(cfg, norm):
    return lambda: models.VGG(models.vgg.make_layers(cfg, norm), num_classes=7, init_weights=False)


def thin_vgg(cfg, norm):
    def make():
        net = models.VGG(models.vgg.make_layers(cfg, norm), num_classes=7, init_weights=False)
        channels = [size for size in cfg if size != "M"][-1]
        net.classifier[0] = nn.Linear(channels * 49, 32)
        net.classifier[3] = nn.Linear(32, 32)
        net.classifier[6] = nn.Linear(32, 7)
        return net

    return make


VGG_A = [8, "M", 16, "M", 16, 16, "M", 24, 24, "M", 24, 24, "M"]
VGG_D = [8, 8, "M", 16, 16, "M", 16, 16, 16, "M", 24, 24, 24, "M", 24, 24, 24, "M"]

# Network, the size of its input, and the name under which it is recognised.
NETWORKS = {
    "alexnet": (lambda: models.alexnet(num_classes=7), 96, "alexnet"),
    "vgg11": (thin_vgg(VGG_A, False), 64, "vgg11"),
    "vgg16_bn": (thin_vgg(VGG_D, True), 64, "vgg16_bn"),
    "resnet_basic": (narrow_resnet(BASIC, [1, 2, 1, 1]), 64, "resnet12"),
    "resnet_bottleneck": (narrow_resnet(BOTTLENECK, [1, 1, 2, 1]), 64, "resnet17"),
    "resnext": (narrow_resnet(BOTTLENECK, [1, 1, 1, 1], groups=4, width_per_group=8), 64, "resnext14_4x8d"),
    "wide_resnet": (narrow_resnet(BOTTLENECK, [1, 1, 1, 1], width_per_group=128), 64, "wide_resnet14_2"),
    "squeezenet1_0": (lambda: models.squeezenet1_0(num_classes=7), 64, "squeezenet1_0"),
    "squeezenet1_1": (lambda: models.squeezenet1_1(num_classes=7), 64, "squeezenet1_1"),
    "densenet_2": (lambda: models.DenseNet(4, (2, 3, 2, 2), 16, num_classes=7), 64, "densenet23"),
    "densenet_3": (lambda: models.DenseNet(8, (1, 2, 3), 8, num_classes=7, bn_size=2), 64, "densenet16"),
    "googlenet": (lambda: models.GoogLeNet(7, aux_logits=False, init_weights=False), 96, "googlenet"),
    "inception_v3": (lambda: models.Inception3(7, init_weights=False), 299, "inception_v3"),
    "mobilenet_v2": (lambda: models.mobilenet_v2(width_mult=0.25, num_classes=7), 64, "mobilenet_v2"),
    "mobilenet_v2_full": (lambda: models.mobilenet_v2(width_mult=0.5, num_classes=7), 96, "mobilenet_v2"),
    "mobilenet_v3_small": (lambda: models.mobilenet_v3_small(num_classes=7), 64, "mobilenet_v3_small"),
    "mobilenet_v3_large": (
        lambda: models.mobilenet_v3_large(width_mult=0.5, num_classes=7),
        64,
        "mobilenet_v3_large",
    ),
    "shufflenet_v2_x0_5": (lambda: models.shufflenet_v2_x0_5(num_classes=7), 64, "shufflenet_v2_x0_5"),
    "shufflenet_v2": (lambda: models.ShuffleNetV2([2, 2, 1], [8, 16, 32, 48, 64], 7), 64, "shufflenet_v2"),
    "mnasnet0_5": (lambda: models.mnasnet0_5(num_classes=7), 64, "mnasnet0_5"),
    "mnasnet1_0": (lambda: models.mnasnet1_0(num_classes=7), 64, "mnasnet1_0"),
    "efficientnet_b0": (efficientnet_b([1, 2, 2, 1, 1, 1, 1], 1e-5), 64, "efficientnet"),
    "efficientnet_b5": (efficientnet_b([3, 1, 1, 1, 1, 1, 1], 1e-3), 64, "efficientnet"),
    "efficientnet_v2": (efficientnet_v2, 64, "efficientnet_v2"),
    "regnet_x": (narrow_regnet(None), 64, "regnet_x"),
    "regnet_y": (narrow_regnet(0.25), 64, "regnet_y"),
    "convnext": (narrow_convnext([1, 1, 2, 1]), 64, "convnext"),
    "convnext_2": (narrow_convnext([2, 1, 1, 1]), 96, "convnext"),
    "vit": (narrow_vit(image_size=32, patch_size=8, num_layers=2), 32, "vit_8"),
    "vit_2": (narrow_vit(image_size=48, patch_size=16, num_layers=3, representation_size=24), 48, "vit_16"),
    "swin": (narrow_swin(4, [2, 2]), 64, "swin"),
    "swin_2": (narrow_swin(3, [2, 2]), 64, "swin"),
    "swin_v2": (narrow_swin_v2, 64, "swin_v2"),
    "maxvit": (narrow_maxvit(3, [1, 2]), 24, "maxvit"),
    "maxvit_2": (narrow_maxvit(4, [2, 1, 1]), 64, "maxvit"),
    "fcn_resnet": (fcn, 65, "fcn_resnet14"),
    "deeplabv3_mobilenet_v3_large": (deeplabv3, 65, "deeplabv3_mobilenet_v3_large"),
    "lraspp_mobilenet_v3_large": (lraspp, 65, "lraspp_mobilenet_v3_large"),
}


def randomised(make, seed=0):
    """The network in eval mode, with statistics and biases that make a difference."""
    torch.manual_seed(seed)
    net = make().eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.6, 1.6)
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        elif isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=(1.6 / fan_in) ** 0.5)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.2, 0.2)
        for name, parameter in module.named_parameters(recurse=False):
            if "position" in name or name in ("pos_embedding", "class_token"):
                nn.init.normal_(parameter, std=0.5)
    return net


def outputs_of(net, x):
    with torch.no_grad():
        y = net(x)
    return list(y.values()) if isinstance(y, dict) else [y]


def converted(source, folder, *extra):
    result = modelport(
        "convert", "-sf", "pytorch", "-in", source, "-df", "pytorch", "-om", folder / "out.pth", "--json", *extra
    )
    return import_file(folder / "out.py").load(str(folder / "out.pth")), json.loads(result.stdout)


def assert_equal(net, model, size):
    for batch in (1, 3):
        x = torch.randn(batch, 3, size, size)
        with torch.no_grad():
            actual = model(x)
        actual = list(actual) if isinstance(actual, tuple) else [actual]
        compare(actual, [y.numpy() for y in outputs_of(net, x)])


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name, tmp_path):
    make, size, recognised = NETWORKS[name]
    net = randomised(make)
    shape = ["--inputShape", f"3,{size},{size}"]
    torch.save(net.state_dict(), tmp_path / "state.pth")
    model, report = converted(tmp_path / "state.pth", tmp_path, *shape)
    assert report["source"]["recognised"].startswith(f"{recognised}:"), report["source"]
    assert_equal(net, model, size)
    # All of the source's weights go in, those of heads that only train too.
    model.load_state_dict(net.state_dict())
    assert_equal(net, model, size)
    try:
        torch.save(net, tmp_path / "module.pth")
    except (AttributeError, TypeError):
        return  # A lambda for its normalisation can't be pickled.
    model, _ = converted(tmp_path / "module.pth", tmp_path, *shape)
    model.load_state_dict(net.state_dict())
    assert_equal(net, model, size)


@pytest.mark.parametrize("make", [lambda net: torch.jit.trace(net, torch.randn(2, 3, 96, 96)), torch.jit.script])
def test_torchscript_keeps_what_only_trains(make, tmp_path):
    net = randomised(lambda: models.GoogLeNet(7, init_weights=False))
    make(net).save(str(tmp_path / "net.pt"))
    model, _ = converted(tmp_path / "net.pt", tmp_path, "--inputShape", "3,96,96")
    model.load_state_dict(net.state_dict())


def test_three_steps_keep_what_only_trains(tmp_path):
    """Auxiliary heads are in the neutral files as well, and `--name-map` knows their weights."""
    net = randomised(lambda: models.GoogLeNet(7, init_weights=False))
    torch.save(net.state_dict(), tmp_path / "state.pth")
    shape = ["--inputShape", "3,96,96"]
    converted(tmp_path / "state.pth", tmp_path, *shape, "--name-map", tmp_path / "names.json")
    code = (tmp_path / "out.py").read_text()
    modelport("to-ir", "-f", "pytorch", "-w", tmp_path / "state.pth", "-o", tmp_path / "ir", *shape)
    (tmp_path / "steps").mkdir()
    weights = ["-w", tmp_path / "ir.npy", "-ow", tmp_path / "steps" / "out.pth"]
    modelport("to-code", "-f", "pytorch", "-n", tmp_path / "ir.pb", *weights, "-o", tmp_path / "steps" / "out.py")
    assert (tmp_path / "steps" / "out.py").read_text() == code
    one, three = (torch.load(folder / "out.pth") for folder in (tmp_path, tmp_path / "steps"))
    assert one.keys() == three.keys() >= net.state_dict().keys() and any(key.startswith("aux2.") for key in one)
    assert all(torch.equal(one[key], three[key]) for key in one)
    assert all(torch.equal(one[key], tensor) for key, tensor in net.state_dict().items())
    names = json.loads((tmp_path / "names.json").read_text())
    assert all(names[key] == key for key in one if not key.endswith("num_batches_tracked"))
