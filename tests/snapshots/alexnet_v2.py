"""AlexnetV2, converted from TensorFlow (model.ckpt.meta).

Input    x             float32 [N, 3, 224, 224]  source: input, NHWC
Output   MMdnn_Output  float32 [N, 17]

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


class AlexnetV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = ConvReLU(3, 8, 11, stride=4)
        self.conv2 = ConvReLU(8, 8, 5, padding=2)
        self.conv3 = ConvReLU(8, 12, 3, padding=1)
        self.conv4 = ConvReLU(12, 12, 3, padding=1)
        self.conv5 = ConvReLU(12, 8, 3, padding=1)
        self.fc6 = ConvReLU(8, 128, 5)
        self.fc7 = ConvReLU(128, 128, 1)
        self.fc8 = nn.Conv2d(128, 17, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(F.max_pool2d(self.conv2(F.max_pool2d(self.conv1(x), 3, stride=2)), 3, stride=2))
        x = self.fc8(self.fc7(self.fc6(F.max_pool2d(self.conv5(self.conv4(x)), 3, stride=2))))
        return x.flatten(1)


def load(weights: str = "model.pth", device: str = "cpu") -> AlexnetV2:
    """The network with its weights (.pth, .safetensors or .npy), in eval mode."""
    model = AlexnetV2()
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
