"""Sums of products over named axes, in Einstein's notation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from convdsl.ir.derivative import derive_call
from convdsl.ir.opdef import (
    DERIVED,
    REQUIRED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Rule,
    contraction,
    derived,
    no_state,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import disagreement
from convdsl.kernel.expr import Axis, Expr, Read, Reduce, Stage, TensorExpr, TensorVar, axes_over
from convdsl.tensor import Dim, DType, TensorType

_TERM = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")

MOST_OPERANDS = 16
"""Each further one is a stage of its own, over as many axes as it has names."""


@dataclass(frozen=True, slots=True)
class Names:
    """The axes' names of every operand and of the result. What dots stand for is counted from the
    last one: `...` of two axes is `1`, `0`."""

    operands: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]


def named(call: Call) -> Names:
    """Raises OpError for equations that are none, or do not fit the operands' ranks."""
    given, arrow, result = str(call["equation"]).replace(" ", "").partition("->")
    terms, operands = given.split(","), call.variadic("x")
    if len(terms) != len(operands):
        one = "operand" if len(terms) == 1 else "operands"
        raise _objection(f"names {len(terms)} {one}, and there are {len(operands)}", _commas(call))
    ranks = [call.type(name).rank for name in operands]
    parts = tuple(_term(term, rank) for term, rank in zip(terms, ranks, strict=True))
    counts = Counter(name for part in parts for name in part)
    dotted = sorted((name for name in counts if name.isdigit()), key=int, reverse=True)
    if not arrow:
        once = sorted(name for name, count in counts.items() if count == 1 and name.isalpha())
        return Names(parts, (*dotted, *once))
    names = _term(result, len(result.replace("...", "")) + len(dotted) * ("..." in result))
    unknown = [name for name in names if name not in counts]
    if unknown or len(set(names)) < len(names):
        word = f"{unknown[0]} is no operand's" if unknown else "an axis comes twice"
        raise _objection(f"has no result {result}: {word}")
    return Names(parts, names)


def _term(text: str, rank: int) -> tuple[str, ...]:
    if not _TERM.fullmatch(text):
        raise _objection(f"has {text}, which are no letters and at most one ...")
    before, dots, after = text.partition("...")
    hidden = rank - len(before) - len(after)
    if hidden < 0 or (hidden and not dots):
        said = f"names {len(before + after)} axes by {text} of a tensor that has {rank}"
        words = ("each letter names an axis, words do not: bhid",)
        raise _objection(said, words if len(before + after) > 2 * rank else ())
    return (*before, *(str(k) for k in range(hidden - 1, -1, -1)), *after)


def _objection(what: str, help: tuple[str, ...] = ()) -> OpError:
    return OpError(f"the equation {what}", attributes=("equation",), help=help)


def _commas(call: Call) -> tuple[str, ...]:
    """Help where blanks stand between the names of operands, and no commas."""
    given, arrow, result = str(call["equation"]).partition("->")
    words = given.split()
    if "," in given or len(words) != len(call.variadic("x")):
        return ()
    return (f"commas stand between operands: {','.join(words)}{arrow}{result.strip()}",)


def _extents(call: Call, names: Names) -> dict[str, Dim]:
    """Extents by name; an extent of 1 repeats. Raises OpError where others differ."""
    extents: dict[str, Dim] = {}
    for operand, part in zip(call.variadic("x"), names.operands, strict=True):
        for name, extent in zip(part, call.type(operand).shape, strict=True):
            known = extents.get(name, 1)
            if known != extent and 1 not in (known, extent):
                what = f"axis {name} of {call['equation']}"
                raise disagreement(what, known, extent, (operand,))
            extents[name] = extent if known == 1 else known
    return extents


def resolve_einsum(call: Call) -> Mapping[str, Any]:
    """Numbers of one dtype. The equation says its result, without spaces."""
    names = call.variadic("x")
    if len(names) > MOST_OPERANDS:
        raise OpError(f"{len(names):,} operands; at most {MOST_OPERANDS} make sense")
    first = call.type(names[0])
    for name in names:
        dtype = call.type(name).dtype
        if dtype is DType.BOOL or dtype is not first.dtype:
            message = f"cannot multiply {first} and {call.type(name)}: their dtypes differ"
            if dtype is DType.BOOL:
                message = f"einsum needs numbers, not {dtype}"
            raise OpError(message, operands=(names[0], name))
    found = named(call)
    text = str(call["equation"]).replace(" ", "")
    if "->" not in text:
        dots = "..." if any(name.isdigit() for name in found.result) else ""
        text = f"{text}->{dots}{''.join(n for n in found.result if n.isalpha())}"
    return {**call.attributes, "equation": text}


