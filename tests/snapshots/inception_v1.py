"""InceptionV1, converted from TensorFlow (model.ckpt.meta).

Input    x             float32 [N, 3, 224, 224]  source: input, NHWC
Output   MMdnn_Output  float32 [N, 17]

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1):
        super().__init__()
        self.pad = nn.ZeroPad2d((2, 3, 2, 3)) if stride != 1 else nn.Identity()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, 0 if stride != 1 else kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(self.pad(x))))


class Mixed(nn.Module):
    def __init__(
        self,
        in_channels,
        branch_0_channels,
        branch_1_channels,
        branch_1_channels2,
        branch_2_channels,
        branch_3_channels,
    ):
        super().__init__()
        self.Branch_0 = ConvBNReLU(in_channels, branch_0_channels, 1)
        self.Branch_1 = nn.Sequential(
            ConvBNReLU(in_channels, branch_1_channels, 1), ConvBNReLU(branch_1_channels, branch_1_channels2, 3)
        )
        self.Branch_2 = nn.Sequential(ConvBNReLU(in_channels, 8, 1), ConvBNReLU(8, branch_2_channels, 3))
        self.Branch_3 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), ConvBNReLU(in_channels, branch_3_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], dim=1)


class InceptionV1(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_7x7 = ConvBNReLU(3, 8, 7, stride=2)
        self.Conv2d_2b_1x1 = ConvBNReLU(8, 8, 1)
        self.Conv2d_2c_3x3 = ConvBNReLU(8, 24, 3)
        self.Mixed_3b = Mixed(24, 8, 12, 16, 8, 8)
        self.Mixed_3c = Mixed(40, 16, 16, 24, 12, 8)
        self.Mixed_4b = Mixed(60, 24, 12, 26, 8, 8)
        self.Mixed_4c = Mixed(66, 20, 14, 28, 8, 8)
        self.Mixed_4d = Mixed(64, 16, 16, 32, 8, 8)
        self.Mixed_4e = Mixed(64, 14, 18, 36, 8, 8)
        self.Mixed_4f = Mixed(66, 32, 20, 40, 16, 16)
        self.Mixed_5b = Mixed(104, 32, 20, 40, 16, 16)
        self.Mixed_5c = Mixed(104, 48, 24, 48, 16, 16)
        self.Logits = nn.Conv2d(128, 17, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_1x1(F.max_pool2d(self.Conv2d_1a_7x7(x), 3, stride=2, ceil_mode=True))
        x = self.Mixed_3b(F.max_pool2d(self.Conv2d_2c_3x3(x), 3, stride=2, ceil_mode=True))
        x = self.Mixed_4c(self.Mixed_4b(F.max_pool2d(self.Mixed_3c(x), 3, stride=2, ceil_mode=True)))
        x = self.Mixed_5c(self.Mixed_5b(F.max_pool2d(self.Mixed_4f(self.Mixed_4e(self.Mixed_4d(x))), 2)))
        return self.Logits(F.avg_pool2d(x, 7)).flatten(1)


def load(weights: str = "model.pth", device: str = "cpu") -> InceptionV1:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = InceptionV1()
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
