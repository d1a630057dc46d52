"""MobilenetV2, converted from TensorFlow (model.ckpt.meta).

Input    x              float32 [N, 3, 224, 224]  source: input, NHWC
Output   logits         float32 [N, 1001]         source: MobilenetV2/Logits/logits
Output   probabilities  float32 [N, 1001]

    model = load("mobilenet_v2.pth")  # in eval mode
    logits, probabilities = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU6(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, groups=1):
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride != 1 else nn.Identity()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            0 if stride != 1 else kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.bn(self.conv(self.pad(x))), inplace=True)


class ConvBN(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class ExpandedConv(nn.Module):
    def __init__(self, in_channels, mid_channels, out_channels, stride=1):
        super().__init__()
        self.residual = in_channels == out_channels
        self.expand = ConvBNReLU6(in_channels, mid_channels, 1) if in_channels != mid_channels else nn.Identity()
        self.depthwise = ConvBNReLU6(mid_channels, mid_channels, 3, stride=stride, groups=mid_channels)
        self.project = ConvBN(mid_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        project = self.project(self.depthwise(self.expand(x)))
        return project + x if self.residual else project


class MobilenetV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv = ConvBNReLU6(3, 32, 3, stride=2)
        self.expanded_conv = ExpandedConv(32, 32, 16)
        self.expanded_conv_1 = ExpandedConv(16, 96, 24, stride=2)
        self.expanded_conv_2 = ExpandedConv(24, 144, 24)
        self.expanded_conv_3 = ExpandedConv(24, 144, 32, stride=2)
        self.expanded_conv_4 = ExpandedConv(32, 192, 32)
        self.expanded_conv_5 = ExpandedConv(32, 192, 32)
        self.expanded_conv_6 = ExpandedConv(32, 192, 64, stride=2)
        self.expanded_conv_7 = ExpandedConv(64, 384, 64)
        self.expanded_conv_8 = ExpandedConv(64, 384, 64)
        self.expanded_conv_9 = ExpandedConv(64, 384, 64)
        self.expanded_conv_10 = ExpandedConv(64, 384, 96)
        self.expanded_conv_11 = ExpandedConv(96, 576, 96)
        self.expanded_conv_12 = ExpandedConv(96, 576, 96)
        self.expanded_conv_13 = ExpandedConv(96, 576, 160, stride=2)
        self.expanded_conv_14 = ExpandedConv(160, 960, 160)
        self.expanded_conv_15 = ExpandedConv(160, 960, 160)
        self.expanded_conv_16 = ExpandedConv(160, 960, 320)
        self.Conv_1 = ConvBNReLU6(320, 1280, 1)
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
