"""Adaptive pooling: windows chosen so that the output has a given size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    REQUIRED,
    Attribute,
    Call,
    Derived,
    Kind,
    OpDef,
    Operand,
    OpError,
    Rule,
    derived,
    float_type,
    no_contraction,
    no_state,
)
from convdsl.ir.windows import resolve_sizes
from convdsl.ir.winners import Windows, Winners
from convdsl.kernel.expr import (
    Axis,
    IndexCompare,
    IndexValue,
    Literal,
    Read,
    Reduce,
    Stage,
    TensorExpr,
    TensorVar,
)
from convdsl.kernel.scalar import REDUCTIONS
from convdsl.tensor import Dim, TensorType, ceil_div, floor_div


def resolve_adaptive(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..] of at least one axis of space; `size` has one extent for each. Raises
    OpError for other ranks, dtypes that are not floating, and sizes of another rank."""
    x = call.type("x")
    float_type(call)
    if x.rank < 3:
        raise OpError(
            f"{call.op.name} needs batch, channels and at least one spatial axis, not {x}",
            operands=("x",),
        )
    return {**call.attributes, "size": resolve_sizes(call, "size", x.rank - 2)}


def infer_adaptive(call: Call) -> tuple[TensorType, ...]:
    """y[N, C, size..]"""
    x = call.type("x")
    return (TensorType(x.dtype, (*x.shape[:2], *call["size"])),)


def windows_adaptive(call: Call) -> tuple[Windows, Dim]:
    """(the windows, positions per window).

    Window o of n over E positions runs from floor(o * E / n) to ceil((o + 1) * E / n). No
    window is longer than 2 ceil(E / n) - floor(E / n), which is exact where n divides E.
    """
    x, (out,) = call.var("x"), call.outputs
    n, c = Axis("n", out.shape[0]), Axis("c", out.shape[1])
    positions = tuple(Axis(f"p{i}", extent) for i, extent in enumerate(out.shape[2:]))
    taps: list[Axis] = []
    at: list[Dim] = []
    guards: list[IndexCompare] = []
    count: Dim = 1
    for axis, (p, extent) in enumerate(zip(positions, x.type.shape[2:], strict=True)):
        size: int = call["size"][axis]
        start, stop = floor_div(p.i * extent, size), ceil_div((p.i + 1) * extent, size)
        tap = Axis(f"r{axis}", ceil_div(extent, size) * 2 - floor_div(extent, size))
        taps.append(tap)
        at.append(start + tap.i)
        count = count * (stop - start)
        if stop - start != tap.extent:
            guards.append(IndexCompare("lt", start + tap.i, stop))
    read = Read(x, (n.i, c.i, *at))
    return Windows((n, c, *positions), tuple(taps), read, tuple(guards)), count


def _reduced(call: Call, op: str) -> tuple[Reduce, Windows, Dim]:
    windows, count = windows_adaptive(call)
    dtype = windows.read.dtype
    neutral = Literal(REDUCTIONS[op].neutral(dtype), dtype)
    return Reduce(op, windows.taps, windows.guarded(windows.read, neutral)), windows, count


def kernel_adaptive_avg_pool(call: Call) -> TensorExpr:
    """y[n,c,p..] = sum over the window of x, by its size"""
    total, windows, count = _reduced(call, "sum")
    size = Literal(count, total.dtype) if isinstance(count, int) else IndexValue(count, total.dtype)
    mean = Stage(TensorVar("y", call.outputs[0]), windows.output, total / size)
    return TensorExpr((call.var("x"),), (mean,), ("y",))


def kernel_adaptive_max_pool(call: Call) -> TensorExpr:
    """y[n,c,p..] = max over the window of x"""
    largest, windows, _ = _reduced(call, "max")
    y = Stage(TensorVar("y", call.outputs[0]), windows.output, largest)
    return TensorExpr((call.var("x"),), (y,), ("y",))


def windows_adaptive_max(call: Call) -> Windows:
    """The windows alone."""
    return windows_adaptive(call)[0]


_SIZE = Attribute("size", Kind.SIZES, REQUIRED, "spatial size of the output", minimum=1)

ADAPTIVE_AVG_POOL = OpDef(
    name="adaptive_avg_pool",
    aliases=("adaptive_avgpool",),
    doc="The mean of each of as many windows as the output has positions, as PyTorch.",
    operands=(Operand("x"),),
    attributes=(_SIZE,),
    outputs=("y",),
    resolve=resolve_adaptive,
    state=no_state,
    infer=infer_adaptive,
    window=derived,
    cost=no_contraction,
    kernel=kernel_adaptive_avg_pool,
    gradient=Derived(search=True),
)

ADAPTIVE_MAX_POOL = OpDef(
    name="adaptive_max_pool",
    aliases=("adaptive_maxpool",),
    doc="The maximum of each of as many windows as the output has positions, as PyTorch.",
    operands=(Operand("x"),),
    attributes=(_SIZE,),
    outputs=("y",),
    resolve=resolve_adaptive,
    state=no_state,
    infer=infer_adaptive,
    window=derived,
    cost=no_contraction,
    kernel=kernel_adaptive_max_pool,
    gradient=Rule(Winners(windows_adaptive_max).gradient, "by recorded positions"),
)

OPERATORS = (ADAPTIVE_AVG_POOL, ADAPTIVE_MAX_POOL)
