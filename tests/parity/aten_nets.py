"""Networks of operators that exported programs are made of: small, with random weights from a seed."""

import torch
import torch.nn.functional as F
from torch import nn


def depthwise(channels, out):
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        nn.Conv2d(channels, out, 1),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )


class EncoderDecoder(nn.Module):
    """Depthwise blocks, skip connections, bilinear and nearest upsampling."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.down3 = depthwise(3, 8), depthwise(8, 12), depthwise(12, 16)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.up1, self.up2 = depthwise(28, 12), depthwise(20, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.down3(F.max_pool2d(b, 2))
        y = self.up1(torch.cat([self.up(c), b], 1))
        return self.out(self.up2(torch.cat([F.interpolate(y, scale_factor=2, mode="nearest"), a], 1)))


class Classifier(nn.Module):
    """A recurrent classifier: two layers in both directions."""

    def __init__(self, kind):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.layers = getattr(nn, kind)(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, ids):
        y, _ = self.layers(self.embed(ids))
        return self.head(y[:, -1])


class States(nn.Module):
    """An LSTM that begins with a given state and whose last states are used."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer = nn.Embedding(20, 5), nn.LSTM(5, 5)

    def forward(self, ids):
        x = self.embed(ids).transpose(0, 1)
        y, (h, c) = self.layer(x, (x[:1] * 0.5, x[1:2]))
        return y.transpose(0, 1), h[-1], c[-1]


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.qkv(x).split(width, 2)
        q, k, v = [p.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for p in parts]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).contiguous().view(batch, length, width))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln1, self.attn, self.ln2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class Gpt(nn.Module):
    """A small pre-norm GPT whose embeddings are tied."""

    def __init__(self, words=30, width=16):
        super().__init__()
        self.tok, self.pos = nn.Embedding(words, width), nn.Embedding(10, width)
        self.blocks = nn.ModuleList([Block(width, 2) for _ in range(2)])
        self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.tok.weight

    def forward(self, ids):
        x = self.tok(ids) + self.pos(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))


class Odd(nn.Module):
    """Operators that few networks have."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(1, 8, 1, 1))
        self.conv = nn.Conv2d(3, 8, 3, padding=2, dilation=2, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)
        self.group, self.instance = nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True)
        self.local, self.prelu, self.bilinear = nn.LocalResponseNorm(3), nn.PReLU(8), nn.Bilinear(4, 4, 3)

    def forward(self, x):
        y = self.prelu(self.instance(self.group(self.conv(x)) * self.scale))
        y = F.hardswish(self.local(y))
        z = F.adaptive_avg_pool2d(F.pixel_shuffle(y, 2), (3, 5))
        w = torch.roll(F.elu(self.up(y)), (1, 2), (2, 3)).flip(3)[:, :, ::2, 1:]
        v = w.amax((2, 3))
        v = self.bilinear(v, torch.softmax(v, 1))
        q = torch.einsum("bchw,bdhw->bcd", y, y)
        q = torch.where(q > 0, q, q * 0.1).clamp(-2, 2)
        rest = w.permute(0, 2, 3, 1).reshape(w.shape[0], -1, 4).logsumexp(1)
        return z.flatten(1), v, q.flatten(1).topk(3)[0], F.normalize(q, dim=-1), torch.cumsum(v, 1), y.std((2, 3)), rest


class Written(nn.Module):
    """Parts that are written to in place."""

    def forward(self, x):
        x = x * 1.0
        x[:, 0] = 0
        x[:, :, 1:3] += 1
        x[..., 0].mul_(2)
        return x


class Scattered(nn.Module):
    """Elements and slices that are written at computed places, as graph and point networks do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 0, 4, 3, 2, 2]]))

    def forward(self, x):
        source, target = self.edges[0], self.edges[1]
        messages = self.fc(x)[:, source]
        x = x + torch.zeros_like(x).index_add(1, target, messages)
        sums = torch.zeros_like(x).scatter_add_(1, target.view(1, -1, 1).expand_as(messages), messages)
        cells = (x.sigmoid() * 3.99).long()
        counts = torch.zeros(x.shape[0], 5, 4).scatter_add(2, cells, torch.ones_like(x))
        best = x.topk(2, dim=-1)
        hot = torch.zeros_like(x).scatter(-1, best.indices, 1.0)
        kept = torch.zeros_like(x).scatter(-1, best.indices, best.values)
        y = x.clone()
        y[:, [0, 2]] = x[:, [1, 3]]
        y[:, [0, 4, 1], [1, 1, 5]] = 0.5
        y = y.index_fill(2, self.edges[0, 1:3], -1.0).index_copy(1, self.edges[1, 3:5], x[:, :2])
        y[y > 0.7] = 0.7
        return (
            sums,
            counts,
            hot,
            kept,
            torch.slice_scatter(y, x[:, :, :2], 2, 2, 4),
            torch.select_scatter(y, x[:, 0], 1, 3),
        )


