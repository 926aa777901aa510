"""Max-unpooling, gathered: each output position asks which pooled value came from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    derived,
    float_type,
    no_contraction,
    no_state,
)
from convdsl.ir.windows import (
    AS_KERNEL,
    FITTING,
    HALF,
    SAME,
    VALID,
    resolve_padding,
    resolve_sizes,
)
from convdsl.kernel.expr import (
    Axis,
    Compare,
    Expr,
    IndexCompare,
    IndexValue,
    Literal,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
)
from convdsl.tensor import Dim, DType, TensorType, bounds, ceil_div, format_shape


def resolve_max_unpool(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..], floating, and positions, i64, of the same shape; kernel and stride one
    number an axis of space, padding in pairs. Raises OpError otherwise, for `same` of free
    sizes, and for a `size` of another rank."""
    x, positions = call.type("x"), call.type("positions")
    float_type(call)
    if x.rank < 3:
        raise OpError(f"max_unpool needs batch, channels and space, not {x}", operands=("x",))
    if positions.shape != x.shape or positions.dtype is not DType.I64:
        raise OpError(
            f"positions {positions} are not those of {x}",
            operands=("positions", "x"),
            help=("take both outputs of one max_pool_with_positions",),
        )
    rank = x.rank - 2
    kernel = resolve_sizes(call, "kernel", rank)
    stride = kernel if call["stride"] == AS_KERNEL else resolve_sizes(call, "stride", rank)
    padding = resolve_padding(call, kernel, stride, (1,) * rank)
    if padding == SAME:
        raise OpError("max_unpool needs its padding in numbers", attributes=("pad",))
    size = call["size"]
    if size != FITTING and (len(size) != rank or any((bounds(e)[0] or 0) < 1 for e in size)):
        raise OpError(
            f"{format_shape(size)} is no size for the {rank} axes of space", attributes=("size",)
        )
    return {**call.attributes, "kernel": kernel, "stride": stride, "pad": padding}


def infer_max_unpool(call: Call) -> tuple[TensorType, ...]:
    """(in - 1) * stride - before - after + kernel, unless the size is given"""
    x = call.type("x")
    if call["size"] != FITTING:
        return (TensorType(x.dtype, (*x.shape[:2], *call["size"])),)
    space: list[Dim] = []
    for axis, extent in enumerate(x.shape[2:]):
        before, after = call["pad"][axis]
        size = (extent - 1) * call["stride"][axis] - before - after
        space.append(size + call["kernel"][axis])
    return (TensorType(x.dtype, (*x.shape[:2], *space)),)


@dataclass(frozen=True)
class _Candidates:
    """The pooled positions whose windows hold an output position, along all axes.

    A window that starts at i * stride - before holds o for i = (o + before) div stride - t,
    t = 0 .. ceil(kernel / stride) - 1, as far as i exists.
    """

    taps: tuple[Axis, ...]
    at: tuple[Dim, ...]
    inside: tuple[IndexCompare, ...]

    def guarded(self, value: Expr, otherwise: Expr) -> Expr:
        for condition in self.inside:
            value = Select(condition, value, otherwise)
        return value


def _candidates(call: Call, positions: tuple[Axis, ...], suffix: str) -> _Candidates:
    taps: list[Axis] = []
    at: list[Dim] = []
    inside: list[IndexCompare] = []
    for axis, (o, extent) in enumerate(zip(positions, call.type("x").shape[2:], strict=True)):
        stride, kernel = call["stride"][axis], call["kernel"][axis]
        tap = Axis(f"{suffix}{axis}", ceil_div(kernel, stride))
        i = (o.i + call["pad"][axis][0]) // stride - tap.i
        taps.append(tap)
        at.append(i)
        inside += [IndexCompare("ge", i, 0), IndexCompare("lt", i, extent)]
    return _Candidates(tuple(taps), tuple(at), tuple(inside))


def _row_major(index: tuple[Dim, ...], shape: tuple[Dim, ...]) -> Dim:
    flat: Dim = 0
    for at, extent in zip(index, shape, strict=True):
        flat = flat * extent + at
    return flat


def kernel_max_unpool(call: Call) -> TensorExpr:
    """winner[n,c,o..] = max over the pooled i.. around o of i, where positions[n,c,i..] = o
    y[n,c,o..] = x[n, c, winner], or 0 where there is none"""
    x, positions, (out,) = call.var("x"), call.var("positions"), call.outputs
    n, c = Axis("n", out.shape[0]), Axis("c", out.shape[1])
    space = tuple(Axis(f"p{i}", extent) for i, extent in enumerate(out.shape[2:]))
    here = IndexValue(_row_major(tuple(p.i for p in space), out.shape[2:]), DType.I64)
    none = Literal(-1, DType.I64)

    around = _candidates(call, space, "t")
    pooled = IndexValue(_row_major(around.at, x.type.shape[2:]), DType.I64)
    came_from = Compare("eq", positions[(n.i, c.i, *around.at)], here)
    found = around.guarded(Select(came_from, pooled, none), none)
    winner = Stage(
        TensorVar("winner", TensorType(DType.I64, out.shape)),
        (n, c, *space),
        Reduce("max", around.taps, found),
    )

    nothing = Literal(0.0, out.dtype)
    is_winner = Compare("eq", winner.target[(n.i, c.i, *(p.i for p in space))], pooled)
    value = around.guarded(Select(is_winner, x[(n.i, c.i, *around.at)], nothing), nothing)
    y = Stage(TensorVar("y", out), (n, c, *space), Reduce("sum", around.taps, value))
    return TensorExpr((x, positions), (winner, y), ("y",))


MAX_UNPOOL = OpDef(
    name="max_unpool",
    aliases=("maxunpool",),
    doc="""Pooled values back at the positions they were taken from, zeros elsewhere.

    Takes both outputs of max_pool_with_positions, and its window: only positions inside the
    window of a pooled value are looked at. Where windows overlap and two values claim one
    place, the later wins. Zeiler, Fergus 2013, arXiv:1311.2901.""",
    operands=(Operand("x"), Operand("positions")),
    attributes=(
        Attribute("kernel", Kind.SIZES, REQUIRED, "window size of the pooling", minimum=1),
        Attribute(
            "stride",
            Kind.SIZES,
            AS_KERNEL,
            "its step; the kernel, as PyTorch",
            choices=(AS_KERNEL,),
            minimum=1,
        ),
        Attribute("pad", Kind.PADDING, 0, "its padding", choices=(HALF, VALID), minimum=0),
        Attribute(
            "size",
            Kind.SHAPE,
            FITTING,
            "spatial size of the output; fitting: the smallest that the windows cover",
            choices=(FITTING,),
        ),
    ),
    outputs=("y",),
    resolve=resolve_max_unpool,
    state=no_state,
    infer=infer_max_unpool,
    window=derived,
    cost=no_contraction,
    kernel=kernel_max_unpool,
    gradient=Derived(search=True),
)

OPERATORS = (MAX_UNPOOL,)
