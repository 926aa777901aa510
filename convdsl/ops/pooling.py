"""Pooling: reductions over windows of space, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from convdsl.ir.derivative import derive_call
from convdsl.ir.opdef import (
    DERIVED,
    REQUIRED,
    Attribute,
    Call,
    Derived,
    Kind,
    OpDef,
    Operand,
    OpError,
    Rule,
    WindowRule,
    float_type,
    no_contraction,
    no_state,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.windows import (
    AS_KERNEL,
    GLOBAL,
    PADDINGS,
    VALID,
    before_flat,
    explicit_window,
    resolve_padding,
    resolve_sizes,
    window_extents,
)
from convdsl.ir.winners import Windows, Winners
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Compare,
    Expr,
    IndexCompare,
    IndexValue,
    Literal,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
)
from convdsl.tensor import Dim, DType, TensorType, Window, bounds, dim_max, dim_min

_KERNEL = Attribute(
    "kernel", Kind.SIZES, REQUIRED, "window size, or global", choices=(GLOBAL,), minimum=1
)
_STRIDE = Attribute(
    "stride",
    Kind.SIZES,
    AS_KERNEL,
    "step of the window; the kernel, so that windows tile the input, as PyTorch",
    choices=(AS_KERNEL,),
    minimum=1,
)
_PAD = Attribute(
    "pad",
    Kind.PADDING,
    0,
    "positions around the input; none, as PyTorch",
    choices=PADDINGS,
    minimum=0,
)
_DILATION = Attribute("dilation", Kind.SIZES, 1, "distance between window taps", minimum=1)
_CEIL = Attribute(
    "ceil_mode",
    Kind.BOOL,
    False,
    "round the output size up instead of down; windows that start behind the input are dropped",
)


def resolve_pool(call: Call) -> Mapping[str, Any]:
    """x[N, C, space..], floating; kernel, stride and dilation one number an axis of space, padding
    in pairs. `global` stays. Raises OpError for other ranks, for padding of more than half a
    window, and for global pooling with a stride, padding or dilation."""
    x = call.type("x")
    float_type(call)
    if x.rank < 3:
        raise OpError(
            f"{call.op.name} needs batch, channels and at least one spatial axis, not {x}",
            operands=("x",),
            help=before_flat(x.rank),
        )
    rank = x.rank - 2
    if call["kernel"] == GLOBAL:
        return _resolve_global(call)
    kernel = resolve_sizes(call, "kernel", rank)
    stride = kernel if call["stride"] == AS_KERNEL else resolve_sizes(call, "stride", rank)
    resolved: dict[str, Any] = {**call.attributes, "kernel": kernel, "stride": stride}
    dilation = (1,) * rank
    if "dilation" in call.attributes:
        dilation = resolved["dilation"] = resolve_sizes(call, "dilation", rank)
    resolved["pad"] = padding = resolve_padding(call, kernel, stride, dilation)
    if not isinstance(padding, str):
        _check_padding(Window(kernel, stride, padding, dilation))
    return resolved


def _resolve_global(call: Call) -> Mapping[str, Any]:
    neutral = {"stride": (AS_KERNEL,), "pad": (0, VALID, ((0, 0),)), "dilation": (1, (1,))}
    for name, values in neutral.items():
        if name in call.attributes and call[name] not in values:
            raise OpError(f"global pooling has no {name}", attributes=(name, "kernel"))
    return call.attributes


def _check_padding(window: Window) -> None:
    """Every window must touch the input: padding at most half of it, as PyTorch."""
    for axis, pair in enumerate(window.padding):
        reach = window.extent(axis)
        most = bounds(reach)[1]
        for amount in pair:
            least = bounds(amount)[0]
            if most is not None and least is not None and 2 * least > most:
                raise OpError(
                    f"padding of {amount} is more than half of a window of {reach}",
                    attributes=("pad", "kernel"),
                )


def window_pool(call: Call) -> Window:
    """The call's window; global pooling has one as large as space."""
    if call["kernel"] != GLOBAL:
        return explicit_window(call)
    space = call.type("x").shape[2:]
    rank = len(space)
    return Window(space, (1,) * rank, ((0, 0),) * rank, (1,) * rank)


def field_pool(call: Call) -> WindowRule:
    """The window."""
    return window_pool(call)


def extents_pool(call: Call) -> tuple[Dim, ...]:
    """How many windows there are along each axis of space. Raises OpError where none fits."""
    if call["kernel"] == GLOBAL:
        return (1,) * (call.type("x").rank - 2)
    return window_extents(call, window_pool(call), ceil=call["ceil_mode"])


def infer_pool(call: Call) -> tuple[TensorType, ...]:
    """y[N, C, windows..]"""
    x = call.type("x")
    return (TensorType(x.dtype, (*x.shape[:2], *extents_pool(call))),)