class Encoder(nn.Module):
    """PyTorch's own encoder, in which the batch is the second axis and joined with others on both sides."""

    def __init__(self, batch_first):
        super().__init__()
        self.batch_first = batch_first
        layer = nn.TransformerEncoderLayer(12, 4, 16, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(12, 3)

    def forward(self, x):
        if self.batch_first:
            return self.out(self.encoder(x)[:, 0])
        return self.out(self.encoder(x.transpose(0, 1)).mean(0))


class OfTheBatch(nn.Module):
    """Code that makes tensors for the batch, and folds it into other axes and back."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)
        self.kernel = torch.randn(3, 2, 3, 3)

    def forward(self, x):
        batch, length, width = x.shape
        places = torch.arange(length).expand(batch, length)
        x = x[torch.arange(batch)[:, None], places.flip(1)] + torch.zeros(batch, 1, 1)
        y = self.linear(x.view(batch * length, width)).view(batch, length, 2)
        copies = y[:, :, None].expand(batch, length, 2, 2).reshape(batch, 2 * length, 2)
        kernel = F.batch_norm(self.kernel.view(1, 3, -1), None, None, torch.ones(3), training=True).view(3, 2, 3, 3)
        return F.conv2d(copies.view(batch, 2, length, 2).repeat(1, 1, 1, 2), kernel).mean((2, 3))


class Fn(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


CELL = [torch.linspace(-1, 1, 64).view(8, 8), torch.linspace(1, -1, 16).view(8, 2), torch.ones(8), torch.zeros(8)]

# Functions of a [batch, 4, 6, 8] tensor.
FUNCTIONS = {
    "tensor_split": lambda x: torch.cat(x.tensor_split([1, -2], dim=2)[::-1], 2),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg_pool_excluding": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg_pool_divisor": lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
    "max_pool_ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max_unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "max_unpool_1d": lambda x: F.max_unpool1d(*F.max_pool1d(x[:, 0], 3, return_indices=True), 3, output_size=(8,)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1),
    "attention_causal": lambda x: F.scaled_dot_product_attention(x, x, x * 2, is_causal=True, scale=0.7),
    "attention_added": lambda x: F.softmax(x @ x.mT / 3 + torch.ones(6, 6).triu(1) * -1e9, -1) @ x,
    "attention_hidden": lambda x: (x @ x.mT).masked_fill(torch.eye(6) > 0, -torch.inf).softmax(-1) @ x,
    "heads": lambda x: torch.stack([y.unflatten(2, (3, 2)).transpose(1, 2) for y in x.mT.unbind(1)]),
    "known_mask": lambda x: x[:, torch.tensor([True, False, True, True])],
    "stacks": lambda x: torch.hstack([torch.dstack([x, x]), torch.cat([x, x], 2)]) + torch.atleast_2d(x[0, 0, 0, 0]),
    "matrices": lambda x: torch.linalg.multi_dot([x[0, 0].mT, torch.ones(6, 2), torch.eye(2, 8)]) + x.diag_embed(),
    "softplus_early": lambda x: F.softplus(x, 2, 1),
    "adaptive_max": lambda x: F.adaptive_max_pool2d(x, (4, 3)),
    "pads": lambda x: F.pad(F.pad(F.pad(x, (1, 2, 0, 1)), (1, 1, 1, 1), "replicate"), (2, 1, 1, 2), "circular"),
    "crop": lambda x: F.pad(x, (-1, 2, 1, -2), value=0.5),
    "aligned": lambda x: F.interpolate(x, (9, 5), mode="bilinear", align_corners=True),
    "nearest_exact": lambda x: F.interpolate(x, (9, 5), mode="nearest-exact"),
    "bicubic": lambda x: F.interpolate(x, (9, 5), mode="bicubic"),
    "bicubic_aligned": lambda x: F.interpolate(x, (9, 5), mode="bicubic", align_corners=True),
    "bilinear_antialias": lambda x: F.interpolate(x, (4, 11), mode="bilinear", antialias=True),
    "bicubic_antialias": lambda x: F.interpolate(x, (4, 3), mode="bicubic", antialias=True),
    "uneven_factors": lambda x: (
        F.interpolate(x, scale_factor=(1.3, 0.7), mode="bilinear")
        + F.interpolate(x, scale_factor=(1.3, 0.7), mode="bicubic")
        + F.interpolate(x, scale_factor=(1.3, 0.7))
        + F.interpolate(x, scale_factor=(1.3, 0.7), mode="nearest-exact")
    ),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1, stride=2), (6, 8), 3, padding=1, stride=2),
    "fold_patches": lambda x: F.fold(F.unfold(x, (2, 4), stride=(2, 4)), (6, 8), (2, 4), stride=(2, 4)),
    "sampled": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),
    "sampled_inside": lambda x: (
        F.grid_sample(x, 2 * x[:, :2].mT.permute(0, 2, 3, 1), "bilinear", "border", align_corners=True)
        + F.grid_sample(x, 2 * x[:, :2].mT.permute(0, 2, 3, 1), "nearest", "reflection", align_corners=False)
    ),
    "affine_grid": lambda x: F.grid_sample(
        x, F.affine_grid(x[:, :2, :3, 0], [len(x), 4, 5, 7], align_corners=False), align_corners=False
    ),
    "bins": lambda x: (
        torch.bucketize(x, torch.tensor([-0.5, 0.0, 1.0]))
        + torch.searchsorted(torch.tensor([-0.3, 0.2]), x, right=True)
    ),
    "area": lambda x: F.interpolate(x, (4, 3), mode="area"),
    "unfold": lambda x: F.unfold(x, 3, dilation=1, padding=1, stride=2),
    "windows": lambda x: x.unfold(3, 4, 2),
    "shuffle": lambda x: F.pixel_unshuffle(F.channel_shuffle(x, 2), 2),
    "activations": lambda x: F.celu(x, 0.7) + F.softplus(x, 2) + F.hardshrink(x) + F.softshrink(x) + F.logsigmoid(x),
    "more_activations": lambda x: F.glu(x, 1) * F.mish(x[:, :2]) + F.hardtanh(x[:, 2:]) - F.tanhshrink(x[:, 1:3]),
    "variance": lambda x: torch.cat([x.var(3), x.std((2, 3), keepdim=True).flatten(2).expand(-1, -1, 6)], 2),
    "index": lambda x: x[:, [2, 0]] + x[:, :2][..., [0, -1, 1, 2, 3, 4, 5, 6]],
    "pick": lambda x: torch.gather(x, 3, x.argsort(3)) + x.sort(3, descending=True)[0],
    "triangle": lambda x: torch.tril(x, 1) + torch.triu(x, -1),
    "masked": lambda x: x.masked_fill(x > 0.5, -1.0).softmax(-1),
    "reals": lambda x: x.long() / 2 + x.int().remainder(3) + torch.floor_divide(x, 0.5) + (x > 0),
    "repeated": lambda x: x.repeat(1, 2, 1, 1)[:, 1:5] + x.repeat_interleave(2, 1)[:, ::2],
    "norms": lambda x: F.rms_norm(x, (8,)) + F.layer_norm(x, (6, 8)) + x / x.norm(dim=1, keepdim=True),
    "stacked": lambda x: torch.stack(x.unbind(1)[:3], -1).movedim(-1, 1) - torch.cat(x.chunk(4, 1)[1:], 1),
    "similarity": lambda x: F.cosine_similarity(x, x.flip(1))[..., :4] + F.pairwise_distance(x, x.flip(2)).mT,
    "distances": lambda x: torch.cdist(x, x[:, :, :3]) + torch.cdist(x, x[:, :, :3] + 1, p=1),
    "products": lambda x: (
        torch.tensordot(x[:, 0], x[0, 1], dims=([2], [1])) + torch.linalg.vecdot(x, x)[:, :1, :, None]
    ),
    "weight_norm": lambda x: F.conv2d(x, torch._weight_norm(torch.ones(2, 4, 3, 3), torch.ones(2, 1, 1, 1) * 2, 0)),
    "logarithms": lambda x: torch.logaddexp(x, -x) + torch.logaddexp2(x, 2 * x) + torch.xlogy(x.relu(), x.exp()),
    "two_numbers": lambda x: torch.hypot(x, x.exp()) + torch.copysign(x.exp(), x) + torch.heaviside(x.relu(), x.exp()),
    "one_number": lambda x: (
        torch.sinc(x.relu()) + torch.deg2rad(x) + torch.special.expit(x) + torch.round(x, decimals=1)
    ),
    "not_numbers": lambda x: torch.nan_to_num(x / x.relu(), neginf=-2.0) * 1e-38 + torch.nansum(x, 1, keepdim=True),
    "truths": lambda x: torch.isclose(x, x.round(), atol=0.2).float() + torch.count_nonzero(x.relu(), 1)[:, None],
    "order": lambda x: x.median(2).values + x.kthvalue(5, 2).values + torch.aminmax(x, dim=2).min,
    "turned": lambda x: torch.rot90(x, 1, (2, 3)) + torch.rot90(x, 3, (2, 3)) + torch.rot90(x, 2, (2, 3)).mT.flip(1),
    "differences": lambda x: torch.diff(x, 2, prepend=x[..., :1]),
    "running": lambda x: x.cumprod(2) + torch.logcumsumexp(x, 1) + x.cummax(3).values,
    "diagonals": lambda x: x.diagonal(1, 2, 3) + x.diagonal(-1, 3, 2)[:, :1],
    "cross": lambda x: torch.cross(x[:, :3], x[:, 1:], dim=1) + x.index_fill(2, torch.tensor([0, 2]), 3.0)[:, :3],
    "lstm_cell": lambda x: torch.lstm_cell(x[:, 0, 0], (x[:, 0, 1, :2], x[:, 1, 1, :2]), *CELL)[1],
    "gru_cell": lambda x: torch.gru_cell(x[:, 0, 0], x[:, 0, 1, :2], *(weight[:6] for weight in CELL)),
    "smallest": lambda x: torch.where(x > 0, x, torch.finfo(torch.float32).min).softmax(-1),
}


class Folded(nn.Module):
    """Attention whose batch is folded with the heads, and an encoder of such."""

    def __init__(self, **settings):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **settings)
        self.layers, self.attention = nn.TransformerEncoder(layer, 2), nn.MultiheadAttention(16, 2, batch_first=True)
        self.out = nn.Linear(16, 3)

    def forward(self, ids):
        x = self.layers(self.embed(ids))
        y, weights = self.attention(x[:, :1], x, x)
        return self.out(x), y, weights


class Sequences(nn.Module):
    """The same with the sequence first: the batch is the second axis."""

    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(16, 4), nn.Linear(16, 3)

    def forward(self, x):
        y, weights = self.attention(x, x, x)
        return self.out(y), weights
