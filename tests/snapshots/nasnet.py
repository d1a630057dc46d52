"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x       float32 [N, 3, 61, 61]  source: input, NHWC
Output   logits  float32 [N, 17]

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SeparableConv(nn.Module):
    def __init__(self, in_channels, kernel_size, pad=None, stride=1):
        super().__init__()
        self.pad = nn.ZeroPad2d(pad) if pad else nn.Identity()
        self.conv1 = nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            stride,
            0 if pad else kernel_size // 2,
            groups=in_channels,
            bias=False,
        )
        self.conv2 = nn.Conv2d(in_channels, in_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(self.pad(x)))


class Reduction(nn.Module):
    def __init__(self, in_channels, mid_channels):
        super().__init__()
        self.path1_conv = nn.Conv2d(in_channels, mid_channels, 1, bias=False)
        self.path2_conv = nn.Conv2d(in_channels, mid_channels, 1, bias=False)
        self.final_path_bn = nn.BatchNorm2d(2 * mid_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        path2_conv = self.path2_conv(F.avg_pool2d(F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:], 1, stride=2))
        return self.final_path_bn(torch.cat([self.path1_conv(F.avg_pool2d(x, 1, stride=2)), path2_conv], dim=1))


class SeparableConvBlock(nn.Module):
    """25 blocks from cell_0/comb_iter_0/left to cell_2/comb_iter_4/left."""

    def __init__(self, in_channels, kernel_size, pad=None, stride=1):
        super().__init__()
        # separable_5x5_1, separable_3x3_1, separable_7x7_1
        self.separable_1 = SeparableConv(in_channels, kernel_size, pad=pad, stride=stride)
        self.bn_sep_1 = nn.BatchNorm2d(in_channels, eps=0.001)  # bn_sep_5x5_1, bn_sep_3x3_1, bn_sep_7x7_1
        self.separable_2 = SeparableConv(in_channels, kernel_size)  # separable_5x5_2, separable_3x3_2, separable_7x7_2
        self.bn_sep_2 = nn.BatchNorm2d(in_channels, eps=0.001)  # bn_sep_5x5_2, bn_sep_3x3_2, bn_sep_7x7_2

    def forward(self, x: Tensor) -> Tensor:
        return self.bn_sep_2(self.separable_2(F.relu(self.bn_sep_1(self.separable_1(F.relu(x))))))


class CombIter(nn.Module):
    """17 blocks from cell_0/comb_iter_0 to cell_2/comb_iter_4."""

    def __init__(self, left, right=None):
        super().__init__()
        self.left = left
        self.right = right or nn.Identity()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.left(x) + self.right(y)


