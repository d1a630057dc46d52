"""Overfeat, converted from TensorFlow (model.ckpt.meta).

Input    x             float32 [N, 3, 231, 231]  source: input, NHWC
Output   MMdnn_Output  float32 [N, 17]

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvReLU(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Overfeat(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = ConvReLU(3, 8, 11, stride=4)
        self.conv2 = ConvReLU(8, 8, 5)
        self.conv3 = ConvReLU(8, 16, 3, padding=1)
        self.conv4 = ConvReLU(16, 32, 3, padding=1)
        self.conv5 = ConvReLU(32, 32, 3, padding=1)
        self.fc6 = ConvReLU(32, 96, 6)
        self.fc7 = ConvReLU(96, 128, 1)
        self.fc8 = nn.Conv2d(128, 17, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv4(self.conv3(F.max_pool2d(self.conv2(F.max_pool2d(self.conv1(x), 2)), 2)))
        return self.fc8(self.fc7(self.fc6(F.max_pool2d(self.conv5(x), 2)))).flatten(1)


def load(weights: str = "model.pth", device: str = "cpu") -> Overfeat:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = Overfeat()
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
