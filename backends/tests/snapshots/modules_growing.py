"""DenseNet, converted from PyTorch (net.pt2).

Input    x  float32 [N, 8, 16, 16]
Output   y  float32 [N, 8, 16, 16]

    model = load("net.pth")  # in eval mode
    y = model(images)
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class DenseLayer(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.norm = nn.BatchNorm2d(num_features)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(num_features, 4, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.conv(self.relu(self.norm(torch.cat(features, dim=1))))


class DenseBlock(nn.Module):
    def __init__(self, num_layers):
        super().__init__()
        for i in range(num_layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(8 + 4 * i))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.children():
            features.append(layer(features))
        return torch.cat(features, dim=1)


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                [
                    ("denseblock1", DenseBlock(3)),
                    ("transition1", nn.Conv2d(20, 8, 1, bias=False)),
                    ("denseblock2", DenseBlock(4)),
                    ("transition2", nn.Conv2d(24, 8, 1, bias=False)),
                ],
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


def load(weights: str = "net.pth", device: str = "cpu") -> DenseNet:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = DenseNet()
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
