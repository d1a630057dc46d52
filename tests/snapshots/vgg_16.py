"""Vgg16, converted from TensorFlow (model.ckpt.meta).

Input    x             float32 [N, 3, 224, 224]  source: input, NHWC
Output   MMdnn_Output  float32 [N, 17]

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvReLU(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size=3, padding=1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Vgg16(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(ConvReLU(3, 8), ConvReLU(8, 8))
        self.conv2 = nn.Sequential(ConvReLU(8, 8), ConvReLU(8, 8))
        self.conv3 = nn.Sequential(*[ConvReLU(8, 8) for _ in range(3)])
        self.conv4 = nn.Sequential(ConvReLU(8, 16), ConvReLU(16, 16), ConvReLU(16, 16))
        self.conv5 = nn.Sequential(*[ConvReLU(16, 16) for _ in range(3)])
        self.fc6 = ConvReLU(16, 128, kernel_size=7, padding=0)
        self.fc7 = ConvReLU(128, 128, kernel_size=1, padding=0)
        self.fc8 = nn.Conv2d(128, 17, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv3(F.max_pool2d(self.conv2(F.max_pool2d(self.conv1(x), 2)), 2)), 2)
        x = self.fc7(self.fc6(F.max_pool2d(self.conv5(F.max_pool2d(self.conv4(x), 2)), 2)))
        return self.fc8(x).flatten(1)


def load(weights: str = "model.pth", device: str = "cpu") -> Vgg16:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = Vgg16()
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
