"""Model, converted from TensorFlow (model.ckpt.meta).

Input    ids      int32 [N, 20]
Input    lengths  int32 [N]
Output   tags     float32 [N, 20, 7]  source: tags/BiasAdd
Output   logits   float32 [N, 5]      source: logits/BiasAdd

    model = load("model.pth")  # in eval mode
    tags, logits = model(ids, lengths)
"""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(12, 12, batch_first=True)

    def forward(self, lengths: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        y, _ = self.rnn(x)
        x = (torch.arange(20, dtype=torch.int32, device=lengths.device) < lengths.unsqueeze(1)).unsqueeze(2)
        picked = y[torch.arange(y.shape[0], device=y.device), (lengths - 1).clamp(0, 19)]
        selected = torch.where((lengths <= 0).unsqueeze(1), 0.0, picked)
        return torch.where(x, y, 0.0), selected


class Bw(nn.Module):
    """bidirectional_rnn/bw."""

    def __init__(self):
        super().__init__()
        self.bw = Block()

    def forward(self, lengths: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        positions = torch.arange(20, dtype=torch.int32, device=lengths.device)
        y = lengths.unsqueeze(1)
        selected = torch.where(positions < y, y - 1 - positions, positions)
        selected, selected2 = self.bw(lengths, x[torch.arange(x.shape[0], device=x.device)[:, None], selected])
        return selected, selected2


class BidirectionalRnn(nn.Module):
    """bidirectional_rnn."""

    def __init__(self):
        super().__init__()
        self.fw = Block()
        self.bw = Bw()

    def forward(self, lengths: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        selected, selected2 = self.fw(lengths, x)
        selected3, selected4 = self.bw(lengths, x)
        return selected, selected2, selected3, selected4


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(200, 12)
        self.bidirectional_rnn = BidirectionalRnn()
        self.tags = nn.Linear(24, 7)
        self.logits = nn.Linear(24, 5)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        selected, selected2, selected3, selected4 = self.bidirectional_rnn(lengths, self.embedding(ids))
        x = torch.arange(20, dtype=torch.int32, device=lengths.device)
        y = lengths.unsqueeze(1)
        x = torch.where(x < y, y - 1 - x, x)
        x = selected3[torch.arange(selected3.shape[0], device=selected3.device)[:, None], x]
        x = self.tags(torch.cat([selected, x], dim=2))
        logits = self.logits(torch.cat([selected2, selected4], dim=1))
        return x, logits


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
