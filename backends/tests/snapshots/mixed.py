"""Net, converted from test.

Input    x    float32 [N, 3, 32, 32]  source: input
Output   out  float32 [N, 18]

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


class Mixed5(nn.Module):
    """Mixed_5b, Mixed_5c, Mixed_5d."""

    def __init__(self, in_channels, branch_2_channels):
        super().__init__()
        self.Branch_0 = ConvBNReLU(in_channels, 8, 1)
        self.Branch_1 = nn.Sequential(ConvBNReLU(in_channels, 4, 1), ConvBNReLU(4, 6, 3))
        self.Branch_2 = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), ConvBNReLU(in_channels, branch_2_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x)], dim=1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBNReLU(3, 8, 3, stride=2)
        self.Mixed_5b = Mixed5(8, 2)
        self.Mixed_5c = Mixed5(16, 4)
        self.Mixed_5d = Mixed5(18, 4)
        self.Shortcut = ConvBNReLU(18, 18, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.Conv2d_1a_3x3(x))))
        return (x + self.Shortcut(x)).mean((2, 3))


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
