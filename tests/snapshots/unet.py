"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x           float32 [N, 3, 40, 56]  source: image, NHWC
Output   mask        float32 [N, 2, 40, 56]  source: mask/BiasAdd, NHWC
Output   coarse_map  float32 [N, 5, 10, 14]  source: NHWC

    model = load("model.pth")  # in eval mode
    mask, coarse_map = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels, eps=0.001)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.leaky_relu(self.norm1(self.conv1(F.pad(x, (1, 1, 1, 1), mode="reflect"))), 0.1))
        return F.elu(self.norm2(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = Block(3, 4)
        self.down2 = Block(4, 8)
        self.down3 = Block(8, 16)
        self.down4 = Block(16, 32)
        self.bottom = Block(32, 32)
        self.up4 = Block(64, 16)
        self.upsample3 = nn.ConvTranspose2d(16, 16, 3, 2)
        self.up3 = Block(32, 16)
        self.upsample2 = nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.up2 = Block(16, 8)
        self.up1 = Block(20, 4)
        self.mask = nn.Conv2d(4, 2, 1)
        self.coarse = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.down1(x)
        down2 = self.down2(F.max_pool2d(x, 2))
        down3 = self.down3(F.max_pool2d(down2, 2))
        down4 = self.down4(F.max_pool2d(down3, 2))
        bottom = self.bottom(F.max_pool2d(down4, 2, ceil_mode=True))
        y = torch.cat([F.interpolate(bottom, size=(5, 7), mode="bilinear", align_corners=True), down4], dim=1)
        up3 = self.up3(torch.cat([F.relu(self.upsample3(self.up4(y))[:, :, :-1, :-1]), down3], dim=1))
        up2 = self.up2(torch.cat([self.upsample2(up3), down2], dim=1))
        resized = F.interpolate(up2, scale_factor=2, mode="bilinear")
        x = self.mask(self.up1(torch.cat([F.interpolate(up2, scale_factor=2), resized, x], dim=1)))
        return x, self.coarse(up3)


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
