"""Cases of convolutions and linear layers."""

from __future__ import annotations

from op_cases.draw import Case, Draw, Generator, full, image_symbols, with_state


def draw_padding(draw: Draw, rank: int, most: tuple[int, ...]) -> object:
    """Any spelling of padding with at most `most` on each side."""
    kind = draw.pick("valid", "same", "one", "each", "pairs")
    if kind == "one":
        return draw.integer(0, min(most))
    if kind == "each":
        return tuple(draw.integer(0, m) for m in most)
    if kind == "pairs":
        return tuple((draw.integer(0, m), draw.integer(0, m)) for m in most)
    return kind


def conv(draw: Draw) -> Case:
    rank = draw.pick(1, 2, 2, 2, 3)
    kernel, dilation = draw.sizes(rank, 1, 4), draw.sizes(rank, 1, 2)
    reach = [d * (k - 1) + 1 for k, d in zip(full(kernel, rank), full(dilation, rank), strict=True)]
    groups = draw.pick(1, 1, 2, 3)
    per_group = draw.integer(1, 3)
    depthwise = draw.chance(0.2)
    channels = groups if depthwise else groups * per_group
    mode = draw.pick("zeros", "zeros", "reflect", "replicate", "circular")
    space = [r + draw.integer(0, 6) for r in reach]
    pad = draw_padding(draw, rank, tuple(min(3, s - 1) for s in space))
    if mode != "zeros" and pad == "same":
        pad = "valid"
    if all(k % 2 for k in full(kernel, rank)) and draw.chance(0.3):
        pad = "half" if mode == "zeros" else 0
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


def linear(draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(2, 4)))
    attributes = {"channels": draw.integer(1, 6), "bias": draw.chance()}
    return with_state(draw, "linear", attributes, x, symbols={"x": (*"NTS"[: x.ndim - 1], None)})


GENERATORS: dict[str, Generator] = {"conv": conv, "linear": linear}
