"""Rules that all window operators (convolution, pooling) share: sizes, padding, output extents."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from convdsl.ir.opdef import REQUIRED, Attribute, Call, Kind, OpError
from convdsl.tensor import Dim, TensorType, Window, bounds, ceil_div, dim_max, dim_min, floor_div

Padding = tuple[tuple[Dim, Dim], ...]
# Words for sizes and padding
HALF, VALID = "half", "valid"
SAME = "same"  # stays a word in the attributes until the sizes it depends on are known
GLOBAL = "global"  # stays a word in the attributes: the window is whatever the input's space is
AS_KERNEL = "kernel"  # a stride as large as the window
FITTING = "fitting"  # a size that follows from the rest
PADDINGS = (HALF, SAME, VALID)

FILTERS = (
    Attribute("channels", Kind.INT, REQUIRED, "number of output channels", minimum=1),
    Attribute("kernel", Kind.SIZES, REQUIRED, "filter size, e.g. 3x3", minimum=1),
    Attribute("stride", Kind.SIZES, 1, "step of the filter", minimum=1),
    Attribute(
        "pad",
        Kind.PADDING,
        HALF,
        "half keeps the size at stride 1, as nearly every network writes by hand",
        choices=PADDINGS,
        minimum=0,
    ),
    Attribute("dilation", Kind.SIZES, 1, "distance between filter taps", minimum=1),
    Attribute("groups", Kind.INT, 1, "independent groups of channels", minimum=1),
    Attribute("bias", Kind.BOOL, True, "add a bias per output channel, as PyTorch"),
)
"""What filters that slide over an input have, however they read it."""


def resolve_sizes(call: Call, name: str, rank: int) -> tuple[int, ...]:
    """One integer per spatial axis; a single integer serves all axes."""
    value = call[name]
    sizes = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(sizes) == 1 and rank > 1:
        sizes = sizes * rank
    if len(sizes) != rank:
        text = "x".join(map(str, sizes))
        raise OpError(
            f"{name} {text} has {len(sizes)} axes, the input {call.type('x')} has {rank} of space",
            attributes=(name,),
            operands=("x",),
            help=_sizes_of(call.type("x"), sizes, rank),
        )
    return sizes


def _sizes_of(x: TensorType, sizes: tuple[int, ...], rank: int) -> tuple[str, ...]:
    """Help for sizes of more or fewer axes than the input has of space."""
    if len(sizes) > rank and isinstance(x.shape[0], int):  # perhaps there is no batch
        return ("of an input's axes the first is the batch, the second the channels",)
    own = sizes * rank if len(set(sizes)) == 1 else sizes
    if len(own) < rank:
        return (f"one number for each of {rank} axes",)
    what = "axes" if rank > 1 else "axis"
    return (f"of {rank} {what}: {'x'.join(map(str, own[-rank:]))}",)


def before_flat(rank: int) -> tuple[str, ...]:
    """Help for what works on space and is given a flat tensor."""
    return ("what works on maps stands before `flatten`",) if rank == 2 else ()


def shared_out(channels: int, *others: int) -> tuple[str, ...]:
    """Help for groups that do not divide channels: those that do."""
    common = gcd(channels, *others)
    fitting = [str(n) for n in range(1, common + 1) if common % n == 0]
    shown = fitting if len(fitting) <= 8 else [*fitting[:4], "...", str(common)]
    return (f"groups that divide {'both' if others else 'them'}: {', '.join(shown)}",)


def _sided(kernel: Sequence[int], dilation: Sequence[int]) -> str:
    """What pads an even kernel; along time also all of it before, so that nothing comes early."""
    text = "add pad = valid, pad = same or a number"
    if len(kernel) != 1:
        return text
    return f"{text}; before alone it is pad = [[{dilation[0] * (kernel[0] - 1)}, 0]]"


def resolve_padding(
    call: Call, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Padding | str:
    """(before, after) per axis from `half`, `same`, `valid`, integers or explicit pairs."""
    value, rank = call["pad"], len(kernel)
    if value == VALID:
        return ((0, 0),) * rank
    if value == HALF:
        if any(k % 2 == 0 for k in kernel):
            text = "x".join(map(str, kernel))
            raise OpError(
                f"an even kernel ({text}) has no middle: say its padding",
                attributes=("kernel",),
                help=(_sided(kernel, dilation),),
            )
        halves = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
        return tuple((half, half) for half in halves)
    if value == SAME:
        space = call.type("x").shape[2:]
        if not all(isinstance(extent, int) for extent in space):
            return SAME
        return tuple(map(_same, space, kernel, stride, dilation))
    if isinstance(value, int):
        return ((value, value),) * rank
    pairs: list[tuple[Dim, Dim]] = [
        (item, item) if isinstance(item, int) else (item[0], item[1]) for item in value
    ]
    if len(pairs) == 1:
        pairs *= rank
    if len(pairs) != rank:
        raise OpError(
            f"padding for {len(pairs)} axes, the input {call.type('x')} has {rank} of space",
            attributes=("pad",),
            operands=("x",),
        )
    return tuple(pairs)


def explicit_window(call: Call) -> Window:
    """The call's window with its padding spelled out (attributes kernel, stride, pad, dilation)."""
    kernel, stride, padding = call["kernel"], call["stride"], call["pad"]
    dilation = call.attributes.get("dilation") or (1,) * len(kernel)
    if padding == SAME:
        padding = tuple(map(_same, call.type("x").shape[2:], kernel, stride, dilation))
    return Window(kernel, stride, padding, dilation)


