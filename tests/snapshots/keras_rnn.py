"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x       int32 [N, 20]   source: ids
Output   logits  float32 [N, 5]  source: logits/BiasAdd

    model = load("model.pth")  # in eval mode
    y = model(x)
"""

import torch
from torch import Tensor, nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(200, 12)
        self.lstm = nn.LSTM(12, 12, batch_first=True)
        self.gru = nn.GRU(12, 12, batch_first=True)
        self.logits = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(self.embedding(x))
        _, h = self.gru(y)
        return self.logits(h.squeeze(0))


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
