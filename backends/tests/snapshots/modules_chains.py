"""Features, converted from PyTorch (net.pt2).

Input    x  float32 [N, 3, 16, 16]
Output   y  float32 [N, 5]

    model = load("net.pth")  # in eval mode
    y = model(images)
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class ConvNormActivation(nn.Sequential):
    def __init__(self, in_channels, out_channels):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
        )


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Identity(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(ConvNormActivation(8, 8), ConvNormActivation(8, 16), ConvNormActivation(16, 24))
        self.head = nn.Sequential(
            OrderedDict([("conv0", nn.Conv2d(24, 4, 1, bias=False)), ("norm0", nn.BatchNorm2d(4))])
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.head(self.blocks(self.features(x))).mean((2, 3)))


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
