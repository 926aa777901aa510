"""Nodes that sample by a grid, and that add up patches."""

from __future__ import annotations

import numpy as np
from op_cases.draw import Draw

from interop.drawn_node import Generator, Node, floats


def grid_sample(kind: str, d: Draw, opset: int) -> Node:
    rank = d.pick(2, 2, 3) if opset >= 20 else 2
    x = floats(d, (d.integer(1, 2), d.integer(1, 3), *(d.integer(2, 5) for _ in range(rank))))
    grid = floats(d, (x.shape[0], *(d.integer(1, 4) for _ in range(rank)), rank), -1.5, 1.5)
    words = ("linear", "nearest", "cubic") if opset >= 20 else ("bilinear", "nearest", "bicubic")
    how = {"mode": d.pick(*words[: 3 if rank == 2 else 2])} if d.chance(0.8) else {}
    how |= {"padding_mode": d.pick("zeros", "border", "reflection")} if d.chance(0.8) else {}
    return Node(kind, {"x": x, "g": grid}, how | {"align_corners": d.integer(0, 1)})


def col2im(kind: str, d: Draw, opset: int) -> Node:
    rank = 2  # along one axis onnxruntime mixes up the rows of dilated patches
    size, kernel, stride, dilation = (
        [d.integer(*limits) for _ in range(rank)] for limits in ((5, 8), (1, 3), (1, 3), (1, 2))
    )
    pads = [d.integer(0, 2) for _ in range(2 * rank)]
    counts = [
        (size[k] + pads[k] + pads[k + rank] - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1
        for k in range(rank)
    ]
    x = floats(d, (d.integer(1, 2), d.integer(1, 2) * int(np.prod(kernel)), int(np.prod(counts))))
    how = {"strides": stride, "dilations": dilation, "pads": pads}
    operands = {"x": x, "s": np.int64(size), "k": np.int64(kernel)}
    return Node(kind, operands, how, ("s", "k"))


def affine_grid(kind: str, d: Draw, opset: int) -> Node:
    rank = d.integer(2, 3)
    n = d.integer(1, 2)
    size = np.int64([n, d.integer(1, 3), *(d.integer(2, 5) for _ in range(rank))])
    how = {"align_corners": d.integer(0, 1)} if d.chance(0.8) else {}
    return Node(kind, {"t": floats(d, (n, rank, rank + 1)), "s": size}, how, ("s",))


GENERATORS: dict[str, Generator] = {
    "GridSample": grid_sample,
    "Col2Im": col2im,
    "AffineGrid": affine_grid,
}