def infer_einsum(call: Call) -> tuple[TensorType, ...]:
    """y, its axes as the equation orders them. Raises OpError where extents differ."""
    names = named(call)
    extents = _extents(call, names)
    return (TensorType(call.type("x0").dtype, tuple(extents[name] for name in names.result)),)


@dataclass(frozen=True, slots=True)
class _Factor:
    """A tensor and its axes' names; twice the same name is a diagonal."""

    tensor: TensorVar
    names: tuple[str, ...]

    def at(self, axes: Mapping[str, Axis]) -> Expr:
        shape = self.tensor.type.shape
        index = (
            0 if extent == 1 else axes[name].i
            for name, extent in zip(self.names, shape, strict=True)
        )
        return Read(self.tensor, tuple(index))


def kernel_einsum(call: Call) -> TensorExpr:
    """Products of two from the left: z = sum over what nobody needs any more of x * y

    Before, each operand is summed over the axes that are its alone."""
    names, (out,) = named(call), call.outputs
    extents = _extents(call, names)
    inputs = tuple(call.var(name) for name in call.variadic("x"))
    stages: list[Stage] = []

    def combined(factors: Sequence[_Factor], kept: Sequence[str], target: TensorVar) -> _Factor:
        axes = dict(zip(kept, axes_over(target.type.shape), strict=True))
        own = dict.fromkeys(name for factor in factors for name in factor.names)
        summed = {n: Axis(f"k{k}", extents[n]) for k, n in enumerate(own) if n not in axes}
        reads = [factor.at({**axes, **summed}) for factor in factors]
        body = reads[0] if len(reads) == 1 else reads[0] * reads[1]
        if summed:
            body = Reduce("sum", tuple(summed.values()), body)
        stages.append(Stage(target, tuple(axes.values()), body))
        return _Factor(target, tuple(kept))

    def part(factors: Sequence[_Factor], needed: Collection[str]) -> _Factor:
        own = dict.fromkeys(name for factor in factors for name in factor.names)
        kept = [name for name in own if name in needed]
        shape = tuple(_extent(factors, name) for name in kept)
        target = TensorVar(f"part{len(stages)}", TensorType(out.dtype, shape))
        return combined(factors, kept, target)

    waiting = [_Factor(x, own) for x, own in zip(inputs, names.operands, strict=True)]
    if len(waiting) > 1:
        for place, factor in enumerate(waiting):
            others = {n for k, f in enumerate(waiting) if k != place for n in f.names}
            needed = others | {*names.result}
            if set(factor.names) - needed:
                waiting[place] = part([factor], needed)
    while len(waiting) > 2:
        left, right, *rest = waiting
        needed = {*names.result, *(n for factor in rest for n in factor.names)}
        waiting = [part([left, right], needed), *rest]
    combined(waiting, names.result, TensorVar("y", out))
    return TensorExpr(inputs, tuple(stages), ("y",))


def _extent(factors: Sequence[_Factor], name: str) -> Dim:
    """How far a name goes in these tensors: 1 where it repeats in all."""
    own = (
        extent
        for factor in factors
        for n, extent in zip(factor.names, factor.tensor.type.shape, strict=True)
        if n == name
    )
    return next((extent for extent in own if extent != 1), 1)


@cache
def _of(count: int) -> OpDef:
    """The operator of so many operands, of which each has a name: its gradients are derived."""
    operands = tuple(Operand(f"x{k}") for k in range(count))
    return replace(EINSUM, name=f"einsum.of_{count}", operands=operands, gradient=DERIVED)


def gradient_einsum(p: Pullback) -> Gradients:
    """Products of dy and the others, summed over what the operand has not; from the arithmetic."""
    names = p.node.call.variadic("x")
    values = {name: p.operand(name) for name in names}
    types = {name: value.type for name, value in values.items()}
    call = _of(len(names)).call(types, p.node.attributes)
    return {
        name: derive_call(p.build, call, values, {"dy": p.dy}, name)
        for name in names
        if name in p.wanted
    }


EINSUM = OpDef(
    name="einsum",
    aliases=(),
    doc="""Products of tensors, summed over the axes that the equation does not keep.

    `einsum(q, k, "bhid,bhjd->bhij")` are the scores of attention. A letter names an axis, twice the
    same one in an operand is a diagonal, `...` are axes that broadcast; without an arrow what comes
    once is kept, in the order of the alphabet.""",
    operands=(Operand("x", variadic=True),),
    attributes=(Attribute("equation", Kind.STRING, REQUIRED, "names of axes, as NumPy's"),),
    outputs=("y",),
    resolve=resolve_einsum,
    state=no_state,
    infer=infer_einsum,
    window=derived,
    cost=contraction,
    kernel=kernel_einsum,
    gradient=Rule(gradient_einsum, "derived for each number of operands"),
)

OPERATORS = (EINSUM,)
