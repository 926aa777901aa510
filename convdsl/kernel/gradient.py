"""Reverse-mode differentiation of tensor expressions: what operators' gradients are derived by.

From y = f(x, ...) and what a result L changes by with each element of y, `dy`, comes the
expression of dx, stage by stage from the last to the first:

    y[i] = f(reads)           g_read = dy[i] * df/dread      derivatives stand with scalar functions
    y[i] = sum over r of f    the same, for every r
    y[i] = max over r of f    to one position: the first of equals
    y[i] = prod over r of f   dy[i] times the product of the others
    select(c, a, b)           a select again, never a mask times a gradient
    x[phi(i, r)] read         dx[j] = sum over (i, r) with phi(i, r) = j     (`preimage`)
    x[ids[i]] read            dx[j] = sum over i of select(ids[i] = j, ..)   (`scatter`)
    y[j] = such a sum         dy[ids[i]] read, where there is such a j

What the forward pass computed on the way is computed again where it is needed. At kinks the
derivative of the scalar function holds: relu has 0 at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from convdsl.kernel.derivatives import Flows
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Compare,
    Expr,
    IndexCompare,
    IndexValue,
    Literal,
    Pick,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    positions_of,
    reads,
    reindex,
    transform,
    walk,
)
from convdsl.kernel.outline import outlined
from convdsl.kernel.preimage import Preimage, Unsolved, Within, preimage
from convdsl.kernel.scatter import match_scatter
from convdsl.tensor import Dim, DType, TensorType, bounds

__all__ = ["Unsolved", "gradient"]


@dataclass(frozen=True, slots=True)
class _Term:
    """One summand of a gradient: for all positions of `axes`, `value` flows to `index`."""

    index: tuple[Dim, ...]
    axes: tuple[Axis, ...]
    value: Expr


def gradient(
    expr: TensorExpr,
    operand: str,
    cotangents: Mapping[str, TensorVar],
    *,
    search: bool = False,
    flat_roots: bool = False,
) -> TensorExpr | None:
    """The gradient of `operand`, as an expression with the one output `d<operand>`, from those of
    outputs, by their names; None where it is zero whatever they are.

    search: positions along axes whose indices cannot be solved are tried one by one.
    flat_roots: the derivative of a root at zero counts as zero, as in norms.

    Raises Unsolved where an index cannot be solved, and NotImplementedError where a function or a
    reduction has no derivative.
    """
    stages = outlined(expr)
    wanted = next(x for x in expr.inputs if x.name == operand)
    taken = {x.name for x in (*expr.inputs, *cotangents.values())}
    sweep = _Sweep(_Names(taken | {s.target.name for s in stages}), search=search)
    flows = Flows(_active(stages, operand), flat_roots)
    for stage in reversed(stages):
        if stage.target.name in flows.active:
            dy = sweep.cotangent(stage, cotangents.get(stage.target.name))
            if dy is not None:
                sweep.differentiate(stage, dy, flows)
    result = TensorVar(f"d{operand}", wanted.type)
    if not sweep.gather(operand, result, ()):
        return None
    needed = _needed((*stages, *sweep.made), result.name)
    read = {r.tensor.name for stage in needed for r in reads(stage.body)}
    inputs = tuple(x for x in (*expr.inputs, *cotangents.values()) if x.name in read)
    return TensorExpr(inputs, needed, (result.name,))


def _active(stages: Sequence[Stage], operand: str) -> frozenset[str]:
    """The tensors that change smoothly with an operand, itself included."""
    active = {operand}
    for stage in stages:
        body = stage.body.body if isinstance(stage.body, Reduce) else stage.body
        smooth = stage.target.type.dtype.is_float
        if smooth and Flows(frozenset(active), flat_roots=False).reaches(body):
            active.add(stage.target.name)
    return frozenset(active)


def _needed(stages: Sequence[Stage], result: str) -> tuple[Stage, ...]:
    """The stages that a result is computed from, in order."""
    wanted = {result}
    kept: list[Stage] = []
    for stage in reversed(stages):
        if stage.target.name in wanted:
            kept.insert(0, stage)
            wanted |= {r.tensor.name for r in reads(stage.body)}
    return tuple(kept)


class _Names:
    """Names for stages and axes that nothing has."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._count = count()

    def tensor(self, wanted: str) -> str:
        found = wanted
        while found in self._taken:
            found += "_"
        self._taken.add(found)
        return found

    def axes(self, stages: Sequence[Stage]) -> Callable[[], str]:
        """Names of axes that no axis of the stages has, one after the other."""
        used = {a.name for s in stages for a in s.axes}
        for e in (e for s in stages for e in walk(s.body)):
            if isinstance(e, Reduce):
                used |= {a.name for a in e.axes}
            elif isinstance(e, Pick):
                used.add(e.axis.name)
        prefix = "j"
        while any(name.startswith(prefix) for name in used):
            prefix += "j"
        numbers = count()
        return lambda: f"{prefix}{next(numbers)}"


