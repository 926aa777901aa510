"""Cases of convolutions and products with matrices."""

from __future__ import annotations

from typing import Any

from convdsl.ops import BY_NAME
from op_cases.draw import Case, Draw, Generator, full, image_symbols, with_state


def draw_padding(draw: Draw, rank: int, most: tuple[int, ...]) -> Any:
    """Any spelling of padding with at most `most` on each side."""
    kind = draw.pick("valid", "same", "one", "each", "pairs")
    if kind == "one":
        return draw.integer(0, min(most))
    if kind == "each":
        return tuple(draw.integer(0, m) for m in most)
    if kind == "pairs":
        return tuple((draw.integer(0, m), draw.integer(0, m)) for m in most)
    return kind


def reaches(kernel: Any, dilation: Any, rank: int) -> list[int]:
    pairs = zip(full(kernel, rank), full(dilation, rank), strict=True)
    return [d * (k - 1) + 1 for k, d in pairs]


def conv(draw: Draw) -> Case:
    rank = draw.pick(1, 2, 2, 2, 3)
    kernel, dilation = draw.sizes(rank, 1, 4), draw.sizes(rank, 1, 2)
    groups = draw.pick(1, 1, 2, 3)
    channels = groups if draw.chance(0.2) else groups * draw.integer(1, 3)
    mode = draw.pick("zeros", "zeros", "reflect", "replicate", "circular")
    space = [r + draw.integer(0, 6) for r in reaches(kernel, dilation, rank)]
    pad = draw_padding(draw, rank, tuple(min(3, s - 1) for s in space))
    if all(k % 2 for k in full(kernel, rank)) and draw.chance(0.3):
        pad = "half"
    if mode != "zeros" and pad in ("same", "half"):
        pad = 0
    x = draw.array((draw.integer(1, 3), channels, *space))
    attributes = {
        "channels": groups * draw.integer(1, 3),
        "kernel": kernel,
        "stride": draw.sizes(rank, 1, 3),
        "dilation": dilation,
        "groups": groups,
        "pad": pad,
        "pad_mode": mode,
        "bias": draw.chance(),
        "flip": draw.chance(0.2),
    }
    return with_state(draw, "conv", attributes, x, symbols=image_symbols(x.ndim))


def conv_transpose(draw: Draw) -> Case:
    rank = draw.pick(1, 2, 2, 2, 3)
    kernel, dilation = draw.sizes(rank, 1, 4), draw.sizes(rank, 1, 3)
    stride = draw.sizes(rank, 1, 4)
    reach = reaches(kernel, dilation, rank)
    steps, spacings = full(stride, rank), full(dilation, rank)
    extra = tuple(draw.integer(0, max(s, d) - 1) for s, d in zip(steps, spacings, strict=True))
    space = [draw.integer(2, 5 if rank < 3 else 3) for _ in range(rank)]
    sizes = [(e - 1) * s + r + o for e, s, r, o in zip(space, steps, reach, extra, strict=True)]
    pad = draw_padding(draw, rank, tuple(min(2, (size - 1) // 2) for size in sizes))
    fills = all(r + o >= s for r, o, s in zip(reach, extra, steps, strict=True))
    if pad == "same" and not fills:
        pad = "valid"
    groups = draw.pick(1, 1, 2, 3)
    x = draw.array((draw.integer(1, 2), groups * draw.integer(1, 2), *space))
    attributes = {
        "channels": groups * draw.integer(1, 2),
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "output_pad": extra if draw.chance() else min(extra),
        "groups": groups,
        "pad": pad,
        "bias": draw.chance(),
    }
    if pad == "same":
        attributes["output_pad"] = extra
    return with_state(draw, "conv_transpose", attributes, x, symbols=image_symbols(x.ndim))


def linear(draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(2, 4)))
    attributes = {"channels": draw.integer(1, 6), "bias": draw.chance()}
    return with_state(draw, "linear", attributes, x, symbols={"x": (*"NTS"[: x.ndim - 1], None)})


def matmul(draw: Draw) -> Case:
    """Batches broadcast: axes dropped from the front, or of extent 1."""
    batch = [draw.integer(1, 3) for _ in range(draw.integer(0, 2))]
    inner = draw.integer(1, 7)
    arrays, symbols = {}, {}
    for name, matrix, letters in (
        ("a", (draw.integer(1, 5), inner), ("I", "J")),
        ("b", (inner, draw.integer(1, 5)), ("J", "K")),
    ):
        dropped = draw.integer(0, len(batch))
        kept = [1 if draw.chance(0.2) else extent for extent in batch[dropped:]]
        arrays[name] = draw.array((*kept, *matrix))
        named = zip("AB"[dropped:], kept, strict=False)
        symbols[name] = (*(None if extent == 1 else s for s, extent in named), *letters)
    return Case(BY_NAME["matmul"], {}, arrays, symbols)


GENERATORS: dict[str, Generator] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "linear": linear,
    "matmul": matmul,
}