class Cell0(nn.Module):
    """cell_0."""

    def __init__(self):
        super().__init__()
        self.beginning = nn.Conv2d(4, 8, 1, bias=False)
        self.beginning_bn = nn.BatchNorm2d(8, eps=0.001)
        self.prev_1x1 = nn.Conv2d(4, 8, 1, bias=False)
        self.prev_1x1_bn = nn.BatchNorm2d(8, eps=0.001)
        self.comb_iter_0 = CombIter(SeparableConvBlock(8, 5), right=SeparableConvBlock(8, 3))
        self.comb_iter_1 = CombIter(SeparableConvBlock(8, 5), right=SeparableConvBlock(8, 3))
        self.comb_iter_4 = CombIter(SeparableConvBlock(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        beginning_bn = self.beginning_bn(self.beginning(x))
        x = self.prev_1x1_bn(self.prev_1x1(x))
        pool = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        y = F.avg_pool2d(beginning_bn, 3, stride=1, padding=1, count_include_pad=False) + x
        y2 = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False) + pool
        comb_iter_4 = self.comb_iter_4(beginning_bn, beginning_bn)
        comb_iter_0 = self.comb_iter_0(beginning_bn, x)
        return torch.cat([comb_iter_0, self.comb_iter_1(x, x), y, y2, comb_iter_4], dim=1)


class ReductionCell0(nn.Module):
    """reduction_cell_0."""

    def __init__(self):
        super().__init__()
        self.beginning = nn.Conv2d(40, 16, 1, bias=False)
        self.beginning_bn = nn.BatchNorm2d(16, eps=0.001)
        self.prev_1x1 = nn.Conv2d(4, 16, 1, bias=False)
        self.prev_1x1_bn = nn.BatchNorm2d(16, eps=0.001)
        self.comb_iter_2 = CombIter(
            nn.AvgPool2d(3, stride=2, ceil_mode=True, count_include_pad=False),
            right=SeparableConvBlock(16, 5, pad=(1, 2, 1, 2), stride=2),
        )
        self.comb_iter_1 = CombIter(
            nn.MaxPool2d(3, stride=2, ceil_mode=True), right=SeparableConvBlock(16, 7, pad=(2, 3, 2, 3), stride=2)
        )
        self.comb_iter_0 = CombIter(
            SeparableConvBlock(16, 5, pad=(1, 2, 1, 2), stride=2),
            right=SeparableConvBlock(16, 7, pad=(2, 3, 2, 3), stride=2),
        )
        self.comb_iter_4 = CombIter(SeparableConvBlock(16, 3), right=nn.MaxPool2d(3, stride=2, ceil_mode=True))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.beginning_bn(self.beginning(F.relu(x)))
        prev_1x1_bn = self.prev_1x1_bn(self.prev_1x1(F.relu(y)))
        comb_iter_0 = self.comb_iter_0(x, prev_1x1_bn)
        pool = F.avg_pool2d(comb_iter_0, 3, stride=1, padding=1, count_include_pad=False)
        y = self.comb_iter_1(x, prev_1x1_bn) + pool
        comb_iter_4 = self.comb_iter_4(comb_iter_0, x)
        return torch.cat([self.comb_iter_2(x, prev_1x1_bn), y, comb_iter_4], dim=1)


class ReductionCell1(nn.Module):
    """reduction_cell_1."""

    def __init__(self):
        super().__init__()
        self.beginning = nn.Conv2d(80, 32, 1, bias=False)
        self.beginning_bn = nn.BatchNorm2d(32, eps=0.001)
        self.prev_1x1 = nn.Conv2d(48, 32, 1, bias=False)
        self.prev_1x1_bn = nn.BatchNorm2d(32, eps=0.001)
        self.comb_iter_2 = CombIter(
            nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), right=SeparableConvBlock(32, 5, stride=2)
        )
        self.comb_iter_1 = CombIter(nn.MaxPool2d(3, stride=2, padding=1), right=SeparableConvBlock(32, 7, stride=2))
        self.comb_iter_0 = CombIter(SeparableConvBlock(32, 5, stride=2), right=SeparableConvBlock(32, 7, stride=2))
        self.comb_iter_4 = CombIter(SeparableConvBlock(32, 3), right=nn.MaxPool2d(3, stride=2, padding=1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.beginning_bn(self.beginning(F.relu(x)))
        prev_1x1_bn = self.prev_1x1_bn(self.prev_1x1(F.relu(y)))
        comb_iter_0 = self.comb_iter_0(x, prev_1x1_bn)
        pool = F.avg_pool2d(comb_iter_0, 3, stride=1, padding=1, count_include_pad=False)
        y = self.comb_iter_1(x, prev_1x1_bn) + pool
        comb_iter_4 = self.comb_iter_4(comb_iter_0, x)
        return torch.cat([self.comb_iter_2(x, prev_1x1_bn), y, comb_iter_4], dim=1)


class Cell(nn.Module):
    """cell_1, cell_2."""

    def __init__(self, in_channels, reduction_channels):
        super().__init__()
        self.beginning = nn.Conv2d(in_channels, in_channels // 3, 1, bias=False)
        self.beginning_bn = nn.BatchNorm2d(in_channels // 3, eps=0.001)
        self.reduction = Reduction(reduction_channels, in_channels // 6)
        self.comb_iter_0 = CombIter(
            SeparableConvBlock(in_channels // 3, 5), right=SeparableConvBlock(in_channels // 3, 3)
        )
        self.comb_iter_1 = CombIter(
            SeparableConvBlock(in_channels // 3, 5), right=SeparableConvBlock(in_channels // 3, 3)
        )
        self.comb_iter_4 = CombIter(SeparableConvBlock(in_channels // 3, 3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.beginning_bn(self.beginning(F.relu(x)))
        reduction = self.reduction(y)
        pool = F.avg_pool2d(reduction, 3, stride=1, padding=1, count_include_pad=False)
        y = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False) + reduction
        y2 = F.avg_pool2d(reduction, 3, stride=1, padding=1, count_include_pad=False) + pool
        comb_iter_4 = self.comb_iter_4(x, x)
        x = self.comb_iter_0(x, reduction)
        return torch.cat([x, self.comb_iter_1(reduction, reduction), y, y2, comb_iter_4], dim=1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 3, 2, bias=False)
        self.conv0_bn = nn.BatchNorm2d(4, eps=0.001)
        self.cell_0 = Cell0()
        self.reduction_cell_0 = ReductionCell0()
        self.cell_1 = Cell(48, 40)
        self.reduction_cell_1 = ReductionCell1()
        self.cell_2 = Cell(96, 80)
        self.final_layer = nn.Linear(160, 17)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0_bn(self.conv0(x))
        cell_0 = self.cell_0(x)
        x = self.reduction_cell_0(cell_0, x)
        cell_1 = self.cell_1(x, cell_0)
        x = F.relu(self.cell_2(self.reduction_cell_1(cell_1, x), cell_1)).mean((2, 3))
        return self.final_layer(x)


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