@dataclass
class _Sweep:
    """The gradients collected so far, by the tensors that they belong to."""

    names: _Names
    search: bool
    made: list[Stage] = field(default_factory=list[Stage])
    terms: dict[str, list[tuple[Stage, _Term]]] = field(
        default_factory=dict[str, "list[tuple[Stage, _Term]]"]
    )

    def cotangent(self, stage: Stage, given: TensorVar | None) -> Read | None:
        """The gradient of a stage's values, at its own position; None where nothing reads them."""
        name = stage.target.name
        at = tuple(axis.i for axis in stage.axes)
        if name not in self.terms:
            return None if given is None else Read(given, at)
        target = TensorVar(self.names.tensor(f"d{name}"), stage.target.type)
        self.gather(name, target, () if given is None else (given,))
        passed = _passed_on(self.made[-1])
        if passed is None:
            return Read(target, at)
        self.made.pop()
        return Read(passed, at)

    # Into the reads of a stage

    def differentiate(self, stage: Stage, dy: Read, flows: Flows) -> None:
        """What flows from a stage into what it reads."""
        body = stage.body
        axes = stage.axes
        inner: Expr = body
        g: Expr = dy
        chosen = None
        scattered = match_scatter(body)
        if isinstance(body, Reduce) and scattered is not None and scattered.op == "sum":
            place = next(axis for axis in axes if axis.name == scattered.place)
            axes = (*(axis for axis in axes if axis is not place), *body.axes)
            inner, g = scattered.value, Pick(place, scattered.index, dy, outside=0.0)
        elif isinstance(body, Reduce):
            axes = (*axes, *body.axes)
            inner = body.body
            g, chosen = self._into_reduction(stage, body, dy)
        for flow in flows.into(inner, g):
            value = flow.value
            if chosen is not None:
                value = Select(chosen, value, Literal(0.0, value.dtype))
            term = _Term(flow.read.index, (*axes, *flow.picked), value)
            self.terms.setdefault(flow.read.tensor.name, []).append((stage, term))

    def _into_reduction(self, stage: Stage, body: Reduce, dy: Read) -> tuple[Expr, Expr | None]:
        """(the gradient of each value that is combined, where it flows at all)"""
        if body.accumulate is not None and body.op != "sum":
            raise NotImplementedError(f"{body.op} in {body.accumulate} has no derivative")
        match body.op:
            case "sum":
                own = body.body.dtype
                return (dy if own is dy.dtype else Cast(dy, own)), None
            case "max" | "min":
                return dy, self._is_winner(stage, body)
            case "prod":
                return dy * self._others(stage, body), None
            case _:
                raise NotImplementedError(f"{body.op} has no derivative")

    def _is_winner(self, stage: Stage, body: Reduce) -> Expr:
        """Whether a value is the first that equals the largest, or smallest; a NaN is."""
        place: Dim = 0
        for axis in body.axes:
            place = place * axis.extent + axis.i
        at = tuple(axis.i for axis in stage.axes)
        value = body.body
        is_it = Compare("eq", value, Read(stage.target, at))
        is_it = Binary("or", is_it, Unary("isnan", value)) if value.dtype.is_float else is_it
        behind = IndexValue(positions_of(body.axes), DType.I64)
        candidate = Select(is_it, IndexValue(place, DType.I64), behind)
        type = TensorType(DType.I64, stage.target.type.shape)
        winner = TensorVar(self.names.tensor(f"{stage.target.name}_winner"), type)
        self.made.append(Stage(winner, stage.axes, Reduce("min", body.axes, candidate)))
        return Compare("eq", Read(winner, at), IndexValue(place, DType.I64))

    def _others(self, stage: Stage, body: Reduce) -> Expr:
        """The product of all values but the one at hand."""
        names = self.names.axes((stage,))
        others = tuple(Axis(names(), axis.extent) for axis in body.axes)
        there = {a.name: b.i for a, b in zip(body.axes, others, strict=True)}
        own: Expr = IndexCompare("eq", others[0].i, body.axes[0].i)
        for a, b in zip(body.axes[1:], others[1:], strict=True):
            own = Binary("and", own, IndexCompare("eq", b.i, a.i))
        factor = Select(own, Literal(1.0, body.dtype), reindex(body.body, there))
        axes = (*stage.axes, *body.axes)
        type = TensorType(body.dtype, tuple(axis.extent for axis in axes))
        target = TensorVar(self.names.tensor(f"{stage.target.name}_others"), type)
        self.made.append(Stage(target, axes, Reduce("prod", others, factor)))
        return Read(target, tuple(axis.i for axis in axes))

    # Gathered from all who read

    def gather(self, name: str, target: TensorVar, given: tuple[TensorVar, ...]) -> bool:
        """Make the stages that compute `target`: all that flowed to a tensor, and `given`. False
        where there is nothing."""
        terms = _merged(self.terms.pop(name, []))
        if not terms and not given:
            return False
        names = self.names.axes([stage for stage, _ in terms])
        axes = tuple(Axis(names(), extent) for extent in target.type.shape)
        at = tuple(axis.i for axis in axes)
        parts: list[Expr] = [Read(x, at) for x in given]
        for _, term in terms:
            found = preimage(term.index, axes, term.axes, names, search=self.search)
            parts.append(_summed(term, found))
        if len(parts) > 1:
            parts = [self._part(part, target, axes) for part in parts]
        body = parts[0]
        for part in parts[1:]:
            body = body + part
        self.made.append(Stage(target, axes, body))
        return True

    def _part(self, part: Expr, target: TensorVar, axes: tuple[Axis, ...]) -> Expr:
        """A sum as a stage of its own, where several are added."""
        if not isinstance(part, Reduce):
            return part
        own = TensorVar(self.names.tensor(f"{target.name}_part"), target.type)
        self.made.append(Stage(own, axes, part))
        return Read(own, tuple(axis.i for axis in axes))


