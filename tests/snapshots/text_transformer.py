"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x       int32 [N, 12]   source: ids
Output   logits  float32 [N, 5]  source: logits/BiasAdd

    model = load("model.pth")  # in eval mode
    y = model(x)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(16, 16)
        self.key = nn.Linear(16, 16)
        self.dropout = nn.Dropout(0.1)
        self.value = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16, eps=1e-6)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        y2 = self.query(x).unflatten(2, (4, 4)).permute(2, 0, 1, 3).flatten(0, 1)
        y2 = y2 @ self.key(x).unflatten(2, (4, 4)).permute(2, 0, 1, 3).flatten(0, 1).mT / 2.0
        y3 = self.value(x).unflatten(2, (4, 4)).permute(2, 0, 1, 3).flatten(0, 1)
        split_3 = (self.dropout(F.softmax(torch.where(y, -10000.0, y2), dim=-1)) @ y3).reshape(4, -1, 12, 4)
        return self.norm(split_3.permute(1, 2, 0, 3).flatten(2) + x)


class LinearReLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 64)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc(x))


class FeedForward(nn.Module):
    """block_0/feed_forward, block_1/feed_forward."""

    def __init__(self):
        super().__init__()
        self.inner = LinearReLU()
        self.outer = nn.Linear(64, 16)
        self.norm = nn.LayerNorm(16, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.outer(self.inner(x)) + x)


class Block(nn.Module):
    """block_0, block_1."""

    def __init__(self):
        super().__init__()
        self.attention = Attention()
        self.feed_forward = FeedForward()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.feed_forward(self.attention(x, y))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        self.embeddings = nn.Parameter(torch.zeros(12, 16))
        self.dropout = nn.Dropout(0.1)
        self.block_0 = Block()
        self.block_1 = Block()
        self.logits = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = (x == 0).repeat(4, 1).unsqueeze(1).repeat(1, 12, 1)
        x = self.block_1(self.block_0(self.dropout(self.embedding(x) * 4.0 + self.embeddings), y), y).mean(1)
        return self.logits(x)


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
