"""Decoder, converted from PyTorch (net.pt2).

Input    x  float32 [N, 8, 16, 16]
Output   y  float32 [N, 8, 16, 16]

    model = load("net.pth")  # in eval mode
    y = model(images)
"""

import torch
from torch import Tensor, nn


class DecoderLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.cross = nn.Conv2d(8, 8, 1, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + self.cross(y)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.layers = nn.ModuleList([DecoderLayer() for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        encoder = self.encoder(x)
        y = x
        for layer in self.layers:
            y = layer(y, encoder)
        return y + x


def load(weights: str = "net.pth", device: str = "cpu") -> Decoder:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = Decoder()
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
