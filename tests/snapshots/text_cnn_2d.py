"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x            int32 [N, 20]   source: ids
Output   scores       float32 [N, 4]  source: output/scores
Output   predictions  int64 [N]

    model = load("model.pth")  # in eval mode
    scores, predictions = model(x)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvReLUPool(nn.Module):
    def __init__(self, kernel_size, pool_kernel_size, stride):
        super().__init__()
        self.pool_kernel_size = pool_kernel_size
        self.stride = stride
        self.conv = nn.Conv2d(1, 16, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.conv(x)), self.pool_kernel_size, stride=self.stride)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(200, 12)
        self.conv3 = ConvReLUPool((3, 12), (18, 1), (18, 1))
        self.conv4 = ConvReLUPool((4, 12), (17, 1), (17, 1))
        self.conv5 = ConvReLUPool((5, 12), (16, 1), (16, 1))
        self.output = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.embedding(x).unsqueeze(1)
        x = self.output(torch.cat([self.conv3(x), self.conv4(x), self.conv5(x)], dim=1).flatten(1))
        return x, x.argmax(1)


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
