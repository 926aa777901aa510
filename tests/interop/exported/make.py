"""Small networks with the parts of today's classifiers and detectors, as PyTorch exports them.

    python tests/interop/exported/make.py FOLDER

writes the ONNX files that lie beside this script (PyTorch 2.13, TorchScript exporter), each with an
input x and an output y. Weights are drawn; the tests read the files and need no PyTorch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx._internal.torchscript_exporter import onnx_proto_utils


def windows(x: Tensor, size: int) -> Tensor:
    """x[B, H, W, C] as rows of the elements of windows."""
    b, h, w, c = x.shape
    apart = x.view(b, h // size, size, w // size, size, c)
    return apart.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)


class WindowAttention(nn.Module):
    """Attention in windows, shifted and padded, with relative positions: Swin's, as torchvision
    writes it."""

    def __init__(self, width: int, size: int, heads: int, shift: int) -> None:
        super().__init__()
        self.size, self.heads, self.shift = size, heads, shift
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * size - 1) ** 2, heads))
        line = torch.arange(size)
        grid = torch.stack(torch.meshgrid(line, line, indexing="ij")).flatten(1)
        apart = (grid[:, :, None] - grid[:, None]).permute(1, 2, 0) + size - 1
        self.register_buffer("index", (apart[..., 0] * (2 * size - 1) + apart[..., 1]).flatten())

    def forward(self, x: Tensor) -> Tensor:
        y, size, shift = self.norm(x), self.size, self.shift
        _, h, w, c = x.shape
        y = F.pad(y, (0, 0, 0, -w % size, 0, -h % size))
        b, high, wide, _ = y.shape
        if shift:
            y = torch.roll(y, (-shift, -shift), (1, 2))
        rows = windows(y, size)
        qkv = self.qkv(rows).reshape(*rows.shape[:2], 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        bias = self.table[self.index].view(size * size, size * size, -1).permute(2, 0, 1)
        scores = scores + bias.contiguous().unsqueeze(0)
        if shift:
            mask = self.mask(x, high, wide)
            apart = scores.view(b, -1, *scores.shape[1:]) + mask.unsqueeze(1).unsqueeze(0)
            scores = apart.view(-1, *scores.shape[1:])
        rows = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(rows.shape))
        y = rows.view(b, high // size, wide // size, size, size, c)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(b, high, wide, c)
        if shift:
            y = torch.roll(y, (shift, shift), (1, 2))
        return x + y[:, :h, :w, :].contiguous()

    def mask(self, x: Tensor, high: int, wide: int) -> Tensor:
        """What of a shifted window comes from elsewhere is not attended: by assigned slices."""
        mask, count = x.new_zeros((1, high, wide, 1)), 0
        parts = (slice(0, -self.size), slice(-self.size, -self.shift), slice(-self.shift, None))
        for rows in parts:
            for columns in parts:
                mask[:, rows, columns] = count
                count += 1
        own = windows(mask, self.size).squeeze(-1)
        apart = own.unsqueeze(1) - own.unsqueeze(2)
        return apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)


class Swin(nn.Module):
    """Patches, two blocks of which one is shifted, and a merging of patches."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(4 * width)
        self.blocks = nn.Sequential(*(WindowAttention(width, 3, 2, shift) for shift in (0, 1)))
        self.reduced, self.head = (
            nn.Linear(4 * width, 2 * width, bias=False),
            nn.Linear(2 * width, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patches(x).permute(0, 2, 3, 1))
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[..., i::2, j::2, :] for j in range(2) for i in range(2)]
        x = self.reduced(self.norm(torch.cat(parts, -1)))
        return self.head(x.permute(0, 3, 1, 2).mean((2, 3)))


class Transformer(nn.Module):
    """A class token, learnt positions, an encoder layer, and causal attention behind it."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 10, width))
        how = {"activation": "gelu", "batch_first": True, "norm_first": True}
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, **how)
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        x = self.layer(x)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        return (
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, n, c)
        )


class ConvNeXt(nn.Module):
    """A block: depthwise, normalised with channels last, two products, a scale."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.deep = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.scale = nn.LayerNorm(width), nn.Parameter(torch.randn(width, 1, 1))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        return x + self.scale * self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2)


