"""ResnetV2_152, converted from TensorFlow (model.ckpt.meta).

Input    x             float32 [N, 3, 97, 97]  source: input, NHWC
Output   MMdnn_Output  float32 [N, 17]

    model = load("model.pth")  # in eval mode
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
    """46 blocks from block1/unit_2 to block4/unit_3."""

    def __init__(self, in_channels, stride=1):
        super().__init__()
        self.shortcut = nn.MaxPool2d(1, stride=stride) if stride != 1 else nn.Identity()
        self.preact = BNReLU(in_channels)
        self.conv1 = ConvBNReLU(in_channels, in_channels // 4, 1)
        self.conv2 = ConvBNReLU(in_channels // 4, in_channels // 4, 3, stride=stride)
        self.conv3 = nn.Conv2d(in_channels // 4, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv3(self.conv2(self.conv1(self.preact(x))))


class ResnetV2_152(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.block1 = nn.Sequential(ProjectionBottleneckV2(64, 8), BottleneckV2(8), BottleneckV2(8, stride=2))
        self.block2 = nn.Sequential(
            ProjectionBottleneckV2(8, 16), *[BottleneckV2(16) for _ in range(6)], BottleneckV2(16, stride=2)
        )
        self.block3 = nn.Sequential(
            ProjectionBottleneckV2(16, 32), *[BottleneckV2(32) for _ in range(34)], BottleneckV2(32, stride=2)
        )
        self.block4 = nn.Sequential(ProjectionBottleneckV2(32, 64), BottleneckV2(64), BottleneckV2(64))
        self.postnorm = BNReLU(64)
        self.logits = nn.Conv2d(64, 17, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(F.max_pool2d(self.conv1(x), 3, stride=2, padding=1))))
        return self.logits(self.postnorm(self.block4(x)).mean((2, 3), keepdim=True)).flatten(1)


def load(weights: str = "model.pth", device: str = "cpu") -> ResnetV2_152:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = ResnetV2_152()
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
