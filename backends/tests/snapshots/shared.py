"""Tower, converted from test.

Input    x    float32 [N, 4, 8, 8]  source: input
Output   out  float32 [N, 4, 8, 8]

    model = load("net.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4, eps=0.001, momentum=0.0003)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.bn(self.conv(x))))


def load(weights: str = "net.pth", device: str = "cpu") -> Tower:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = Tower()
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
