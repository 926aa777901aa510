"""Tensor expressions as loops for people: what is computed, before anything decides how.

    conv1[n, k, h, w], f32[1, 8, 6, 6]
        for n in range(1):
            for k in range(8):
                ...
                s = 0
                for c in range(3):
                    s += x[n, c, ...] * weight[k, c, ...]
                conv1[n, k, h, w] = s + bias[k]

No tiles, no vectors, no threads, no layouts: `--emit loops` shows those. Read as Python it computes
the values, where `x[i outside 0.0]` is 0.0 at positions that x does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from convdsl.kernel.expr import (
    Axis,
    Expr,
    Read,
    Reduce,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    children,
    format_expr,
    rebuild,
    transform,
)
from convdsl.tensor import TensorType

STARTS = {"sum": "0", "prod": "1", "max": "-inf", "min": "inf"}
"""What a reduction begins with."""

_STEP = "    "


def format_plain(expr: TensorExpr, names: Mapping[str, str], flowing: Collection[str] = ()) -> str:
    """The loops of an operator; `names` are what its operands and outputs are called here, and
    `flowing` the operands that come out of others, not of the weights."""
    lines: list[str] = []
    for stage in expr.stages:
        target = names.get(stage.target.name, stage.target.name)
        at = ", ".join(axis.name for axis in stage.axes)
        lines.append(f"{target}[{at}], {stage.target.type}")
        lines += _Nest(names, flowing).stage(stage, target, at)
    return "\n".join(lines)


class _Nest:
    """The loops of one stage; sums get names of their own."""

    def __init__(self, names: Mapping[str, str], flowing: Collection[str]) -> None:
        self._names = names
        self._flowing = flowing
        self._batch: Axis | None = None
        self._sums = 0

    def stage(self, stage: Stage, target: str, at: str) -> Iterator[str]:
        indent = _STEP
        self._batch = next((axis for axis in stage.axes[:1] if axis.extent == 1), None)
        for axis in stage.axes:
            yield _for(axis, indent)
            indent += _STEP
        before, value = self._value(transform(stage.body, self._renamed), indent)
        yield from before
        yield from _folded(f"{indent}{target}[{at}] = ", value)

    def _renamed(self, node: Expr) -> Expr | None:
        if isinstance(node, Unary) and node.op == "decay":
            return replace(node, op="exp")  # how it is computed is no matter of the formula
        if not isinstance(node, Read) or node.tensor.name not in self._names:
            return None
        named = TensorVar(self._names[node.tensor.name], node.tensor.type)
        index = node.index
        batched = node.tensor.name in self._flowing and node.tensor.type.shape[:1] == (1,)
        if batched and self._batch is not None and index[0] == 0:
            index = (self._batch.i, *index[1:])  # of one sample, as of any number
        return replace(node, tensor=named, index=index)

    def _value(self, body: Expr, indent: str) -> tuple[list[str], str]:
        """The loops that have to run before an expression, and the expression without them."""
        lines: list[str] = []

        def apart(node: Reduce) -> Expr:
            self._sums += 1
            name = "s" if self._sums == 1 else f"s{self._sums}"
            deeper = indent
            lines.append(f"{indent}{name} = {STARTS.get(node.op, node.op)}")
            for axis in node.axes:
                lines.append(_for(axis, deeper))
                deeper += _STEP
            inner, value = self._value(node.body, deeper)
            lines.extend(inner)
            lines.extend(_folded(*_step(node.op, name, value, deeper)))
            return Read(TensorVar(name, TensorType(node.dtype, ())), ())

        flat = _outermost(body, apart)
        return lines, _bare(format_expr(flat).replace("[]", ""))


def _outermost(e: Expr, rule: Callable[[Reduce], Expr]) -> Expr:
    """Rewrite reductions from the outside: what is inside one belongs to its own loops."""
    if isinstance(e, Reduce):
        return rule(e)
    parts = tuple(_outermost(child, rule) for child in children(e))
    return rebuild(e, parts) if parts else e


def _step(op: str, name: str, value: str, indent: str) -> tuple[str, str]:
    sign = {"sum": "+=", "prod": "*="}.get(op)
    if sign:
        return f"{indent}{name} {sign} ", value
    return f"{indent}{name} = ", f"{op}({name}, {value})"


WIDE = 80
"""Columns of a line, where it can be folded: before a sign, or behind a comma."""


def _folded(start: str, value: str) -> list[str]:
    """`x = a + b` in lines that are not too wide, as Python reads them: a sum or product goes on in
    brackets, and what stands in brackets in them."""
    lines: list[str] = []
    deeper = " " * (len(start) - len(start.lstrip())) + 2 * _STEP
    if len(start) + len(value) > WIDE and any(place[0] == 0 for place in _places(value)):
        value = f"({value})"
    while len(start) + len(value) > WIDE:
        places = _places(value[: WIDE - len(start)])
        if not places and not start.strip():
            break
        if not places:
            lines.append(f"{start}(")
            start, value = deeper, f"{value})"
            continue
        at = max(places)[-1]
        lines.append(start + value[:at])
        start, value = deeper, value[at + 1 :]
    return [*lines, start + value]


def _places(value: str) -> list[tuple[int, bool, int]]:
    """Blanks at which a value can be folded, the best the greatest: few brackets are open there, a
    comma stands before it sooner than a sign behind it, and it stands late."""
    depth, places = 0, list[tuple[int, bool, int]]()
    for at, letter in enumerate(value):
        depth += (letter in "([") - (letter in ")]")
        follows_comma = letter == " " and value[at - 1] == ","
        before_sign = letter == " " and value[at + 1 : at + 3] in ("+ ", "- ", "* ", "/ ")
        if follows_comma or before_sign:
            places.append((-depth, follows_comma, at))
    return places


def _for(axis: Axis, indent: str) -> str:
    return f"{indent}for {axis.name} in range({axis.extent}):"


def _bare(text: str) -> str:
    """A text without brackets around all of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and at < len(text) - 1:
            return text
    return text[1:-1]
