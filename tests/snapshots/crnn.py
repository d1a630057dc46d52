"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x           float32 [N, 1, 16, 32]  source: input, NHWC
Output   characters  float32 [N, 16, 11]     source: characters/BiasAdd

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvReLU(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = ConvReLU(1, 8)
        self.conv2 = ConvReLU(8, 16)
        self.bidirectional1 = nn.LSTM(64, 8, batch_first=True, bidirectional=True)
        self.bidirectional2 = nn.LSTM(16, 8, batch_first=True, bidirectional=True)
        self.characters = nn.Linear(16, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv2(F.max_pool2d(self.conv1(x), 2)), (2, 1)).transpose(1, 3).flatten(2)
        y, _ = self.bidirectional1(x)
        y, _ = self.bidirectional2(y)
        return self.characters(y)


def load(weights: str = "model.pth", device: str = "cpu") -> Model:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = Model()
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
