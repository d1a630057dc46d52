"""Features, converted from PyTorch (net.pt2).

Input    x  float32 [N, 3, 16, 16]
Output   y  float32 [N, 10, 2, 2]

    model = load("net.pth")  # in eval mode
    y = model(images)
"""

import torch
from torch import Tensor, nn


def conv_bn_relu(in_channels, out_channels, kernel_size=3) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *conv_bn_relu(3, 8),
            *conv_bn_relu(8, 8),
            nn.MaxPool2d(3, stride=2, padding=1),
            *conv_bn_relu(8, 16),
            *conv_bn_relu(16, 16),
            nn.MaxPool2d(3, stride=2, padding=1),
            *conv_bn_relu(16, 32),
            *conv_bn_relu(32, 32),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.head = nn.Sequential(*conv_bn_relu(32, 64, kernel_size=1), nn.Conv2d(64, 10, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def load(weights: str = "net.pth", device: str = "cpu") -> Features:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = Features()
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
