"""Networks as people write them, of kinds that torchvision does not have: small, with random weights."""

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(inputs, out):
    return nn.Sequential(nn.Conv2d(inputs, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class Up(nn.Module):
    def __init__(self, inputs, out):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv = conv_bn(inputs, out)

    def forward(self, x, skip):
        x = self.up(x)
        rows, columns = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
        x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.conv(torch.cat([skip, x], 1))


class UNet(nn.Module):
    """Bilinear upsampling of maps with an odd size."""

    def __init__(self):
        super().__init__()
        self.first, self.down1, self.down2 = conv_bn(3, 4), conv_bn(4, 8), conv_bn(8, 8)
        self.up1, self.up2, self.out = Up(16, 4), Up(8, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        a = self.first(x)
        b = self.down1(F.max_pool2d(a, 2))
        return self.out(self.up2(self.up1(self.down2(F.max_pool2d(b, 2)), b), a)).sigmoid()


class Audio(nn.Module):
    """Dilated convolutions of a signal, and statistics of what they give."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn, self.pool = nn.Conv1d(1, 8, 20, stride=4, padding=8), nn.BatchNorm1d(8), nn.MaxPool1d(4)
        self.blocks = nn.ModuleList([nn.Conv1d(8, 8, 3, padding=d, dilation=d) for d in (1, 3, 9)])
        self.norm, self.fc = nn.GroupNorm(4, 8), nn.Linear(16, 5)

    def forward(self, x):
        x = self.pool(F.gelu(self.bn(self.stem(x))))
        for block in self.blocks:
            x = x + block(F.leaky_relu(x, 0.2))
        x = self.norm(x)
        return F.log_softmax(self.fc(torch.cat([x.mean(-1), x.std(-1, unbiased=False)], 1)), -1)


class Encoder(nn.Module):
    """Text with a class token and `nn.MultiheadAttention`."""

    def __init__(self, width=16):
        super().__init__()
        self.tok, self.pos = nn.Embedding(20, width), nn.Parameter(torch.randn(1, 7, width) * 0.1)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        layer = dict(dropout=0.1, batch_first=True, activation="gelu", norm_first=True)
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(width, 2, 32, **layer) for _ in range(2)])
        self.attn, self.head = nn.MultiheadAttention(width, 4, batch_first=True), nn.Linear(width, 3)

    def forward(self, ids):
        x = torch.cat([self.cls.expand(ids.shape[0], -1, -1), self.tok(ids) + self.pos], 1)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.attn(x, x, x, need_weights=False)[0][:, 0])


class Crnn(nn.Module):
    """Columns of an image, read in both directions."""

    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            conv_bn(1, 8), nn.MaxPool2d(2), conv_bn(8, 8), nn.MaxPool2d((2, 1)), nn.Conv2d(8, 8, (4, 1))
        )
        self.rnn, self.fc = nn.LSTM(8, 6, 2, bidirectional=True), nn.Linear(12, 7)

    def forward(self, x):
        y, _ = self.rnn(self.cnn(x).squeeze(2).permute(2, 0, 1))
        return F.log_softmax(self.fc(y).transpose(0, 1), 2)


class SuperResolution(nn.Module):
    """Pixel shuffle beside bicubic upsampling."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.ModuleList([conv_bn(8, 8) for _ in range(3)])
        self.up = nn.Sequential(
            nn.Conv2d(8, 32, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(), nn.Conv2d(8, 3, 3, padding=1)
        )

    def forward(self, x):
        y = self.head(x)
        for block in self.body:
            y = y + block(y) * 0.1
        return (self.up(y) + F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)).clamp(0, 1)


class Volume(nn.Module):
    """A 3-D network."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(2, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(4, 8, 3, stride=(1, 2, 2), padding=1),
            nn.InstanceNorm3d(8, affine=True),
            nn.ELU(),
            nn.AvgPool3d(2),
        )
        self.fc = nn.Linear(8 * 2 * 2 * 2, 5)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


class Pooled(nn.Module):
    """A GRU over words, weighted, with its last states."""

    def __init__(self):
        super().__init__()
        self.embed, self.gru = nn.Embedding(20, 6), nn.GRU(6, 5, 2, batch_first=True, bidirectional=True)
        self.score, self.fc = nn.Linear(10, 1), nn.Linear(20, 4)

    def forward(self, ids):
        y, h = self.gru(self.embed(ids))
        return self.fc(torch.cat([(y * self.score(y).softmax(1)).sum(1), h[-2], h[-1]], -1))


class Siamese(nn.Module):
    """One network over two inputs."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            conv_bn(1, 4), nn.MaxPool2d(2), conv_bn(4, 8), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.out = nn.Linear(32, 1)

    def forward(self, a, b):
        a, b = F.normalize(self.encoder(a)), F.normalize(self.encoder(b))
        return self.out((a - b).abs()).sigmoid().squeeze(-1), F.cosine_similarity(a, b)
