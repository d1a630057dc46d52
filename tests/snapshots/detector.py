"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x         float32 [N, 3, 32, 32]   source: input, NHWC
Output   boxes_8   float32 [N, 3, 7, 4, 4]  source: boxes_8/concat, transposed by [0, 3, 4, 1, 2]
Output   boxes_16  float32 [N, 3, 7, 2, 2]  source: boxes_16/concat, transposed by [0, 3, 4, 1, 2]

    model = load("model.pth")  # in eval mode
    boxes_8, boxes_16 = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvLeakyRelu(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(F.pad(x, (0, 1, 0, 1))), 0.2)


class Boxes(nn.Module):
    cast: Tensor
    scale2: Tensor

    def __init__(self, size, scale):
        super().__init__()
        self.scale = scale
        self.register_buffer("cast", torch.zeros(1, 1, 2, size, size))
        self.register_buffer("scale2", torch.zeros(3, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x.unflatten(1, (3, 7))
        x = (torch.sigmoid(y[:, :, :2]) + self.cast.repeat(x.shape[0], 3, 1, 1, 1)) * self.scale
        return torch.cat([x, y[:, :, 2:4].exp() * self.scale2 * self.scale, torch.sigmoid(y[:, :, 4:])], dim=2)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = ConvLeakyRelu(3, 8)
        self.conv2 = ConvLeakyRelu(8, 16)
        self.conv3 = ConvLeakyRelu(16, 32)
        self.head_8 = nn.Conv2d(32, 21, 1)
        self.boxes_8 = Boxes(4, 8.0)
        self.conv4 = ConvLeakyRelu(32, 32)
        self.head_16 = nn.Conv2d(32, 21, 1)
        self.boxes_16 = Boxes(2, 16.0)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.conv3(self.conv2(self.conv1(x)))
        return self.boxes_8(self.head_8(x)), self.boxes_16(self.head_16(self.conv4(x)))


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
