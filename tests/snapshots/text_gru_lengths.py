"""Model, converted from TensorFlow (model.ckpt.meta).

Input    ids      int32 [N, 20]
Input    lengths  int32 [N]
Output   logits   float32 [N, 5]  source: logits/BiasAdd

    model = load("model.pth")  # in eval mode
    y = model(ids, lengths)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResetBeforeGRU(nn.GRU):
    """A GRU whose reset gate scales the state before its product, as in TensorFlow 1; that of `nn.GRU` comes after."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = x.new_zeros(x.shape[1 - self.batch_first], self.hidden_size) if h is None else h[0]
        sizes = [2 * self.hidden_size, self.hidden_size]
        x = F.linear(x, self.weight_ih_l0, self.bias_ih_l0 if self.bias else None)
        gates, new = self.weight_hh_l0.split(sizes)
        gates_bias, new_bias = self.bias_hh_l0.split(sizes) if self.bias else (None, None)
        steps = []
        for step in x.unbind(1 if self.batch_first else 0):
            gates_x, new_x = step.split(sizes, dim=1)
            reset, update = torch.sigmoid(gates_x + F.linear(h, gates, gates_bias)).chunk(2, dim=1)
            h = update * h + (1 - update) * torch.tanh(new_x + F.linear(reset * h, new, new_bias))
            steps.append(h)
        return torch.stack(steps, 1 if self.batch_first else 0), h.unsqueeze(0)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(200, 12)
        self.rnn = ResetBeforeGRU(12, 12, batch_first=True)
        self.logits = nn.Linear(12, 5)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.rnn(self.embedding(ids))
        x = y[torch.arange(y.shape[0], device=y.device), (lengths - 1).clamp(0, 19)]
        return self.logits(torch.where((lengths <= 0).unsqueeze(1), 0.0, x))


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
