"""MobilenetV1, converted from TensorFlow (model.ckpt.meta).

Input    x       float32 [N, 3, 96, 96]  source: input, NHWC
Output   Logits  float32 [N, 17]         source: MobilenetV1/Logits/SpatialSqueeze

    model = load("model.pth")  # in eval mode
    y = model(images)
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


class MobilenetV1(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_0 = ConvBNReLU6(3, 4, 3, stride=2)
        self.Conv2d_1_depthwise = ConvBNReLU6(4, 4, 3, groups=4)
        self.Conv2d_1_pointwise = ConvBNReLU6(4, 8, 1)
        self.Conv2d_2_depthwise = ConvBNReLU6(8, 8, 3, stride=2, groups=8)
        self.Conv2d_2_pointwise = ConvBNReLU6(8, 16, 1)
        self.Conv2d_3_depthwise = ConvBNReLU6(16, 16, 3, groups=16)
        self.Conv2d_3_pointwise = ConvBNReLU6(16, 16, 1)
        self.Conv2d_4_depthwise = ConvBNReLU6(16, 16, 3, stride=2, groups=16)
        self.Conv2d_4_pointwise = ConvBNReLU6(16, 32, 1)
        self.Conv2d_5_depthwise = ConvBNReLU6(32, 32, 3, groups=32)
        self.Conv2d_5_pointwise = ConvBNReLU6(32, 32, 1)
        self.Conv2d_6_depthwise = ConvBNReLU6(32, 32, 3, stride=2, groups=32)
        self.Conv2d_6_pointwise = ConvBNReLU6(32, 64, 1)
        self.Conv2d_7_depthwise = ConvBNReLU6(64, 64, 3, groups=64)
        self.Conv2d_7_pointwise = ConvBNReLU6(64, 64, 1)
        self.Conv2d_8_depthwise = ConvBNReLU6(64, 64, 3, groups=64)
        self.Conv2d_8_pointwise = ConvBNReLU6(64, 64, 1)
        self.Conv2d_9_depthwise = ConvBNReLU6(64, 64, 3, groups=64)
        self.Conv2d_9_pointwise = ConvBNReLU6(64, 64, 1)
        self.Conv2d_10_depthwise = ConvBNReLU6(64, 64, 3, groups=64)
        self.Conv2d_10_pointwise = ConvBNReLU6(64, 64, 1)
        self.Conv2d_11_depthwise = ConvBNReLU6(64, 64, 3, groups=64)
        self.Conv2d_11_pointwise = ConvBNReLU6(64, 64, 1)
        self.Conv2d_12_depthwise = ConvBNReLU6(64, 64, 3, stride=2, groups=64)
        self.Conv2d_12_pointwise = ConvBNReLU6(64, 128, 1)
        self.Conv2d_13_depthwise = ConvBNReLU6(128, 128, 3, groups=128)
        self.Conv2d_13_pointwise = ConvBNReLU6(128, 128, 1)
        self.Logits = nn.Conv2d(128, 17, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2_depthwise(self.Conv2d_1_pointwise(self.Conv2d_1_depthwise(self.Conv2d_0(x))))
        x = self.Conv2d_3_pointwise(self.Conv2d_3_depthwise(self.Conv2d_2_pointwise(x)))
        x = self.Conv2d_5_depthwise(self.Conv2d_4_pointwise(self.Conv2d_4_depthwise(x)))
        x = self.Conv2d_6_pointwise(self.Conv2d_6_depthwise(self.Conv2d_5_pointwise(x)))
        x = self.Conv2d_8_depthwise(self.Conv2d_7_pointwise(self.Conv2d_7_depthwise(x)))
        x = self.Conv2d_9_pointwise(self.Conv2d_9_depthwise(self.Conv2d_8_pointwise(x)))
        x = self.Conv2d_11_depthwise(self.Conv2d_10_pointwise(self.Conv2d_10_depthwise(x)))
        x = self.Conv2d_12_pointwise(self.Conv2d_12_depthwise(self.Conv2d_11_pointwise(x)))
        x = F.avg_pool2d(self.Conv2d_13_pointwise(self.Conv2d_13_depthwise(x)), 3)
        return self.Logits(x).flatten(1)


def load(weights: str = "model.pth", device: str = "cpu") -> MobilenetV1:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = MobilenetV1()
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
