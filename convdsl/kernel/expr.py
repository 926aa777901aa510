"""Tensor expressions: what each output element of an operator is.

An operator's arithmetic is a `TensorExpr`: stages in order, each defining one tensor as a
scalar expression over index axes. Indices are `Dim`s over the axes' symbols. Reductions
name their axes. Nothing here knows of targets, layouts or threads.

    relu    y[i...]    = max(x[i...], 0)
    conv    y[n,k,p,q] = sum over c,r,s of x[n, c, p*U + r*D - P, ...] * w[k,c,r,s], outside: 0
    softmax three stages: a maximum, a sum of exponentials, a quotient
    gather  y[n,d]     = table[ids[n], d]

Conventions that cost counting and every evaluator share: arithmetic on values counts one each
(a function made of others counts as those, `scalar`), index arithmetic, reads, casts, selects
and literals count nothing, a reduction of n values is n - 1 combinations. Both arms of a
`Select` count as computed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, DType, SymDim, TensorType, substitute, symbol
from convdsl.tensor.records import record


@record
class Axis:
    """An index variable running over 0 .. extent - 1. `name` is unique within an expression."""

    name: str
    extent: Dim

    @property
    def i(self) -> Dim:
        """The axis as an index."""
        maximum = self.extent - 1 if isinstance(self.extent, int) else None
        return symbol(self.name, minimum=0, maximum=maximum)


@record
class TensorVar:
    """A named tensor that an expression reads or defines."""

    name: str
    type: TensorType

    def __getitem__(self, index: Dim | tuple[Dim, ...]) -> Read:
        """`x[n, c, h, w]`: a read that is known to stay inside."""
        return Read(self, index if isinstance(index, tuple) else (index,))

    def at(self, *index: Dim, outside: float | None = None) -> Read:
        """A read that yields `outside` where the index leaves the tensor."""
        return Read(self, index, outside)


class _Arithmetic:
    """Operators for writing expressions; Python numbers become literals of the same dtype."""

    __slots__ = ()

    @property
    def dtype(self) -> DType:
        raise NotImplementedError

    def __add__(self, other: Operand) -> Expr:
        return Binary("add", _expr(self), lift(other, self.dtype))

    def __sub__(self, other: Operand) -> Expr:
        return Binary("sub", _expr(self), lift(other, self.dtype))

    def __mul__(self, other: Operand) -> Expr:
        return Binary("mul", _expr(self), lift(other, self.dtype))

    def __truediv__(self, other: Operand) -> Expr:
        return Binary("div", _expr(self), lift(other, self.dtype))

    def __radd__(self, other: float) -> Expr:
        return Binary("add", lift(other, self.dtype), _expr(self))

    def __rsub__(self, other: float) -> Expr:
        return Binary("sub", lift(other, self.dtype), _expr(self))

    def __rmul__(self, other: float) -> Expr:
        return Binary("mul", lift(other, self.dtype), _expr(self))

    def __rtruediv__(self, other: float) -> Expr:
        return Binary("div", lift(other, self.dtype), _expr(self))

    def __neg__(self) -> Expr:
        return Unary("neg", _expr(self))


@record
class Literal(_Arithmetic):
    """A number of a given type."""

    value: float | int | bool
    type: DType

    @property
    def dtype(self) -> DType:
        return self.type


@record
class Read(_Arithmetic):
    """One element. With `outside` given the index may leave the tensor and yields that value."""

    tensor: TensorVar
    index: tuple[Dim, ...]
    outside: float | None = None

    @property
    def dtype(self) -> DType:
        return self.tensor.type.dtype


@record
class IndexValue(_Arithmetic):
    """An index as a value: positions, bilinear weights, border divisors."""

    index: Dim
    type: DType

    @property
    def dtype(self) -> DType:
        return self.type


@record
class Unary(_Arithmetic):
    """A function of one value, by its name in `scalar.FUNCTIONS`."""

    op: str
    x: Expr

    @property
    def dtype(self) -> DType:
        return FUNCTIONS[self.op].result(self.x.dtype)


@record
class Binary(_Arithmetic):
    """A function of two values of one type, by its name in `scalar.FUNCTIONS`."""

    op: str
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:
        return FUNCTIONS[self.op].result(self.a.dtype)


@record
class Compare(_Arithmetic):
    """A comparison of values: one arithmetic operation, a bool."""

    op: str
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:
        return DType.BOOL


@record
class IndexCompare(_Arithmetic):
    """A comparison of indices: index arithmetic, a bool, free."""

    op: str
    a: Dim
    b: Dim

    @property
    def dtype(self) -> DType:
        return DType.BOOL


@record
class Select(_Arithmetic):
    """`yes` where the condition holds, else `no`. Reads in the arm not taken may be out of range
    only if the condition is an `IndexCompare` (or `and` of them): evaluators guard those."""

    condition: Expr
    yes: Expr
    no: Expr

    @property
    def dtype(self) -> DType:
        return self.yes.dtype


@record
class Cast(_Arithmetic):
    """The value in another element type; of a float the integer towards zero, of a number
    whether it is not zero."""

    x: Expr
    type: DType

    @property
    def dtype(self) -> DType:
        return self.type


@record
class Reduce(_Arithmetic):
    """Combine `body` over all positions of `axes`, which are not empty in any binding, by one of
    `scalar.REDUCTIONS`.

    With `accumulate` each element is cast to that type first, and so is the result of it: i8
    products added up in i64, a long sum of f32 in f64.
    """

    op: str
    axes: tuple[Axis, ...]
    body: Expr
    accumulate: DType | None = None

    @property
    def dtype(self) -> DType:
        return self.accumulate or self.body.dtype


@record
class Pick(_Arithmetic):
    """`body` at the one position of `axis` that a value says: reads whose index is data.

        y[n, d] = table[ids[n], d]      Pick(v < V, ids[n], table[v, d])

    index: an i64, of which -1 is the last position where `from_end` holds. Positions that the
    axis has not yield `outside`; without it, the nearest one is taken. So no read leaves its
    tensor whatever the data. The axis is not empty. The index is index arithmetic: it is free.
    """

    axis: Axis
    index: Expr
    body: Expr
    from_end: bool = False
    outside: float | None = None

    @property
    def dtype(self) -> DType:
        return self.body.dtype


Expr: TypeAlias = (
    Literal
    | Read
    | IndexValue
    | Unary
    | Binary
    | Compare
    | IndexCompare
    | Select
    | Cast
    | Reduce
    | Pick
)
Operand: TypeAlias = "Expr | float"


def _expr(x: _Arithmetic) -> Expr:
    return x  # pyright: ignore[reportReturnType]


def lift(x: Operand, dtype: DType) -> Expr:
    """Python numbers as literals of `dtype`, expressions as they are."""
    return Literal(x, dtype) if isinstance(x, (int, float)) else x


def maximum(a: Expr, b: Operand) -> Expr:
    """max(a, b), which is NaN where either is."""
    return Binary("max", a, lift(b, a.dtype))


def minimum(a: Expr, b: Operand) -> Expr:
    """min(a, b), which is NaN where either is."""
    return Binary("min", a, lift(b, a.dtype))


@record
class Stage:
    """`target[axes] = body`: one tensor, defined element by element."""

    target: TensorVar
    axes: tuple[Axis, ...]
    body: Expr


@record
class TensorExpr:
    """Inputs, stages in order, and which stage targets are the operator's outputs."""

    inputs: tuple[TensorVar, ...]
    stages: tuple[Stage, ...]
    outputs: tuple[str, ...]

    def stage(self, name: str) -> Stage:
        """The stage that defines a tensor."""
        return next(s for s in self.stages if s.target.name == name)

    def __str__(self) -> str:
        return format_tensor_expr(self)