class Detector(nn.Module):
    """Two levels, distances as distributions, boxes around anchors; a head of boxes assigned in
    place: as YOLO's versions 5 and 8 have them."""

    def __init__(self, bins: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.bins, self.classes = bins, classes
        self.stem, self.down = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.spread = nn.MaxPool2d(5, 1, 2)
        self.heads = nn.ModuleList(nn.Conv2d(c, 4 * bins + classes, 1) for c in (24, 32))
        self.old = nn.Conv2d(16, 2 * 6, 1)
        self.register_buffer("sizes", torch.rand(2, 1, 1, 2) * 50)

    def forward(self, x: Tensor) -> Tensor:
        a = F.silu(self.stem(x))
        b = F.silu(self.down(a))
        b = torch.cat([b, self.spread(b)], 1)
        a = torch.cat([F.interpolate(b[:, ::2], scale_factor=2.0), a], 1)
        levels = [head(f) for head, f in zip(self.heads, (a, b), strict=True)]
        y = torch.cat([level.flatten(2) for level in levels], 2)
        places = torch.cat([self.middles(level) for level in levels], 1)
        strides = torch.cat(
            [torch.full((1, level[0, 0].numel()), 2.0 * 2**k) for k, level in enumerate(levels)], 1
        )
        box, classes = y.split((4 * self.bins, self.classes), 1)
        box = box.view(box.shape[0], 4, self.bins, -1).transpose(2, 1).softmax(1)
        counts = torch.arange(self.bins, dtype=box.dtype).view(1, -1, 1, 1)
        left, right = F.conv2d(box, counts).flatten(1, 2).chunk(2, 1)
        first, last = places[None] - left, places[None] + right
        box = torch.cat(((first + last) / 2, last - first), 1) * strides
        found = torch.cat((box, classes.sigmoid()), 1)
        return torch.cat([found.flatten(1), self.assigned(b[:, :16]).flatten(1)], 1)

    def middles(self, level: Tensor) -> Tensor:
        lines = [torch.arange(size, dtype=level.dtype) + 0.5 for size in level.shape[2:]]
        rows, columns = torch.meshgrid(*lines, indexing="ij")
        return torch.stack((columns.flatten(), rows.flatten()))

    def assigned(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        y = self.old(x).view(b, 2, 6, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).float()
        y[..., 0:2] = (y[..., 0:2] * 2 - 0.5 + grid) * 4
        y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * self.sizes
        return y


class Sampling(nn.Module):
    """Positions as sines of running sums, samples at predicted places, queries by an equation,
    masks painted at the best scores: what detectors of DETR's family have."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.place = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, 2, 3, padding=1)
        self.queries = nn.Parameter(torch.randn(5, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        counted = (x[:, 0, ::2, ::2] > 0).float()
        parts: list[Tensor] = []
        for axis in (1, 2):
            angle = counted.cumsum(axis)[..., None] / 100 ** (torch.arange(4) // 2 / 2)
            waves = torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), 4)
            parts.append(waves.flatten(3))
        y = y + torch.cat(parts, 3).permute(0, 3, 1, 2)
        y = F.grid_sample(y, torch.tanh(self.place(y)).permute(0, 2, 3, 1), align_corners=False)
        maps = torch.einsum("qc,bchw->bqhw", self.queries, y).flatten(2)
        best, places = maps.topk(3, 2)
        taken = maps.gather(2, places.flip(2))
        return torch.tril(maps.scatter(2, places, best * 2)) + taken.sum(2, keepdim=True)


NETWORKS = {
    "swin": (Swin(), (1, 3, 28, 20)),
    "transformer": (Transformer(), (2, 3, 24, 24)),
    "convnext": (ConvNeXt(), (1, 3, 32, 28)),
    "detector": (Detector(), (1, 3, 16, 24)),
    "sampling": (Sampling(), (2, 3, 14, 18)),
}


def main(folder: Path) -> None:
    # All that this adds are functions of onnxscript, which none of these networks has.
    onnx_proto_utils._add_onnxscript_fn = lambda model, _: model
    for name, (network, shape) in NETWORKS.items():
        opset = 20 if name == "sampling" else 17
        how = {"input_names": ["x"], "output_names": ["y"], "opset_version": opset, "dynamo": False}
        torch.onnx.export(network.eval(), (torch.randn(shape),), folder / f"{name}.onnx", **how)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(Path(sys.argv[1]))
