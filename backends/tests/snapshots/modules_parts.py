"""Perceptual, converted from PyTorch (net.pt2).

Input    x  float32 [N, 3, 16, 16]
Output   y  float32 [N, 4, 16, 16]

    model = load("net.pth")  # in eval mode
    y = model(images)
"""

import torch
from torch import Tensor, nn


class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
        )


class Perceptual(nn.Module):
    def __init__(self):
        super().__init__()
        self.vgg = VGG()

    def forward(self, x: Tensor) -> Tensor:
        x = self.vgg.features[1](self.vgg.features[0](x))
        return self.vgg.features[4](x + self.vgg.features[3](self.vgg.features[2](x)))


def load(weights: str = "net.pth", device: str = "cpu") -> Perceptual:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = Perceptual()
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
