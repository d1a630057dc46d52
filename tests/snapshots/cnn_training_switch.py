"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x       float32 [N, 3, 23, 30]  source: batch, NHWC
Output   output  float32 [N, 10]

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBN(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, dilation=1, padding=0):
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 2, 2, 2)) if stride != 1 else nn.Identity()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.pad(x)))


class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, 2, groups=8)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([F.relu6(self.conv(F.pad(x, (1, 1, 0, 1))), inplace=True), y], dim=1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = ConvBN(3, 8, 5, stride=2)
        self.block1_a = ConvBN(8, 8, 3, padding=1)
        self.block1_b = ConvBN(8, 8, 3, dilation=2, padding=2)
        self.mix = Mix()
        self.pointwise = ConvBN(16, 12, 1)
        self.hidden = nn.Linear(144, 32)
        self.dropout = nn.Dropout(0.4)
        self.logits = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + F.relu(self.block1_b(F.relu(self.block1_a(x))))
        x = F.relu(self.pointwise(self.mix(x, F.max_pool2d(x, 3, stride=2, padding=(0, 1), ceil_mode=True))))
        return self.logits(self.dropout(F.relu(self.hidden(F.avg_pool2d(x, 2).flatten(1)))))


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
