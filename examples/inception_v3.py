"""InceptionV3, converted from TensorFlow (model.ckpt.meta).

Input    x             float32 [N, 3, 299, 299]  source: input, NHWC
Output   MMdnn_Output  float32 [N, 1001]

    model = load("inception_v3.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding: int | tuple[int, int] = 0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Branch1(nn.Module):
    """Mixed_7b/Branch_1, Mixed_7c/Branch_1."""

    def __init__(self, in_channels):
        super().__init__()
        self.Conv2d_0a_1x1 = ConvBNReLU(in_channels, 384, 1)
        self.Conv2d_0b_1x3 = ConvBNReLU(384, 384, (1, 3), padding=(0, 1))
        self.Conv2d_3x1 = ConvBNReLU(384, 384, (3, 1), padding=(1, 0))  # Conv2d_0b_3x1, Conv2d_0c_3x1

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_0a_1x1(x)
        return torch.cat([self.Conv2d_0b_1x3(x), self.Conv2d_3x1(x)], dim=1)


class Branch2(nn.Module):
    """Mixed_7b/Branch_2, Mixed_7c/Branch_2."""

    def __init__(self, in_channels):
        super().__init__()
        self.Conv2d_0a_1x1 = ConvBNReLU(in_channels, 448, 1)
        self.Conv2d_0b_3x3 = ConvBNReLU(448, 384, 3, padding=1)
        self.Conv2d_0c_1x3 = ConvBNReLU(384, 384, (1, 3), padding=(0, 1))
        self.Conv2d_0d_3x1 = ConvBNReLU(384, 384, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_0b_3x3(self.Conv2d_0a_1x1(x))
        return torch.cat([self.Conv2d_0c_1x3(x), self.Conv2d_0d_3x1(x)], dim=1)


class Mixed5(nn.Module):
    """Mixed_5b, Mixed_5c, Mixed_5d."""

    def __init__(self, in_channels, branch_3_channels):
        super().__init__()
        self.Branch_0 = ConvBNReLU(in_channels, 64, 1)
        self.Branch_1 = nn.Sequential(ConvBNReLU(in_channels, 48, 1), ConvBNReLU(48, 64, 5, padding=2))
        self.Branch_2 = nn.Sequential(
            ConvBNReLU(in_channels, 64, 1), ConvBNReLU(64, 96, 3, padding=1), ConvBNReLU(96, 96, 3, padding=1)
        )
        self.Branch_3 = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), ConvBNReLU(in_channels, branch_3_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], dim=1)


class Mixed6A(nn.Module):
    """Mixed_6a."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = ConvBNReLU(288, 384, 3, stride=2)
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(288, 64, 1), ConvBNReLU(64, 96, 3, padding=1), ConvBNReLU(96, 96, 3, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), F.max_pool2d(x, 3, stride=2)], dim=1)


class Mixed6(nn.Module):
    """Mixed_6b, Mixed_6c, Mixed_6d, Mixed_6e."""

    def __init__(self, mid_channels):
        super().__init__()
        self.Branch_0 = ConvBNReLU(768, 192, 1)
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(768, mid_channels, 1),
            ConvBNReLU(mid_channels, mid_channels, (1, 7), padding=(0, 3)),
            ConvBNReLU(mid_channels, 192, (7, 1), padding=(3, 0)),
        )
        self.Branch_2 = nn.Sequential(
            ConvBNReLU(768, mid_channels, 1),
            ConvBNReLU(mid_channels, mid_channels, (7, 1), padding=(3, 0)),
            ConvBNReLU(mid_channels, mid_channels, (1, 7), padding=(0, 3)),
            ConvBNReLU(mid_channels, mid_channels, (7, 1), padding=(3, 0)),
            ConvBNReLU(mid_channels, 192, (1, 7), padding=(0, 3)),
        )
        self.Branch_3 = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), ConvBNReLU(768, 192, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], dim=1)


class Mixed7A(nn.Module):
    """Mixed_7a."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = nn.Sequential(ConvBNReLU(768, 192, 1), ConvBNReLU(192, 320, 3, stride=2))
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(768, 192, 1),
            ConvBNReLU(192, 192, (1, 7), padding=(0, 3)),
            ConvBNReLU(192, 192, (7, 1), padding=(3, 0)),
            ConvBNReLU(192, 192, 3, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), F.max_pool2d(x, 3, stride=2)], dim=1)


class Mixed7(nn.Module):
    """Mixed_7b, Mixed_7c."""

    def __init__(self, in_channels):
        super().__init__()
        self.Branch_0 = ConvBNReLU(in_channels, 320, 1)
        self.Branch_1 = Branch1(in_channels)
        self.Branch_2 = Branch2(in_channels)
        self.Branch_3 = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), ConvBNReLU(in_channels, 192, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], dim=1)


class InceptionV3(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBNReLU(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvBNReLU(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvBNReLU(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvBNReLU(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvBNReLU(80, 192, 3)
        self.Mixed_5b = Mixed5(192, 32)
        self.Mixed_5c = Mixed5(256, 64)
        self.Mixed_5d = Mixed5(288, 64)
        self.Mixed_6a = Mixed6A()
        self.Mixed_6b = Mixed6(128)
        self.Mixed_6c = Mixed6(160)
        self.Mixed_6d = Mixed6(160)
        self.Mixed_6e = Mixed6(192)
        self.Mixed_7a = Mixed7A()
        self.Mixed_7b = Mixed7(1280)
        self.Mixed_7c = Mixed7(2048)
        self.Logits = nn.Conv2d(2048, 1001, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, stride=2)
        x = self.Mixed_5b(F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2))
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(x))))))
        x = self.Logits(F.avg_pool2d(self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x)))), 8))
        return x.flatten(1)


def load(weights: str = "inception_v3.pth", device: str = "cpu") -> InceptionV3:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = InceptionV3()
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
