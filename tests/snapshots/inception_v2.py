"""InceptionV2, converted from TensorFlow (model.ckpt.meta).

Input    x             float32 [N, 3, 107, 107]  source: input, NHWC
Output   MMdnn_Output  float32 [N, 17]

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, pad=False):
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if pad else nn.Identity()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, 0 if pad else kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(self.pad(x))))


class Mixed(nn.Module):
    """Mixed_3b, Mixed_3c, Mixed_4b, Mixed_4c, Mixed_4d, Mixed_4e, Mixed_5b."""

    def __init__(
        self,
        in_channels,
        branch_0_channels,
        branch_1_channels,
        branch_1_channels2,
        branch_2_channels,
        branch_2_channels2,
        branch_3_channels,
    ):
        super().__init__()
        self.Branch_0 = ConvBNReLU(in_channels, branch_0_channels, 1)
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(in_channels, branch_1_channels, 1), ConvBNReLU(branch_1_channels, branch_1_channels2, 3)
        )
        self.Branch_2 = nn.Sequential(
            ConvBNReLU(in_channels, branch_2_channels, 1),
            ConvBNReLU(branch_2_channels, branch_2_channels2, 3),
            ConvBNReLU(branch_2_channels2, branch_2_channels2, 3),
        )
        self.Branch_3 = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), ConvBNReLU(in_channels, branch_3_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], dim=1)


class Mixed4A(nn.Module):
    """Mixed_4a."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = nn.Sequential(ConvBNReLU(30, 12, 1), ConvBNReLU(12, 16, 3, stride=2, pad=True))
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(30, 6, 1), ConvBNReLU(6, 9, 3), ConvBNReLU(9, 9, 3, stride=2, pad=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), F.max_pool2d(x, 3, stride=2, ceil_mode=True)], dim=1)


class Mixed5A(nn.Module):
    """Mixed_5a."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = nn.Sequential(ConvBNReLU(56, 12, 1), ConvBNReLU(12, 19, 3, stride=2))
        self.Branch_1 = nn.Sequential(ConvBNReLU(56, 19, 1), ConvBNReLU(19, 25, 3), ConvBNReLU(25, 25, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), F.max_pool2d(x, 3, stride=2, padding=1)], dim=1)


class Mixed5C(nn.Module):
    """Mixed_5c."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = ConvBNReLU(101, 35, 1)
        self.Branch_1 = nn.Sequential(ConvBNReLU(101, 19, 1), ConvBNReLU(19, 32, 3))
        self.Branch_2 = nn.Sequential(ConvBNReLU(101, 19, 1), ConvBNReLU(19, 22, 3), ConvBNReLU(22, 22, 3))
        self.Branch_3 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), ConvBNReLU(101, 12, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], dim=1)


class InceptionV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_7x7 = nn.Sequential(
            nn.Conv2d(3, 6, 7, 2, 3, groups=3, bias=False), nn.Conv2d(6, 6, 1), nn.ReLU()
        )
        self.Conv2d_2b_1x1 = ConvBNReLU(6, 6, 1)
        self.Conv2d_2c_3x3 = ConvBNReLU(6, 19, 3)
        self.Mixed_3b = Mixed(19, 6, 6, 6, 6, 9, 4)
        self.Mixed_3c = Mixed(25, 6, 6, 9, 6, 9, 6)
        self.Mixed_4a = Mixed4A()
        self.Mixed_4b = Mixed(55, 22, 6, 9, 9, 12, 12)
        self.Mixed_4c = Mixed(55, 19, 9, 12, 9, 12, 12)
        self.Mixed_4d = Mixed(55, 16, 12, 16, 12, 16, 9)
        self.Mixed_4e = Mixed(57, 9, 12, 19, 16, 19, 9)
        self.Mixed_5a = Mixed5A()
        self.Mixed_5b = Mixed(100, 35, 19, 32, 16, 22, 12)
        self.Mixed_5c = Mixed5C()
        self.Logits = nn.Conv2d(101, 17, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_1x1(F.max_pool2d(self.Conv2d_1a_7x7(x), 3, stride=2, ceil_mode=True))
        x = self.Mixed_3b(F.max_pool2d(self.Conv2d_2c_3x3(x), 3, stride=2, padding=1))
        x = self.Mixed_4e(self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(self.Mixed_4a(self.Mixed_3c(x))))))
        return self.Logits(F.avg_pool2d(self.Mixed_5c(self.Mixed_5b(self.Mixed_5a(x))), 4)).flatten(1)


def load(weights: str = "model.pth", device: str = "cpu") -> InceptionV2:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = InceptionV2()
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
