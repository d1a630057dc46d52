"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x              float32 [N, 9, 7, 3]  source: input
Output   logits         float32 [N, 10]       source: logits/BiasAdd
Output   probabilities  float32 [N, 10]

    model = load("model.pth")  # in eval mode
    logits, probabilities = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense1 = nn.Linear(189, 48)
        self.dense2 = nn.Linear(48, 40)
        self.dense3 = nn.Linear(40, 32)
        self.dense4 = nn.Linear(32, 24)
        self.logits = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.dense3(torch.tanh(self.dense2(F.relu(self.dense1(x.flatten(1))))))
        x = self.logits(torch.sigmoid(self.dense4(F.softplus(x))))
        return x, F.softmax(x, dim=1)


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
