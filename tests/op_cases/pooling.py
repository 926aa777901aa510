"""Cases of pooling."""

from __future__ import annotations

from typing import Any

from op_cases.convolution import draw_padding
from op_cases.draw import Array, Case, Draw, Generator, full, image_symbols, with_state


def window(draw: Draw, *, dilated: bool) -> tuple[dict[str, Any], Array]:
    """Attributes of a pooling window, and an input that it fits."""
    rank = draw.pick(1, 2, 2, 2, 3)
    kernel = draw.sizes(rank, 1, 4)
    dilation = draw.sizes(rank, 1, 2) if dilated and draw.chance(0.4) else 1
    reach = [d * (k - 1) + 1 for k, d in zip(full(kernel, rank), full(dilation, rank), strict=True)]
    attributes: dict[str, Any] = {
        "kernel": kernel,
        "stride": draw.pick("kernel", draw.sizes(rank, 1, 3)),
        "pad": draw_padding(draw, rank, tuple(k // 2 for k in full(kernel, rank))),
        "ceil_mode": draw.chance(0.4),
    }
    if dilated:
        attributes["dilation"] = dilation
    if draw.chance(0.15):
        attributes = {"kernel": "global"}
    space = [r + draw.integer(0, 6) for r in reach]
    return attributes, draw.array((draw.integer(1, 3), draw.integer(1, 5), *space))


def max_pool(draw: Draw) -> Case:
    attributes, x = window(draw, dilated=True)
    return with_state(draw, "max_pool", attributes, x, symbols=image_symbols(x.ndim))


def avg_pool(draw: Draw) -> Case:
    attributes, x = window(draw, dilated=False)
    if attributes.get("pad") == "same" and attributes["ceil_mode"]:
        attributes["ceil_mode"] = False
    attributes["count_include_pad"] = draw.chance()
    return with_state(draw, "avg_pool", attributes, x, symbols=image_symbols(x.ndim))


GENERATORS: dict[str, Generator] = {"max_pool": max_pool, "avg_pool": avg_pool}
