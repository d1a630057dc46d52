"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x       float32 [N, 3, 23, 30]  source: input, NHWC
Output   output  float32 [N, 10]         source: output

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
from torch import Tensor, nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 14, 3, 2, bias=False), nn.ReLU())
        self.pool = nn.Sequential(
            nn.AvgPool2d(3, ceil_mode=True, count_include_pad=False), nn.Flatten(), nn.Linear(280, 16), nn.ReLU()
        )
        self.logits = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.pool(self.conv(x)))


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
