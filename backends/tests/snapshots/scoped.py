"""Net, converted from test.

Input    x    float32 [N, 3, 32, 32]  source: input
Output   out  float32 [N, 64]

    model = load("net.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001, momentum=0.0003)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Unit(nn.Module):
    """12 blocks from block0/unit0 to block2/unit3."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.shortcut = ConvBNReLU(in_channels, out_channels, 1, stride=stride) if stride != 1 else nn.Identity()
        self.conv1 = ConvBNReLU(in_channels, out_channels // 2, 1)
        self.conv2 = ConvBNReLU(out_channels // 2, out_channels // 2, 3, stride=stride)
        self.conv3 = ConvBNReLU(out_channels // 2, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv3(self.conv2(self.conv1(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = ConvBNReLU(3, 8, 3, stride=2)
        self.block0 = nn.Sequential(Unit(8, 16, stride=2), *[Unit(16, 16) for _ in range(3)])
        self.block1 = nn.Sequential(Unit(16, 32, stride=2), *[Unit(32, 32) for _ in range(3)])
        self.block2 = nn.Sequential(Unit(32, 64, stride=2), *[Unit(64, 64) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(self.block1(self.block0(self.stem(x)))).mean((2, 3))


def load(weights: str = "net.pth", device: str = "cpu") -> Net:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = Net()
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
