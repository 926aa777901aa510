"""Cases of pooling."""

from __future__ import annotations

from functools import partial
from typing import Any

from convdsl.kernel.evaluate import evaluate
from convdsl.ops import BY_NAME
from op_cases.convolution import draw_padding, reaches
from op_cases.draw import Array, Case, Draw, Generator, full, image_symbols, type_of, with_state


def window(draw: Draw, *, dilated: bool) -> tuple[dict[str, Any], Array]:
    """Attributes of a pooling window, and an input that it fits."""
    rank = draw.pick(1, 2, 2, 2, 3)
    kernel = draw.sizes(rank, 1, 4)
    dilation = draw.sizes(rank, 1, 2) if dilated and draw.chance(0.4) else 1
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
    most = 6 if rank < 3 else 3
    space = [r + draw.integer(0, most) for r in reaches(kernel, dilation, rank)]
    return attributes, draw.array(
        (draw.integer(1, 3), draw.integer(1, 5 if rank < 3 else 2), *space)
    )


def pool(name: str, draw: Draw) -> Case:
    attributes, x = window(draw, dilated=BY_NAME[name].attribute("dilation") is not None)
    if name == "avg_pool":
        attributes["count_include_pad"] = draw.chance()
    if name == "lp_pool":
        attributes["order"] = draw.integer(1, 3)
    if attributes.get("pad") == "same":  # ONNX fixes the output's size there
        attributes["ceil_mode"] = False
    return with_state(draw, name, attributes, x, symbols=image_symbols(x.ndim))


def max_pool_with_positions(draw: Draw) -> Case:
    case = pool("max_pool_with_positions", draw)
    alike = draw.repeated(case.arrays["x"].shape)
    return Case(case.op, case.attributes, {"x": alike}, case.symbols)


def max_unpool(draw: Draw) -> Case:
    """Positions from a pooling of distinct values; values of their own."""
    rank = draw.pick(1, 2, 2, 3)
    kernel, stride = draw.sizes(rank, 1, 3), draw.sizes(rank, 1, 3)
    pad = draw_padding(draw, rank, tuple(k // 2 for k in full(kernel, rank)))
    attributes = {"kernel": kernel, "stride": stride, "pad": 0 if pad == "same" else pad}
    space = [k + draw.integer(0, 5) for k in full(kernel, rank)]
    source = draw.distinct((draw.integer(1, 2), draw.integer(1, 3), *space))
    call = BY_NAME["max_pool_with_positions"].call({"x": type_of(source)}, attributes)
    positions = evaluate(call.kernel, {"x": source})["positions"]
    arrays = {"x": draw.distinct(positions.shape), "positions": positions}
    return Case(BY_NAME["max_unpool"], {**attributes, "size": tuple(space)}, arrays)


def adaptive(name: str, draw: Draw) -> Case:
    rank = draw.pick(1, 2, 2, 3)
    space = [draw.integer(1, 9 if rank < 3 else 4) for _ in range(rank)]
    x = draw.array((draw.integer(1, 2), draw.integer(1, 4), *space))
    attributes = {"size": draw.sizes(rank, 1, 6)}
    return with_state(draw, name, attributes, x, symbols=image_symbols(x.ndim))


GENERATORS: dict[str, Generator] = {
    **{name: partial(pool, name) for name in ("max_pool", "avg_pool", "lp_pool")},
    "max_pool_with_positions": max_pool_with_positions,
    "max_unpool": max_unpool,
    **{name: partial(adaptive, name) for name in ("adaptive_avg_pool", "adaptive_max_pool")},
}
