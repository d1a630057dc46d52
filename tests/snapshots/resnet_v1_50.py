"""ResnetV1_50, converted from TensorFlow (model.ckpt.meta).

Input    x             float32 [N, 3, 97, 97]  source: input, NHWC
Output   MMdnn_Output  float32 [N, 17, 1, 1]   source: NHWC

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class ConvBN(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class BottleneckV1(nn.Module):
    """16 blocks from block1/unit_1 to block4/unit_3."""

    def __init__(self, in_channels, mid_channels, shortcut=None, stride=1):
        super().__init__()
        self.shortcut = shortcut or nn.Identity()
        self.conv1 = ConvBNReLU(in_channels, mid_channels, 1)
        self.conv2 = ConvBNReLU(mid_channels, mid_channels, 3, stride=stride)
        self.conv3 = ConvBN(mid_channels, 4 * mid_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv3(self.conv2(self.conv1(x))))


class ResnetV1_50(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = ConvBNReLU(3, 64, 7, stride=2)
        self.block1 = nn.Sequential(
            BottleneckV1(64, 4, shortcut=ConvBN(64, 16)),
            BottleneckV1(16, 4),
            BottleneckV1(16, 4, shortcut=nn.MaxPool2d(1, stride=2), stride=2),
        )
        self.block2 = nn.Sequential(
            BottleneckV1(16, 8, shortcut=ConvBN(16, 32)),
            BottleneckV1(32, 8),
            BottleneckV1(32, 8),
            BottleneckV1(32, 8, shortcut=nn.MaxPool2d(1, stride=2), stride=2),
        )
        self.block3 = nn.Sequential(
            BottleneckV1(32, 16, shortcut=ConvBN(32, 64)),
            *[BottleneckV1(64, 16) for _ in range(4)],
            BottleneckV1(64, 16, shortcut=nn.MaxPool2d(1, stride=2), stride=2),
        )
        self.block4 = nn.Sequential(
            BottleneckV1(64, 32, shortcut=ConvBN(64, 128)), BottleneckV1(128, 32), BottleneckV1(128, 32)
        )
        self.logits = nn.Conv2d(128, 17, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(F.max_pool2d(self.conv1(x), 3, stride=2, padding=1))))
        return self.logits(self.block4(x).mean((2, 3), keepdim=True))


def load(weights: str = "model.pth", device: str = "cpu") -> ResnetV1_50:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = ResnetV1_50()
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
