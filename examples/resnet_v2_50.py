"""ResnetV2_50, converted from TensorFlow (model.ckpt.meta).

Input    x             float32 [N, 3, 224, 224]  source: input, NHWC
Output   MMdnn_Output  float32 [N, 1001]

    model = load("resnet_v2_50.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BNReLU(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(x))


class ConvBNReLU(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class ProjectionBottleneckV2(nn.Module):
    """block1/unit_1, block2/unit_1, block3/unit_1, block4/unit_1."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.preact = BNReLU(in_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.conv1 = ConvBNReLU(in_channels, out_channels // 4, 1)
        self.conv2 = ConvBNReLU(out_channels // 4, out_channels // 4, 3)
        self.conv3 = nn.Conv2d(out_channels // 4, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.preact(x)
        return self.shortcut(x) + self.conv3(self.conv2(self.conv1(x)))


class BottleneckV2(nn.Module):
    """12 blocks from block1/unit_2 to block4/unit_3."""

    def __init__(self, in_channels, stride=1):
        super().__init__()
        self.shortcut = nn.MaxPool2d(1, stride=stride) if stride != 1 else nn.Identity()
        self.preact = BNReLU(in_channels)
        self.conv1 = ConvBNReLU(in_channels, in_channels // 4, 1)
        self.conv2 = ConvBNReLU(in_channels // 4, in_channels // 4, 3, stride=stride)
        self.conv3 = nn.Conv2d(in_channels // 4, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv3(self.conv2(self.conv1(self.preact(x))))


class ResnetV2_50(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.block1 = nn.Sequential(ProjectionBottleneckV2(64, 256), BottleneckV2(256), BottleneckV2(256, stride=2))
        self.block2 = nn.Sequential(
            ProjectionBottleneckV2(256, 512), BottleneckV2(512), BottleneckV2(512), BottleneckV2(512, stride=2)
        )
        self.block3 = nn.Sequential(
            ProjectionBottleneckV2(512, 1024), *[BottleneckV2(1024) for _ in range(4)], BottleneckV2(1024, stride=2)
        )
        self.block4 = nn.Sequential(ProjectionBottleneckV2(1024, 2048), BottleneckV2(2048), BottleneckV2(2048))
        self.postnorm = BNReLU(2048)
        self.logits = nn.Conv2d(2048, 1001, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(F.max_pool2d(self.conv1(x), 3, stride=2, ceil_mode=True))))
        return self.logits(self.postnorm(self.block4(x)).mean((2, 3), keepdim=True)).flatten(1)


def load(weights: str = "resnet_v2_50.pth", device: str = "cpu") -> ResnetV2_50:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = ResnetV2_50()
    if weights.endswith(".npy"):
        import numpy as np

        layers = np.load(weights, allow_pickle=True).item().items()
        state = {f"{at}.{key}".lstrip("."): torch.as_tensor(w) for at, layer in layers for key, w in layer.items()}
    elif weights.endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(weights)
    else:
        state = torch.load(weights, map_location=device, weights_only=True)
    model.load_state_dict(state)
    return model.to(device).eval()
