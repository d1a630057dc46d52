"""Net, converted from test.

Input    input_      float32 [N, 4, 8, 8]  source: input
Input    class_      float32 [N, 4, 8, 8]  source: features/class
Output   difference  float32 [N, 4, 8, 8]
Output   first       float32 [N, 4, 8, 8]
Output   input       float32 [N, 4, 8, 8]

    model = load("net.pth")  # in eval mode
    difference, first, input_ = model(input_, class_)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4, eps=0.001, momentum=0.0003)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = ConvBNReLU()
        self.second = ConvBNReLU()

    def forward(self, input_: Tensor, class_: Tensor) -> tuple[Tensor, ...]:
        x = self.first(input_)
        y = x - self.second(class_)
        return y, x, input_


def load(weights: str = "net.pth", device: str = "cpu") -> Net:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = Net()
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
