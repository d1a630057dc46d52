"""InceptionResnetV2, converted from TensorFlow (model.ckpt.meta).

Input    x       float32 [N, 3, 107, 107]  source: input, NHWC
Output   Logits  float32 [N, 17]           source: InceptionResnetV2/Logits/Logits/BiasAdd

    model = load("model.pth")  # in eval mode
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


class Mixed5B(nn.Module):
    """Mixed_5b."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = ConvBNReLU(12, 8, 1)
        self.Branch_1 = nn.Sequential(ConvBNReLU(12, 4, 1), ConvBNReLU(4, 4, 5, padding=2))
        self.Branch_2 = nn.Sequential(
            ConvBNReLU(12, 4, 1), ConvBNReLU(4, 8, 3, padding=1), ConvBNReLU(8, 8, 3, padding=1)
        )
        self.Branch_3 = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), ConvBNReLU(12, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], dim=1)


class Block35(nn.Module):
    """block35_1, block35_2, block35_3."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = ConvBNReLU(24, 4, 1)
        self.Branch_1 = nn.Sequential(ConvBNReLU(24, 4, 1), ConvBNReLU(4, 4, 3, padding=1))
        self.Branch_2 = nn.Sequential(
            ConvBNReLU(24, 4, 1), ConvBNReLU(4, 4, 3, padding=1), ConvBNReLU(4, 4, 3, padding=1)
        )
        self.Conv2d_1x1 = nn.Conv2d(12, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.Conv2d_1x1(torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x)], dim=1)) * 0.17
        return F.relu(x)


class Mixed6A(nn.Module):
    """Mixed_6a."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = ConvBNReLU(24, 24, 3, stride=2)
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(24, 16, 1), ConvBNReLU(16, 16, 3, padding=1), ConvBNReLU(16, 24, 3, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), F.max_pool2d(x, 3, stride=2)], dim=1)


class Block17(nn.Module):
    """block17_1, block17_2, block17_3, block17_4."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = ConvBNReLU(72, 12, 1)
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(72, 8, 1), ConvBNReLU(8, 12, (1, 7), padding=(0, 3)), ConvBNReLU(12, 12, (7, 1), padding=(3, 0))
        )
        self.Conv2d_1x1 = nn.Conv2d(24, 72, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.Conv2d_1x1(torch.cat([self.Branch_0(x), self.Branch_1(x)], dim=1)) * 0.1)


class Block8(nn.Module):
    """block8_1, block8_2, block8_3."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = ConvBNReLU(136, 12, 1)
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(136, 12, 1),
            ConvBNReLU(12, 16, (1, 3), padding=(0, 1)),
            ConvBNReLU(16, 16, (3, 1), padding=(1, 0)),
        )
        self.Conv2d_1x1 = nn.Conv2d(28, 136, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.Conv2d_1x1(torch.cat([self.Branch_0(x), self.Branch_1(x)], dim=1)) * 0.2)


class Mixed7A(nn.Module):
    """Mixed_7a."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = nn.Sequential(ConvBNReLU(72, 16, 1), ConvBNReLU(16, 24, 3, stride=2))
        self.Branch_1 = nn.Sequential(ConvBNReLU(72, 16, 1), ConvBNReLU(16, 20, 3, stride=2))
        self.Branch_2 = nn.Sequential(
            ConvBNReLU(72, 16, 1), ConvBNReLU(16, 20, 3, padding=1), ConvBNReLU(20, 20, 3, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        branch_3 = F.max_pool2d(x, 3, stride=2)
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), branch_3], dim=1)


class Block8_2(nn.Module):
    """Block8."""

    def __init__(self):
        super().__init__()
        self.Branch_0 = ConvBNReLU(136, 12, 1)
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(136, 12, 1),
            ConvBNReLU(12, 16, (1, 3), padding=(0, 1)),
            ConvBNReLU(16, 16, (3, 1), padding=(1, 0)),
        )
        self.Conv2d_1x1 = nn.Conv2d(28, 136, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.Conv2d_1x1(torch.cat([self.Branch_0(x), self.Branch_1(x)], dim=1))


class InceptionResnetV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBNReLU(3, 4, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvBNReLU(4, 4, 3)
        self.Conv2d_2b_3x3 = ConvBNReLU(4, 4, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvBNReLU(4, 8, 1)
        self.Conv2d_4a_3x3 = ConvBNReLU(8, 12, 3)
        self.Mixed_5b = Mixed5B()
        self.Repeat = nn.Sequential(*[Block35() for _ in range(3)])
        self.Mixed_6a = Mixed6A()
        self.Repeat_1 = nn.Sequential(*[Block17() for _ in range(4)])
        self.Mixed_7a = Mixed7A()
        self.Repeat_2 = nn.Sequential(*[Block8() for _ in range(3)])
        self.Block8 = Block8_2()
        self.Conv2d_7b_1x1 = ConvBNReLU(136, 96, 1)
        self.Logits = nn.Linear(96, 17)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, stride=2)
        x = self.Mixed_5b(F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2))
        x = self.Block8(self.Repeat_2(self.Mixed_7a(self.Repeat_1(self.Mixed_6a(self.Repeat(x))))))
        return self.Logits(F.avg_pool2d(self.Conv2d_7b_1x1(x), 2).flatten(1))


def load(weights: str = "model.pth", device: str = "cpu") -> InceptionResnetV2:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = InceptionResnetV2()
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
