"""Model, converted from TensorFlow (model.ckpt.meta).

Input    x       float32 [N, 3, 61, 61]  source: input, NHWC
Output   logits  float32 [N, 17]         source: logits

    model = load("model.pth")  # in eval mode
    y = model(images)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvConv(nn.Module):
    def __init__(self, in_channels, kernel_size, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, in_channels, kernel_size, stride, kernel_size // 2, groups=in_channels, bias=False
        )
        self.conv2 = nn.Conv2d(in_channels, in_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class ConvConv2(nn.Module):
    def __init__(self, kernel_size, pad):
        super().__init__()
        self.pad = pad
        self.conv1 = nn.Conv2d(16, 16, kernel_size, 2, groups=16, bias=False)
        self.conv2 = nn.Conv2d(16, 16, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(F.pad(x, self.pad)))


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


class ReLUMeanLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.FC = nn.Linear(160, 17)

    def forward(self, x: Tensor) -> Tensor:
        return self.FC(F.relu(x).mean((2, 3)))


class Block(nn.Module):
    """left, right."""

    def __init__(self, in_channels, kernel_size, stride=1):
        super().__init__()
        self.conv1 = ConvConv(in_channels, kernel_size, stride=stride)
        self.bn1 = nn.BatchNorm2d(in_channels, eps=0.001)
        self.conv2 = ConvConv(in_channels, kernel_size)
        self.bn2 = nn.BatchNorm2d(in_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(F.relu(x))))))


class Block2(nn.Module):
    """left, right."""

    def __init__(self, kernel_size, pad):
        super().__init__()
        self.conv1 = ConvConv2(kernel_size, pad)
        self.bn1 = nn.BatchNorm2d(16, eps=0.001)
        self.conv2 = ConvConv(16, kernel_size)
        self.bn2 = nn.BatchNorm2d(16, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(F.relu(x))))))


class CombIter0(nn.Module):
    """comb_iter_0."""

    def __init__(self, in_channels, stride=1, kernel_size=3):
        super().__init__()
        self.left = Block(in_channels, 5, stride=stride)
        self.right = Block(in_channels, kernel_size, stride=stride)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.left(x) + self.right(y)


class CombIter1(nn.Module):
    """comb_iter_1."""

    def __init__(self, in_channels):
        super().__init__()
        self.left = Block(in_channels, 5)
        self.right = Block(in_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class CombIter4(nn.Module):
    """comb_iter_4."""

    def __init__(self, in_channels):
        super().__init__()
        self.left = Block(in_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + x


class CombIter0_2(nn.Module):
    """comb_iter_0."""

    def __init__(self):
        super().__init__()
        self.left = Block2(5, (1, 2, 1, 2))
        self.right = Block2(7, (2, 3, 2, 3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.left(x) + self.right(y)


class CombIter1_2(nn.Module):
    """comb_iter_1."""

    def __init__(self):
        super().__init__()
        self.right = Block2(7, (2, 3, 2, 3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, stride=2, ceil_mode=True) + self.right(y)


class CombIter2(nn.Module):
    """comb_iter_2."""

    def __init__(self):
        super().__init__()
        self.right = Block2(5, (1, 2, 1, 2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, stride=2, ceil_mode=True, count_include_pad=False) + self.right(y)


class CombIter4_2(nn.Module):
    """comb_iter_4."""

    def __init__(self, in_channels, ceil_mode, padding=0):
        super().__init__()
        self.ceil_mode = ceil_mode
        self.padding = padding
        self.left = Block(in_channels, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.left(x) + F.max_pool2d(y, 3, stride=2, padding=self.padding, ceil_mode=self.ceil_mode)


class CombIter1_3(nn.Module):
    """comb_iter_1."""

    def __init__(self):
        super().__init__()
        self.right = Block(32, 7, stride=2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, stride=2, padding=1) + self.right(y)


class CombIter2_2(nn.Module):
    """comb_iter_2."""

    def __init__(self):
        super().__init__()
        self.right = Block(32, 5, stride=2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False) + self.right(y)


class Cell0(nn.Module):
    """cell_0."""

    def __init__(self):
        super().__init__()
        self.beginning = nn.Conv2d(4, 8, 1, bias=False)
        self.beginning_bn = nn.BatchNorm2d(8, eps=0.001)
        self.prev_1x1 = nn.Conv2d(4, 8, 1, bias=False)
        self.prev_1x1_bn = nn.BatchNorm2d(8, eps=0.001)
        self.comb_iter_0 = CombIter0(8)
        self.comb_iter_1 = CombIter1(8)
        self.comb_iter_4 = CombIter4(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        beginning_bn = self.beginning_bn(self.beginning(x))
        x = self.prev_1x1_bn(self.prev_1x1(x))
        pool = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        y = F.avg_pool2d(beginning_bn, 3, stride=1, padding=1, count_include_pad=False) + x
        y2 = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False) + pool
        comb_iter_0 = self.comb_iter_0(beginning_bn, x)
        return torch.cat([comb_iter_0, self.comb_iter_1(x), y, y2, self.comb_iter_4(beginning_bn)], dim=1)


class ReductionCell0(nn.Module):
    """reduction_cell_0."""

    def __init__(self):
        super().__init__()
        self.beginning = nn.Conv2d(40, 16, 1, bias=False)
        self.beginning_bn = nn.BatchNorm2d(16, eps=0.001)
        self.prev_1x1 = nn.Conv2d(4, 16, 1, bias=False)
        self.prev_1x1_bn = nn.BatchNorm2d(16, eps=0.001)
        self.comb_iter_2 = CombIter2()
        self.comb_iter_1 = CombIter1_2()
        self.comb_iter_0 = CombIter0_2()
        self.comb_iter_4 = CombIter4_2(16, True)

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

    def __init__(self, in_channels, reduction_channels, mid_channels):
        super().__init__()
        self.beginning = nn.Conv2d(in_channels, in_channels // 3, 1, bias=False)
        self.beginning_bn = nn.BatchNorm2d(in_channels // 3, eps=0.001)
        self.reduction = Reduction(reduction_channels, mid_channels)
        self.comb_iter_0 = CombIter0(2 * mid_channels)
        self.comb_iter_1 = CombIter1(2 * mid_channels)
        self.comb_iter_4 = CombIter4(2 * mid_channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.beginning_bn(self.beginning(F.relu(x)))
        reduction = self.reduction(y)
        pool = F.avg_pool2d(reduction, 3, stride=1, padding=1, count_include_pad=False)
        y = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False) + reduction
        y2 = F.avg_pool2d(reduction, 3, stride=1, padding=1, count_include_pad=False) + pool
        comb_iter_0 = self.comb_iter_0(x, reduction)
        return torch.cat([comb_iter_0, self.comb_iter_1(reduction), y, y2, self.comb_iter_4(x)], dim=1)


class ReductionCell1(nn.Module):
    """reduction_cell_1."""

    def __init__(self):
        super().__init__()
        self.beginning = nn.Conv2d(80, 32, 1, bias=False)
        self.beginning_bn = nn.BatchNorm2d(32, eps=0.001)
        self.prev_1x1 = nn.Conv2d(48, 32, 1, bias=False)
        self.prev_1x1_bn = nn.BatchNorm2d(32, eps=0.001)
        self.comb_iter_2 = CombIter2_2()
        self.comb_iter_1 = CombIter1_3()
        self.comb_iter_0 = CombIter0(32, stride=2, kernel_size=7)
        self.comb_iter_4 = CombIter4_2(32, False, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.beginning_bn(self.beginning(F.relu(x)))
        prev_1x1_bn = self.prev_1x1_bn(self.prev_1x1(F.relu(y)))
        comb_iter_0 = self.comb_iter_0(x, prev_1x1_bn)
        pool = F.avg_pool2d(comb_iter_0, 3, stride=1, padding=1, count_include_pad=False)
        y = self.comb_iter_1(x, prev_1x1_bn) + pool
        comb_iter_4 = self.comb_iter_4(comb_iter_0, x)
        return torch.cat([self.comb_iter_2(x, prev_1x1_bn), y, comb_iter_4], dim=1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 3, 2, bias=False)
        self.conv0_bn = nn.BatchNorm2d(4, eps=0.001)
        self.cell_0 = Cell0()
        self.reduction_cell_0 = ReductionCell0()
        self.cell_1 = Cell(48, 40, 8)
        self.reduction_cell_1 = ReductionCell1()
        self.cell_2 = Cell(96, 80, 16)
        self.final_layer = ReLUMeanLinear()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0_bn(self.conv0(x))
        cell_0 = self.cell_0(x)
        x = self.reduction_cell_0(cell_0, x)
        cell_1 = self.cell_1(x, cell_0)
        return self.final_layer(self.cell_2(self.reduction_cell_1(cell_1, x), cell_1))


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
