"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x       float32 [N, 3, 90, 90]  source: images, NHWC
Output   logits  float32 [N, 17]

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvReLU(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Fire(nn.Module):
    """8 blocks from features/3 to features/12."""

    def __init__(self, in_channels, width):
        super().__init__()
        self.squeeze = ConvReLU(in_channels, width, 1)
        self.expand1x1 = ConvReLU(width, 4 * width, 1)
        self.expand3x3 = ConvReLU(width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1)


class Classifier(nn.Module):
    """classifier."""

    def __init__(self):
        super().__init__()
        self.layer1 = ConvReLU(128, 17, 1)  # 1

    def forward(self, x: Tensor) -> Tensor:
        return self.layer1(x).mean((2, 3))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            ConvReLU(3, 16, 3, stride=2),
            nn.MaxPool2d(3, stride=2),
            Fire(16, 4),
            Fire(32, 4),
            nn.MaxPool2d(3, stride=2),
            Fire(32, 8),
            Fire(64, 8),
            nn.MaxPool2d(3, stride=2),
            Fire(64, 12),
            Fire(96, 12),
            Fire(96, 16),
            Fire(128, 16),
        )
        self.classifier = Classifier()

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


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
