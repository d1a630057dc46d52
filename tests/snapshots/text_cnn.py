"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x       int32 [N, 20]   source: ids
Output   scores  float32 [N, 5]

    model = load("model.pth")  # in eval mode
    y = model(x)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvReLU(nn.Module):
    def __init__(self, kernel_size):
        super().__init__()
        self.conv = nn.Conv1d(12, 16, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(200, 12)
        self.conv3 = ConvReLU(3)
        self.conv4 = nn.Sequential(nn.ConstantPad1d((1, 2), 0.0), nn.Conv1d(12, 16, 4), nn.ReLU())
        self.conv5 = ConvReLU(5)
        self.hidden = nn.Linear(48, 16)
        self.logits = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x).transpose(1, 2)
        max_ = self.conv5(x).amax(2)
        x = self.hidden(torch.cat([self.conv3(x).amax(2), self.conv4(x).amax(2), max_], dim=1))
        return self.logits(F.selu(x))


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