_AXIS_NAMES = {1: "c", 2: "nc", 3: "ncw", 4: "nchw", 5: "ncdhw"}


def axes_over(shape: tuple[Dim, ...]) -> tuple[Axis, ...]:
    """One axis per dimension, named n, c, d, h, w where the rank suggests it."""
    names = _AXIS_NAMES.get(len(shape)) or [f"i{k}" for k in range(len(shape))]
    return tuple(Axis(name, extent) for name, extent in zip(names, shape, strict=True))


def elementwise(
    inputs: tuple[TensorVar, ...], output: TensorType, rule: Callable[..., Expr], name: str = "y"
) -> TensorExpr:
    """A map over the output's shape; operands broadcast as in NumPy."""
    axes = axes_over(output.shape)
    reads = [broadcast_read(x, axes) for x in inputs]
    stage = Stage(TensorVar(name, output), axes, rule(*reads))
    return TensorExpr(inputs, (stage,), (name,))


def broadcast_read(x: TensorVar, axes: tuple[Axis, ...]) -> Read:
    """Read `x` at the output position `axes`, NumPy's way: trailing axes align, 1 repeats."""
    skipped = len(axes) - x.type.rank
    index = tuple(
        0 if extent == 1 else axis.i
        for extent, axis in zip(x.type.shape, axes[skipped:], strict=True)
    )
    return Read(x, index)


