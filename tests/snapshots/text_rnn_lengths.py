"""Model, converted from TensorFlow (model.ckpt.meta).

Input    ids      int32 [N, 20]
Input    lengths  int32 [N]
Output   logits   float32 [N, 5]  source: logits/BiasAdd

    model = load("model.pth")  # in eval mode
    y = model(ids, lengths)
"""

import torch
from torch import Tensor, nn


class MultiRnnCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell_0 = nn.LSTM(12, 12, batch_first=True)
        self.cell_1 = nn.LSTM(12, 12, batch_first=True)

    def forward(self, lengths: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        y, _ = self.cell_0(x)
        y, _ = self.cell_1(y)
        x = (torch.arange(20, dtype=torch.int32, device=lengths.device) < lengths.unsqueeze(1)).unsqueeze(2)
        picked = y[torch.arange(y.shape[0], device=y.device), (lengths - 1).clamp(0, 19)]
        selected = torch.where((lengths <= 0).unsqueeze(1), 0.0, picked)
        return torch.where(x, y, 0.0), selected


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(200, 12)
        self.rnn = MultiRnnCell()
        self.logits = nn.Linear(24, 5)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        selected, selected2 = self.rnn(lengths, self.embedding(ids))
        return self.logits(torch.cat([selected2, selected.mean(1)], dim=1))


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
