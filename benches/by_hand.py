"""Networks of TensorFlow's slim as one writes them in PyTorch by hand, to measure converted ones beside.

They are the same networks to the last pad: `load_in_order` gives them the weights of a converted one.
"""

import torch
import torch.nn.functional as F
from torch import nn


def load_in_order(model, other):
    """Copies the weights of a network whose layers are defined in the same order."""
    mine, theirs = model.state_dict(), other.state_dict()
    model.load_state_dict(dict(zip(mine, theirs.values(), strict=True)))
    return model.eval()


class ConvBN(nn.Sequential):
    def __init__(self, in_channels, out_channels, kernel_size=1, stride=1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class Bottleneck(nn.Module):
    """Strides in its 3x3 convolution; a shortcut that keeps its width is subsampled only."""

    def __init__(self, in_channels, width, stride=1):
        super().__init__()
        out_channels = 4 * width
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = ConvBN(in_channels, out_channels, stride=stride)
        elif stride != 1:
            self.shortcut = nn.MaxPool2d(1, stride)
        self.conv1 = ConvBN(in_channels, width)
        self.conv2 = ConvBN(width, width, 3, stride)
        self.conv3 = ConvBN(width, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out = self.relu(self.conv1(x))
        out = self.relu(self.conv2(out))
        out = self.conv3(out)
        out += shortcut
        return self.relu(out)


class ResNetV1(nn.Module):
    """slim's resnet_v1: a stage strides in its last unit."""

    def __init__(self, units=(3, 4, 6, 3), num_classes=1001):
        super().__init__()
        self.conv1 = ConvBN(3, 64, 7, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        stages, in_channels = [], 64
        for stage, count in enumerate(units):
            blocks, width = [], 64 << stage
            for unit in range(count):
                strides = unit == count - 1 and stage < len(units) - 1
                blocks.append(Bottleneck(in_channels, width, 2 if strides else 1))
                in_channels = 4 * width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.logits = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, x):
        x = self.stages(self.pool(self.relu(self.conv1(x))))
        return self.logits(x.mean((2, 3), keepdim=True))


class ConvBNReLU6(nn.Module):
    """A convolution that pads as TensorFlow's SAME does, at the end where it strides over an even size."""

    def __init__(self, in_channels, out_channels, kernel_size=1, stride=1, groups=1):
        super().__init__()
        self.stride = stride
        padding = kernel_size // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU6(inplace=True)

    def forward(self, x):
        if self.stride == 2:
            x = F.pad(x, (0, 1, 0, 1))
        return self.relu(self.bn(self.conv(x)))


class InvertedResidual(nn.Module):
    def __init__(self, in_channels, out_channels, expansion, stride):
        super().__init__()
        self.residual = stride == 1 and in_channels == out_channels
        width = in_channels * expansion
        layers = [ConvBNReLU6(in_channels, width)] if expansion != 1 else []
        layers += [
            ConvBNReLU6(width, width, 3, stride, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, eps=0.001),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    def __init__(self, num_classes=1001):
        super().__init__()
        settings = [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]
        layers, in_channels = [ConvBNReLU6(3, 32, 3, stride=2)], 32
        for expansion, channels, count, stride in settings:
            for unit in range(count):
                layers.append(InvertedResidual(in_channels, channels, expansion, stride if unit == 0 else 1))
                in_channels = channels
        layers.append(ConvBNReLU6(in_channels, 1280))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


NETWORKS = {"resnet_v1_50": ResNetV1, "mobilenet_v2": MobileNetV2}


def check(model, other, image):
    """Both compute the same."""
    with torch.inference_mode():
        ours, theirs = model(image), other(image)
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if ours.shape != theirs.shape or not difference <= 1e-5:
        raise SystemExit(f"{type(model).__name__} is another network: off by {difference:.1e} of its largest output")