def lookup(
    x: TensorVar,
    index: tuple[Dim | Expr, ...],
    *,
    from_end: bool = False,
    outside: float | None = None,
) -> Expr:
    """`x[ids[n], d]`: a read some of whose indices are values. What is said of positions that an
    axis has not holds for each of these (`Pick`)."""
    picks: list[tuple[Axis, Expr]] = []
    at: list[Dim] = []
    for number, (position, extent) in enumerate(zip(index, x.type.shape, strict=True)):
        if isinstance(position, int | SymDim):
            at.append(position)
            continue
        axis = Axis(f"{x.name}_at{number}", extent)
        picks.append((axis, position))
        at.append(axis.i)
    read: Expr = Read(x, tuple(at))
    for axis, position in reversed(picks):
        read = Pick(axis, position, read, from_end, outside)
    return read


# Walking


def children(e: Expr) -> tuple[Expr, ...]:
    """The expressions that an expression is made of."""
    found = _CHILDREN.get(type(e))
    return found(e) if found is not None else ()


_CHILDREN: Mapping[type[Any], Callable[[Any], tuple[Expr, ...]]] = {
    Unary: lambda e: (e.x,),
    Cast: lambda e: (e.x,),
    Binary: lambda e: (e.a, e.b),
    Compare: lambda e: (e.a, e.b),
    Select: lambda e: (e.condition, e.yes, e.no),
    Reduce: lambda e: (e.body,),
    Pick: lambda e: (e.index, e.body),
}
"""By kind, in a table: every schedule walks every expression, and a match asks kind by kind."""


def rebuild(e: Expr, parts: tuple[Expr, ...]) -> Expr:
    """The same node over other children."""
    match e:
        case Unary():
            return Unary(e.op, *parts)
        case Cast():
            return Cast(parts[0], e.type)
        case Binary():
            return Binary(e.op, *parts)
        case Compare():
            return Compare(e.op, *parts)
        case Select():
            return Select(*parts)
        case Reduce():
            return replace(e, body=parts[0])
        case Pick():
            return replace(e, index=parts[0], body=parts[1])
        case _:
            return e


def walk(e: Expr) -> Iterator[Expr]:
    """The expression and all below it."""
    pending = [e]
    while pending:
        found = pending.pop()
        yield found
        pending += reversed(children(found))


def transform(e: Expr, rule: Callable[[Expr], Expr | None]) -> Expr:
    """Rewrite bottom-up; `rule` returns a replacement or None."""
    before = children(e)
    parts = tuple([transform(child, rule) for child in before])
    new = e if all(map(operator.is_, parts, before)) else rebuild(e, parts)
    return rule(new) or new


def reindex(e: Expr, bindings: Mapping[str, Dim]) -> Expr:
    """Substitute axes (and size symbols) by name in every index."""

    def rule(node: Expr) -> Expr | None:
        match node:
            case Read():
                index = tuple(substitute(d, bindings) for d in node.index)
                return Read(node.tensor, index, node.outside)
            case IndexValue():
                return IndexValue(substitute(node.index, bindings), node.type)
            case IndexCompare():
                return IndexCompare(
                    node.op, substitute(node.a, bindings), substitute(node.b, bindings)
                )
            case _:
                return None

    return transform(e, rule)