@dataclass(frozen=True)
class _Grid:
    """Axes of one pooling: the output's n, c, p..., the window's r..., and where they read."""

    output: tuple[Axis, ...]
    taps: tuple[Axis, ...]
    starts: tuple[Dim, ...]
    at: tuple[Dim, ...]

    def read(self, x: TensorVar, outside: float | None) -> Read:
        n, c = self.output[:2]
        return Read(x, (n.i, c.i, *self.at), outside)


def _grid(call: Call) -> _Grid:
    window, shape = window_pool(call), call.outputs[0].shape
    n, c = Axis("n", shape[0]), Axis("c", shape[1])
    positions = tuple(Axis(f"p{i}", extent) for i, extent in enumerate(shape[2:]))
    taps = tuple(Axis(f"r{i}", extent) for i, extent in enumerate(window.kernel))
    starts = tuple(p.i * window.stride[i] - window.padding[i][0] for i, p in enumerate(positions))
    at = tuple(start + taps[i].i * window.dilation[i] for i, start in enumerate(starts))
    return _Grid((n, c, *positions), taps, starts, at)


def _leaves(call: Call) -> bool:
    """Whether a window may read outside the input."""
    padded = any(pair != (0, 0) for pair in window_pool(call).padding)
    return padded or (call["kernel"] != GLOBAL and call["ceil_mode"])


def kernel_max_pool(call: Call) -> TensorExpr:
    """y[n,c,p..] = max over r.. of x[n, c, p*U + r*D - P ..], outside: -inf"""
    grid, x = _grid(call), call.var("x")
    outside = -float("inf") if _leaves(call) else None
    body = Reduce("max", grid.taps, grid.read(x, outside))
    stage = Stage(TensorVar("y", call.outputs[0]), grid.output, body)
    return TensorExpr((x,), (stage,), ("y",))


def windows_max_pool(call: Call) -> Windows:
    """The windows of a call, and which of their positions lie in x."""
    grid, space = _grid(call), call.type("x").shape[2:]
    inside: list[IndexCompare] = []
    if _leaves(call):
        for at, extent in zip(grid.at, space, strict=True):
            inside += [IndexCompare("ge", at, 0), IndexCompare("lt", at, extent)]
    outside = -float("inf") if inside else None
    return Windows(grid.output, grid.taps, grid.read(call.var("x"), outside), tuple(inside))


def kernel_avg_pool(call: Call) -> TensorExpr:
    """y[n,c,p..] = sum over r.. of x[n, c, p*U + r - P ..], outside: 0, by the positions counted"""
    grid, x = _grid(call), call.var("x")
    total = Reduce("sum", grid.taps, grid.read(x, 0.0 if _leaves(call) else None))
    body = total / divisor(call, grid.starts, x.type.dtype)
    stage = Stage(TensorVar("y", call.outputs[0]), grid.output, body)
    return TensorExpr((x,), (stage,), ("y",))


def kernel_lp_pool(call: Call) -> TensorExpr:
    """y[n,c,p..] = (sum over r.. of |x[n, c, p*U + r*D - P ..]|^order)^(1/order), outside: 0"""
    grid, x, order = _grid(call), call.var("x"), call["order"]
    size = Unary("abs", grid.read(x, 0.0 if _leaves(call) else None))
    exponent = Literal(order, x.type.dtype)
    total = Reduce("sum", grid.taps, size if order == 1 else Binary("pow", size, exponent))
    body = total if order == 1 else Binary("pow", total, Literal(1 / order, x.type.dtype))
    stage = Stage(TensorVar("y", call.outputs[0]), grid.output, body)
    return TensorExpr((x,), (stage,), ("y",))


def infer_max_pool_with_positions(call: Call) -> tuple[TensorType, ...]:
    """y and positions, i64, of shape [N, C, windows..] both."""
    (y,) = infer_pool(call)
    return (y, TensorType(DType.I64, y.shape))


def _place(grid: _Grid, space: tuple[Dim, ...]) -> IndexValue:
    """The row-major place of a tap in the input's space."""
    place: Dim = 0
    for at, extent in zip(grid.at, space, strict=True):
        place = place * extent + at
    return IndexValue(place, DType.I64)


def kernel_max_pool_with_positions(call: Call) -> TensorExpr:
    """y as of max_pool; positions[n,c,p..] = min over r.. of the row-major place in the input's
    space of those x that equal y"""
    grid, x, space = _grid(call), call.var("x"), call.type("x").shape[2:]
    (pooled,) = kernel_max_pool(call).stages
    value = grid.read(x, None)
    largest = Read(pooled.target, tuple(axis.i for axis in grid.output))
    is_it = Binary("or", Compare("eq", value, largest), Unary("isnan", value))
    behind: Dim = 1
    for extent in space:
        behind = behind * extent
    nothing = IndexValue(behind, DType.I64)
    candidate: Expr = Select(is_it, _place(grid, space), nothing)
    candidate = windows_max_pool(call).guarded(candidate, nothing)
    body = Reduce("min", grid.taps, candidate)
    stage = Stage(TensorVar("positions", call.outputs[1]), grid.output, body)
    return TensorExpr((x,), (pooled, stage), ("y", "positions"))