def _same(extent: Dim, kernel: int, stride: int, dilation: int) -> tuple[Dim, Dim]:
    """TensorFlow's: output ceil(in / stride), the odd pixel at the end."""
    reach = (ceil_div(extent, stride) - 1) * stride + dilation * (kernel - 1) + 1
    total = dim_max(reach - extent, 0)
    return floor_div(total, 2), total - floor_div(total, 2)


def window_extents(call: Call, window: Window, ceil: bool = False) -> tuple[Dim, ...]:
    """Output extents: floor((in + before + after - extent) / stride) + 1; with `ceil` rounded up,
    without windows that would start in the padding after the input (as PyTorch)."""
    result: list[Dim] = []
    space = call.type("x").shape[2:]
    if call["pad"] == SAME:
        return tuple(map(ceil_div, space, window.stride))
    for axis, extent in enumerate(space):
        before, after = window.padding[axis]
        stride = window.stride[axis]
        slack = extent + before + after - window.extent(axis)
        _, most = bounds(slack)
        if most is not None and most < 0:
            raise OpError(
                f"a window of {window.extent(axis)} does not fit axis {axis + 2} of "
                f"{call.type('x')} with padding ({before}, {after})",
                operands=("x",),
                attributes=("kernel",),
                help=("less stride or pooling before it leaves a larger map, `pad` adds to it",),
            )
        if ceil:
            count = ceil_div(slack, stride) + 1
            count = dim_min(count, floor_div(extent + before - 1, stride) + 1)
        else:
            count = floor_div(slack, stride) + 1
        result.append(count)
    return tuple(result)


def padded_index(
    mode: str, at: Sequence[Dim], space: Sequence[Dim], padding: Padding
) -> tuple[tuple[Dim, ...], float | None]:
    """(index, outside) that realise a padding mode for input positions `at`."""
    if mode == "zeros":
        inside = all(pair == (0, 0) for pair in padding)
        return tuple(at), None if inside else 0.0
    return tuple(fold_index(mode, i, extent) for i, extent in zip(at, space, strict=True)), None


def fold_index(mode: str, i: Dim, extent: Dim) -> Dim:
    """The position inside that stands for position i under a padding mode that folds."""
    if mode == "replicate":
        return dim_min(dim_max(i, 0), extent - 1)
    if mode == "reflect":
        mirrored = dim_max(i, -i)
        return dim_min(mirrored, (extent - 1) * 2 - mirrored)
    return (i + extent) % extent


def check_folding(call: Call, attribute: str, space: Sequence[Dim], padding: Padding) -> None:
    """Reflection reaches at most to the far edge, circular padding once around."""
    mode = call[attribute]
    spare = {"reflect": 1, "circular": 0}.get(mode)
    if spare is None:
        return
    for extent, pair in zip(space, padding, strict=True):
        for amount in pair:
            most = bounds(extent - spare - amount)[1]
            if most is not None and most < 0:
                raise OpError(
                    f"{mode} padding of {amount} does not fit an input of {extent}",
                    attributes=("pad", attribute),
                    operands=("x",),
                )