def indices_of(node: Expr) -> tuple[Dim, ...]:
    """The indices that a node itself holds."""
    match node:
        case Read():
            return node.index
        case IndexValue():
            return (node.index,)
        case IndexCompare():
            return (node.a, node.b)
        case _:
            return ()


def reads(e: Expr) -> Iterator[Read]:
    """All reads in an expression, in order; what stands in it twice comes twice."""
    return (node for node in walk(e) if isinstance(node, Read))


# Counting


def arithmetic(e: Expr) -> Dim:
    """Arithmetic operations to compute one element of `e` (the module's convention)."""
    counted = (e.body,) if isinstance(e, Pick) else children(e)
    below: Dim = sum((arithmetic(child) for child in counted), 0)
    match e:
        case Unary() | Binary() | Compare():
            return below + FUNCTIONS[e.op].operations
        case Reduce():
            positions = positions_of(e.axes)
            return below * positions + positions - 1
        case _:
            return below


def positions_of(axes: Iterable[Axis]) -> Dim:
    """The number of positions that axes have together."""
    total: Dim = 1
    for axis in axes:
        total = total * axis.extent
    return total


def flops(expr: TensorExpr) -> Dim:
    """Arithmetic operations of the whole expression."""
    return sum((arithmetic(s.body) * positions_of(s.axes) for s in expr.stages), 0)


def products(expr: TensorExpr) -> Dim:
    """Multiply-accumulates: products under sums, positions of padding counted as if computed."""
    total: Dim = 0
    for stage in expr.stages:
        for node in walk(stage.body):
            if isinstance(node, Reduce) and node.op == "sum" and _is_product(node.body):
                total = total + positions_of(node.axes) * positions_of(stage.axes)
    return total


def _is_product(e: Expr) -> bool:
    return isinstance(e, Binary) and e.op == "mul"


# Printing


def format_expr(e: Expr) -> str:
    """One line, readable, in the notation of this module's docstring."""
    match e:
        case Literal():
            return str(e.value)
        case Read():
            at = ", ".join(map(str, e.index))
            tail = "" if e.outside is None else f" outside {e.outside}"
            return f"{e.tensor.name}[{at}{tail}]"
        case IndexValue():
            return f"{e.type}({e.index})"
        case Unary():
            return f"{e.op}({format_expr(e.x)})"
        case Binary() | Compare():
            sign = FUNCTIONS[e.op].sign
            if sign is None:
                return f"{e.op}({format_expr(e.a)}, {format_expr(e.b)})"
            return f"({format_expr(e.a)} {sign} {format_expr(e.b)})"
        case IndexCompare():
            return f"({e.a} {FUNCTIONS[e.op].sign} {e.b})"
        case Select():
            parts = (format_expr(p) for p in (e.condition, e.yes, e.no))
            return f"select({', '.join(parts)})"
        case Cast():
            return f"{e.type}({format_expr(e.x)})"
        case Reduce():
            names = ", ".join(f"{a.name} < {a.extent}" for a in e.axes)
            wide = "" if e.accumulate is None else f" in {e.accumulate}"
            return f"{e.op}[{names}{wide}]({format_expr(e.body)})"
        case Pick():
            at = f"{e.axis.name} < {e.axis.extent} at {format_expr(e.index)}"
            ends = " from end" if e.from_end else ""
            tail = "" if e.outside is None else f" outside {e.outside}"
            return f"pick[{at}{ends}{tail}]({format_expr(e.body)})"


def format_tensor_expr(expr: TensorExpr) -> str:
    """Inputs, then what each element of each stage is: `--emit expr`."""
    lines = [f"in  {x.name}: {x.type}" for x in expr.inputs]
    for stage in expr.stages:
        word = "out" if stage.target.name in expr.outputs else "let"
        at = ", ".join(a.name for a in stage.axes)
        lines.append(f"{word} {stage.target.name}: {stage.target.type}")
        lines.append(f"    {stage.target.name}[{at}] = {format_expr(stage.body)}")
    return "\n".join(lines)