def kernel_picked(call: Call) -> TensorExpr:
    """y[n,c,p..] = sum over r.. of (x at the tap where positions[n,c,p..] is its place, else 0)"""
    windows, grid, positions = windows_max_pool(call), _grid(call), call.var("positions")
    number = Read(positions, tuple(axis.i for axis in grid.output))
    is_it = Compare("eq", number, _place(grid, call.type("x").shape[2:]))
    nothing = Literal(0.0, windows.read.dtype)
    value = windows.guarded(Select(is_it, windows.read, nothing), nothing)
    y = Stage(TensorVar("y", call.outputs[0]), grid.output, Reduce("sum", grid.taps, value))
    return TensorExpr((call.var("x"), positions), (y,), ("y",))


def gradient_max_pool_with_positions(p: Pullback) -> Gradients:
    """Back to the positions that were put out."""
    positions, attributes = p.node.outputs[1], p.node.attributes
    call = _PICKED.call({"x": p.operand("x").type, "positions": positions.type}, attributes)
    return {"x": derive_call(p.build, call, {"positions": positions}, {"dy": p.dy}, "x")}


def divisor(call: Call, starts: tuple[Dim, ...], dtype: DType) -> Expr:
    """How many positions a window averages over.

    With count_include_pad the padding counts, but not what ceil_mode reaches behind it;
    without, only positions of the input count.
    """
    window, space = window_pool(call), call.type("x").shape[2:]
    count: Dim = 1
    for axis, start in enumerate(starts):
        stop, (_, after) = start + window.kernel[axis], window.padding[axis]
        if call["kernel"] == GLOBAL or (call["count_include_pad"] and not call["ceil_mode"]):
            count = count * window.kernel[axis]
        elif call["count_include_pad"]:
            count = count * (dim_min(stop, space[axis] + after) - start)
        else:
            count = count * (dim_min(stop, space[axis]) - dim_max(start, 0))
    return Literal(count, dtype) if isinstance(count, int) else IndexValue(count, dtype)


MAX_POOL = OpDef(
    name="max_pool",
    aliases=("maxpool",),
    doc="The largest value of each window; positions outside the input never win.",
    operands=(Operand("x"),),
    attributes=(_KERNEL, _STRIDE, _PAD, _DILATION, _CEIL),
    outputs=("y",),
    resolve=resolve_pool,
    state=no_state,
    infer=infer_pool,
    window=field_pool,
    cost=no_contraction,
    kernel=kernel_max_pool,
    gradient=Rule(Winners(windows_max_pool).gradient, "by recorded positions"),
)

MAX_POOL_WITH_POSITIONS = OpDef(
    name="max_pool_with_positions",
    aliases=(),
    doc="""The largest value of each window, and where it was found, for max_unpool.

    Positions count through the input's space in row-major order, as PyTorch's; of equal
    values the first.""",
    operands=(Operand("x"),),
    attributes=(_KERNEL, _STRIDE, _PAD, _DILATION, _CEIL),
    outputs=("y", "positions"),
    resolve=resolve_pool,
    state=no_state,
    infer=infer_max_pool_with_positions,
    window=field_pool,
    cost=no_contraction,
    kernel=kernel_max_pool_with_positions,
    gradient=Rule(gradient_max_pool_with_positions, "by the positions that it puts out"),
)

_PICKED = replace(
    MAX_POOL,
    name="max_pool_with_positions.picked",
    aliases=(),
    operands=(Operand("x"), Operand("positions")),
    kernel=kernel_picked,
    gradient=DERIVED,
)

LP_POOL = OpDef(
    name="lp_pool",
    aliases=("lppool",),
    doc="The p-norm of each window: order 1 sums magnitudes, order 2 is Euclidean.",
    operands=(Operand("x"),),
    attributes=(
        _KERNEL,
        _STRIDE,
        _PAD,
        _DILATION,
        _CEIL,
        Attribute("order", Kind.INT, 2, "p; Euclidean, as ONNX", minimum=1),
    ),
    outputs=("y",),
    resolve=resolve_pool,
    state=no_state,
    infer=infer_pool,
    window=field_pool,
    cost=no_contraction,
    kernel=kernel_lp_pool,
    gradient=Derived(flat_roots=True),
)

AVG_POOL = OpDef(
    name="avg_pool",
    aliases=("avgpool",),
    doc="The mean of each window.",
    operands=(Operand("x"),),
    attributes=(
        _KERNEL,
        _STRIDE,
        _PAD,
        _CEIL,
        Attribute("count_include_pad", Kind.BOOL, True, "padding counts into the mean, as PyTorch"),
    ),
    outputs=("y",),
    resolve=resolve_pool,
    state=no_state,
    infer=infer_pool,
    window=field_pool,
    cost=no_contraction,
    kernel=kernel_avg_pool,
    gradient=DERIVED,
)

OPERATORS = (MAX_POOL, MAX_POOL_WITH_POSITIONS, AVG_POOL, LP_POOL)
