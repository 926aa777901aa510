"""Nodes that sample by a grid, add up patches, and take regions of maps."""

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


def _regions(d: Draw) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Maps, corners of regions in and around them, the image of each, and their scale."""
    n, height, width, count = (d.integer(*limits) for limits in ((1, 2), (3, 9), (3, 9), (1, 4)))
    x, scale = floats(d, (n, d.integer(1, 3), height, width)), d.pick(1.0, 0.5, 0.25)
    ends = floats(d, (count, 2, 2), -0.3, 1.3) * np.float32([width / scale, height / scale])
    ends = np.sort(ends, axis=1) if d.chance(0.8) else ends
    return x, ends.reshape(count, 4), d.rng.integers(0, n, count), scale


def roi_align(kind: str, d: Draw, opset: int) -> Node:
    """Means: of the largest onnxruntime itself says that it has them wrong."""
    x, regions, images, scale = _regions(d)
    how = {"spatial_scale": scale, "mode": "avg"} if d.chance(0.8) else {}
    how |= {"output_height": d.integer(1, 3), "output_width": d.integer(1, 3)}
    how |= {"sampling_ratio": d.integer(0, 3)} if d.chance(0.8) else {}
    if opset >= 16 and d.chance(0.8):
        words = ("half_pixel", "output_half_pixel")
        how |= {"coordinate_transformation_mode": d.pick(*words)}
    return Node(kind, {"x": x, "r": regions, "i": images}, how)


def max_roi_pool(kind: str, d: Draw, opset: int) -> Node:
    x, regions, images, scale = _regions(d)
    rows = np.concatenate([images[:, None], regions], axis=1).astype("f4")
    how = {"pooled_shape": [d.integer(1, 3), d.integer(1, 3)]}
    how |= {"spatial_scale": scale} if d.chance(0.8) else {}
    return Node(kind, {"x": x, "r": rows}, how)


def deform_conv(kind: str, d: Draw, opset: int) -> Node:
    """Only what onnxruntime takes: float32, of opset 19 or later."""
    groups, parts = d.pick(1, 2), d.pick(1, 2)
    channels, made = 2 * d.integer(1, 2), groups * d.integer(1, 3)
    kernel, strides = ([d.integer(1, 3), d.integer(1, 3)] for _ in range(2))
    pads = [d.integer(0, 2) for _ in range(4)]
    space = [d.integer(3, 8), d.integer(3, 8)]
    n, taps = d.integer(1, 2), parts * kernel[0] * kernel[1]
    places = [(space[i] + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i in range(2)]
    inputs = {
        "x": floats(d, (n, channels, *space)),
        "w": floats(d, (made, channels // groups, *kernel)),
        "o": floats(d, (n, 2 * taps, *places), -2.5, 2.5),
    }
    if d.chance(0.7):
        inputs["b"] = floats(d, (made,))
        inputs |= {"m": floats(d, (n, taps, *places))} if d.chance(0.6) else {}
    how = {"strides": strides, "pads": pads, "group": groups, "offset_group": parts}
    return Node(kind, inputs, how)


GENERATORS: dict[str, Generator] = {
    "DeformConv": deform_conv,
    "GridSample": grid_sample,
    "Col2Im": col2im,
    "AffineGrid": affine_grid,
    "RoiAlign": roi_align,
    "MaxRoiPool": max_roi_pool,
}
