"""MobilenetV2, converted from TensorFlow (model.ckpt.meta).

Input    x              float32 [N, 3, 224, 224]  source: input, NHWC
Output   logits         float32 [N, 1001]         source: MobilenetV2/Logits/logits
Output   probabilities  float32 [N, 1001]         source: probabilities

    model = load("mobilenet_v2.pth")  # in eval mode
    y1, y2 = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU6(nn.Module):
    def __init__(self, in_channels, out_channels, groups):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.bn(self.conv(F.pad(x, (0, 1, 0, 1)))))


class ConvBNReLU6_2(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.bn(self.conv(x)))


class ConvBN(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class ExpandedConv(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.expand = ConvBNReLU6_2(in_channels, 6 * in_channels, 1)
        self.depthwise = ConvBNReLU6_2(6 * in_channels, 6 * in_channels, 3, groups=6 * in_channels)
        self.project = ConvBN(6 * in_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.depthwise(self.expand(x))) + x


class MobilenetV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv = ConvBNReLU6(3, 32, 1)
        self.expanded_conv = nn.Sequential(ConvBNReLU6_2(32, 32, 3, groups=32), ConvBN(32, 16))
        self.expanded_conv_1 = nn.Sequential(ConvBNReLU6_2(16, 96, 1), ConvBNReLU6(96, 96, 96), ConvBN(96, 24))
        self.expanded_conv_2 = ExpandedConv(24)
        self.expanded_conv_3 = nn.Sequential(ConvBNReLU6_2(24, 144, 1), ConvBNReLU6(144, 144, 144), ConvBN(144, 32))
        self.expanded_conv_4 = ExpandedConv(32)
        self.expanded_conv_5 = ExpandedConv(32)
        self.expanded_conv_6 = nn.Sequential(ConvBNReLU6_2(32, 192, 1), ConvBNReLU6(192, 192, 192), ConvBN(192, 64))
        self.expanded_conv_7 = ExpandedConv(64)
        self.expanded_conv_8 = ExpandedConv(64)
        self.expanded_conv_9 = ExpandedConv(64)
        self.expanded_conv_10 = nn.Sequential(
            ConvBNReLU6_2(64, 384, 1), ConvBNReLU6_2(384, 384, 3, groups=384), ConvBN(384, 96)
        )
        self.expanded_conv_11 = ExpandedConv(96)
        self.expanded_conv_12 = ExpandedConv(96)
        self.expanded_conv_13 = nn.Sequential(ConvBNReLU6_2(96, 576, 1), ConvBNReLU6(576, 576, 576), ConvBN(576, 160))
        self.expanded_conv_14 = ExpandedConv(160)
        self.expanded_conv_15 = ExpandedConv(160)
        self.expanded_conv_16 = nn.Sequential(
            ConvBNReLU6_2(160, 960, 1), ConvBNReLU6_2(960, 960, 3, groups=960), ConvBN(960, 320)
        )
        self.Conv_1 = ConvBNReLU6_2(320, 1280, 1)
        self.Logits = nn.Linear(1280, 1001)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.expanded_conv_3(self.expanded_conv_2(self.expanded_conv_1(self.expanded_conv(self.Conv(x)))))
        x = self.expanded_conv_6(self.expanded_conv_5(self.expanded_conv_4(x)))
        x = self.expanded_conv_9(self.expanded_conv_8(self.expanded_conv_7(x)))
        x = self.expanded_conv_12(self.expanded_conv_11(self.expanded_conv_10(x)))
        x = self.expanded_conv_15(self.expanded_conv_14(self.expanded_conv_13(x)))
        x = self.Logits(self.Conv_1(self.expanded_conv_16(x)).mean((2, 3)))
        return x, F.softmax(x, dim=1)


def load(weights: str = "mobilenet_v2.pth", device: str = "cpu") -> MobilenetV2:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = MobilenetV2()
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