def _passed_on(stage: Stage) -> TensorVar | None:
    """What a stage gives back as it is: then it need not be."""
    body = stage.body
    if not isinstance(body, Read) or body.tensor.type != stage.target.type:
        return None
    own = (a.extent == 1 or d == a.i for d, a in zip(body.index, stage.axes, strict=True))
    return body.tensor if all(own) else None


def _merged(terms: Sequence[tuple[Stage, _Term]]) -> list[tuple[Stage, _Term]]:
    """Terms of one stage that flow to the same places as one."""
    found: dict[tuple[str, tuple[Dim, ...]], tuple[Stage, _Term]] = {}
    for stage, term in terms:
        key = stage.target.name, term.index
        if key in found:
            term = replace(term, value=_added(found[key][1].value, term.value))
        found[key] = stage, term
    return list(found.values())


def _added(a: Expr, b: Expr) -> Expr:
    """a + b; under one condition where both are zero but for that."""
    match a, b:
        case Select(test, yes, Literal(0)), Select(other, also, Literal(0)) if test == other:
            return Select(test, _added(yes, also), Literal(0.0, yes.dtype))
        case _:
            return a + b


def _summed(term: _Term, found: Preimage) -> Expr:
    """The sum over all positions that a term flows from."""
    value = _guarded(reindex(term.value, found.values), found.within)
    for condition in found.conditions:
        value = Select(condition, value, Literal(0.0, value.dtype))
    return Reduce("sum", tuple(found.free), value) if found.free else value


def _guarded(value: Expr, within: Sequence[Within]) -> Expr:
    """The value where ranges are kept to, else 0.

    In a product of elements, one that is read at such a place itself is zero outside; then so is
    the product. Schedules know products in this form.
    """
    outside = [w for w in within if not (_is_product(value) and _covers(value, w))]
    if len(outside) < len(within):
        value = transform(value, _zero_outside)
    for w in outside:
        for comparison in w.comparisons:
            value = Select(comparison, value, Literal(0.0, value.dtype))
    return value


def _is_product(e: Expr) -> bool:
    match e:
        case Binary("mul", a, b):
            return _is_product(a) and _is_product(b)
        case Read():
            return e.outside is None or e.outside == 0
        case _:
            return False


def _covers(value: Expr, within: Within) -> bool:
    """Whether an element is read at a place that has to be within, along such an axis."""
    return any(
        place == within.index and extent == within.extent
        for read in reads(value)
        for place, extent in zip(read.index, read.tensor.type.shape, strict=True)
    )


def _zero_outside(e: Expr) -> Expr | None:
    """A read that may leave its tensor, yielding 0 there."""
    if not isinstance(e, Read) or e.outside is not None:
        return None
    if all(map(_stays, e.index, e.tensor.type.shape)):
        return None
    return replace(e, outside=0.0)


def _stays(place: Dim, extent: Dim) -> bool:
    low, _ = bounds(place)
    rest, _ = bounds(extent - 1 - place)
    return low is not None and low >= 0 and rest is not None and rest >= 0
