"""`input image: f32[N, 3, H, W] where H % 32 == 0`: symbols, constraints, and blocks' inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import foreign
from convdsl.elaborate.expressions import Evaluator
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop, suggest
from convdsl.elaborate.values import POISON, Given, describe
from convdsl.ir.graph import Value
from convdsl.syntax import ast
from convdsl.tensor import (
    LANGUAGE_DTYPES,
    Dim,
    SymDim,
    TensorType,
    format_shape,
    symbol,
    symbols_of,
)

_OPEN = "a size that stays open has a name: N"

MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "=="}


@dataclass(slots=True)
class Known:
    """What is declared of a symbol, and of those that it equals: bounds, and value = remainder
    modulo divisor."""

    minimum: int = 1
    maximum: int | None = None
    divisor: int = 1
    remainder: int = 0
    names: dict[str, None] = field(default_factory=dict[str, None])
    parts: list[tuple[Span, Known]] = field(default_factory=list[Any])  # as the text says them

    def fits(self, value: int) -> bool:
        """Whether a symbol may have the value."""
        beyond = self.maximum is not None and value > self.maximum
        return value >= self.minimum and not beyond and value % self.divisor == self.remainder

    def near(self, value: int) -> list[int]:
        """The values next to one that does not fit, below and above, that do."""
        below = value - (value - self.remainder) % self.divisor
        least = self.smallest()
        most = self.maximum if self.maximum is not None else max(value, least) + self.divisor
        most -= (most - self.remainder) % self.divisor
        near = (min(max(one, least), most) for one in (below, below + self.divisor))
        return [one for one in dict.fromkeys(near) if self.fits(one)]

    def join(self, other: Known) -> bool:
        """They are equal; False where no value is both."""
        self.minimum = max(self.minimum, other.minimum)
        most = [m for m in (self.maximum, other.maximum) if m is not None]
        self.maximum = min(most, default=None)
        self.names |= other.names
        self.parts += other.parts
        return self.congruent(other.divisor, other.remainder)

    def add(self, symbol: str, number: int) -> None:
        """symbol <relation> number"""
        if symbol in (">", ">="):
            self.minimum = max(self.minimum, number + (symbol == ">"))
        elif symbol in ("<", "<="):
            bound = number - (symbol == "<")
            self.maximum = bound if self.maximum is None else min(self.maximum, bound)
        else:
            self.add(">=", number)
            self.add("<=", number)

    def congruent(self, divisor: int, remainder: int) -> bool:
        """Also = remainder modulo divisor; False where that contradicts what is known."""
        common = gcd(self.divisor, divisor)
        if (remainder - self.remainder) % common:
            return False
        step = self.divisor
        lifted = (remainder - self.remainder) // common
        factor = lifted * pow(step // common, -1, divisor // common) if divisor > common else 0
        merged = self.remainder + step * (factor % (divisor // common))
        self.divisor = step // common * divisor
        self.remainder = merged % self.divisor
        return True

    def smallest(self) -> int:
        """The least value that satisfies everything but the maximum."""
        return self.minimum + (self.remainder - self.minimum) % self.divisor


class InputDeclarations:
    """Carries out `input` statements, of models and of blocks."""

    def __init__(self, evaluator: Evaluator, bindings: Mapping[str, int]) -> None:
        self._evaluator = evaluator
        self._bindings = bindings  # symbols bound from outside
        self.bound: set[str] = set()

    def declare(self, node: ast.Input, context: Context) -> None:
        if context.root:
            self._model_input(node, context)
        else:
            self._block_input(node, context)

    # Models

    def _model_input(self, node: ast.Input, context: Context) -> None:
        evaluator = self._evaluator
        try:
            if node.type is None:
                raise evaluator.fail(
                    context,
                    "E0602",
                    "a model's input declares its type",
                    node.span,
                    help=f"input {node.names[0].id}: f32[N, 3, 224, 224]",
                )
            constraints = self._constraints(node.constraints, context)
            type = self._type(node.type, constraints, context)
            unused = [name for name in constraints if name not in context.scope.names]
            if unused:
                names = (name.id for extent in node.type.extents for name in _free_names(extent))
                symbols = tuple(dict.fromkeys(names))
                raise evaluator.fail(
                    context,
                    "E0603",
                    f"`where` speaks of `{unused[0]}`, not a size of this input",
                    node.constraints[0].span,
                    help=suggest(unused[0], symbols)
                    or (f"its open sizes are {', '.join(symbols)}" if symbols else ()),
                )
        except Stop:
            self._poison(node, context)
            return
        for name in node.names:
            self._add_input(name, type, context)

    def _poison(self, node: ast.Input, context: Context) -> None:
        """What a declaration with an error would have declared: of that nothing more is said."""
        names = {name.id for name in node.names}
        for extent in () if node.type is None else node.type.extents:
            names |= {name.id for name in _free_names(extent)} - context.scope.names.keys()
        self.bound |= names & self._bindings.keys()  # no more is said of them either
        context.scope.names.update(dict.fromkeys(names, POISON))
        context.incoming = POISON

    def _add_input(self, name: ast.Name, type: TensorType, context: Context) -> None:
        session = self._evaluator.session
        if name.id in session.graph.inputs:
            raise self._evaluator.fail(
                context, "E0202", f"two inputs are called `{name.id}`", name.span
            )
        if not all(session.bounded(extent) for extent in type.shape):
            raise self._evaluator.fail(
                context, "E0602", "the input is too large to be counted", name.span
            )
        value = session.graph.add_input(name.id, type, name.span)
        context.scope.names[name.id] = value
        context.names.taken[name.id] = name.span
        only = len(session.graph.inputs) == 1
        context.incoming = value if only else None
        context.incoming_span = name.span if only else None

    def _type(
        self, node: ast.TypeExpression, constraints: Mapping[str, Known], context: Context
    ) -> TensorType:
        dtypes = {str(dtype): dtype for dtype in LANGUAGE_DTYPES}
        if node.dtype.id not in dtypes:
            raise self._evaluator.fail(
                context,
                "E0602",
                f"unknown element type `{node.dtype.id}`",
                node.dtype.span,
                help=foreign.element_type(node.dtype.id)
                or suggest(node.dtype.id, dtypes)
                or (f"one of {', '.join(dtypes)}",),
            )
        for extent in node.extents:
            for name in _free_names(extent):
                if not context.scope.find(name.id)[0]:
                    self._symbol(name, constraints, context)
        shape = tuple(self._extent(extent, context) for extent in node.extents)
        return TensorType(dtypes[node.dtype.id], shape)

    def _extent(self, node: ast.Expression, context: Context) -> Dim:
        value = self._evaluator.need(node, context)
        if isinstance(value, SymDim):
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._evaluator.fail(
                context,
                "E0602",
                f"a size is a positive integer or a symbol, not {describe(value)}",
                node.span,
                help=_size_help(value),
            )
        return value

    def _check_symbol(self, name: ast.Name, context: Context) -> None:
        """Words of elsewhere for an open size, and sizes joined as those of a kernel, are none."""
        help: tuple[str, ...] = ()
        if name.id.strip("_").lower() in foreign.OPEN_SIZES:
            help = (_OPEN,)
        elif re.fullmatch(r"[A-Za-z]+(x\d+){2,}", name.id):
            help = (f"sizes stand apart: [{', '.join(name.id.split('x'))}]",)
        if help:
            text = f"a size is a positive integer or a symbol, not `{name.id}`"
            raise self._evaluator.fail(context, "E0602", text, name.span, help=help)

    def _symbol(self, name: ast.Name, constraints: Mapping[str, Known], context: Context) -> None:
        self._check_symbol(name, context)
        known = constraints.get(name.id, Known())
        same = next((n for n in known.names if context.scope.find(n)[0]), None)
        if same is not None:
            context.scope.names[name.id] = context.scope.find(same)[1]
            return
        least = known.smallest()
        if known.maximum is not None and known.maximum < least:
            raise self._evaluator.fail(
                context, "E0603", f"no size satisfies what is declared of `{name.id}`", name.span
            )
        value: Any = symbol(name.id, least, known.divisor, known.remainder, known.maximum)
        given = {n: self._bindings[n] for n in (name.id, *known.names) if n in self._bindings}
        if given:
            value = self._bound(name, given, context)
            if not known.fits(value):
                raise self._not_allowed(name, value, known, context)
        elif known.maximum == least:
            value = least
        context.scope.names[name.id] = value

    def _bound(self, name: ast.Name, given: Mapping[str, int], context: Context) -> int:
        """What is set from outside of a symbol and of those that it equals."""
        self.bound |= given.keys()
        if len(set(given.values())) > 1:
            said = " and ".join(f"{n} = {value}" for n, value in given.items())
            text = f"{said} are set, and `where` says they are equal"
            raise self._evaluator.fail(context, "E0603", text, name.span)
        return next(iter(given.values()))

    def _not_allowed(self, name: ast.Name, value: int, known: Known, context: Context) -> Stop:
        """A value from outside that breaks what is declared."""
        broken = [(span, "does not hold") for span, part in known.parts if not part.fits(value)]
        near = known.near(value)
        return self._evaluator.fail(
            context,
            "E0603",
            f"{name.id} = {value} is not allowed here",
            *(broken or [name.span]),
            help=f"{' or '.join(map(str, near))} would do" if near else (),
        )

    # Constraints

    def _constraints(self, nodes: tuple[ast.Expression, ...], context: Context) -> dict[str, Known]:
        """What `where` says, by symbol."""
        found: dict[str, Known] = {}
        for node in nodes:
            for compared in _conjuncts(node):
                if not isinstance(compared, ast.Compared):
                    raise self._not_understood(compared.span, context)
                left = compared.first
                for relation, right in compared.rest:
                    self._constraint(left, relation, right, found, compared.span, context)
                    left = right
        return found

    def _constraint(
        self,
        left: ast.Expression,
        relation: str,
        right: ast.Expression,
        found: dict[str, Known],
        span: Span,
        context: Context,
    ) -> None:
        if relation not in MIRRORED:
            raise self._not_understood(span, context)
        if not self._subject(left, context) and self._subject(right, context):
            left, relation, right = right, MIRRORED[relation], left
        subject = self._subject(left, context)
        if subject is None:
            raise self._of_value((left, right), span, context) or self._not_understood(
                span, context
            )
        name, divisor = subject
        known = found.setdefault(name.id, Known(names={name.id: None}))
        other = self._subject(right, context)
        if relation == "==" and divisor is None and other is not None and other[1] is None:
            equal = found.setdefault(other[0].id, Known(names={other[0].id: None}))
            if equal is not known and not known.join(equal):
                text = f"no size satisfies this and what is said of `{name.id}` before"
                raise self._evaluator.fail(context, "E0603", text, span)
            found.update(dict.fromkeys(equal.names, known))
            return
        number = self._evaluator.need(right, context)
        if isinstance(number, bool) or not isinstance(number, int):
            raise self._not_understood(span, context)
        part = Known()
        known.parts.append((span, part))
        if divisor is None:
            known.add(relation, number)
            part.add(relation, number)
            return
        modulus = self._evaluator.need(divisor, context)
        fits = isinstance(modulus, int) and modulus > 0 and relation == "=="
        if not fits or not 0 <= number < modulus:
            raise self._not_understood(span, context)
        if not known.congruent(modulus, number):
            text = f"no size satisfies this and what is said of `{name.id}` before"
            raise self._evaluator.fail(context, "E0603", text, span)
        part.congruent(modulus, number)

    def _subject(
        self, node: ast.Expression, context: Context
    ) -> tuple[ast.Name, ast.Expression | None] | None:
        """`H` or `H % divisor`, where H is no variable."""
        match node:
            case ast.Name() if not context.scope.find(node.id)[0]:
                return node, None
            case ast.Arithmetic(first=ast.Name() as name, rest=(("%", divisor),)):
                return (name, divisor) if not context.scope.find(name.id)[0] else None
            case _:
                return None

    def _of_value(
        self, sides: Iterable[ast.Expression], span: Span, context: Context
    ) -> Stop | None:
        """What is said of values alone: `where` is about sizes that stay open."""
        names = [name.id for side in sides for name in _free_names(side)]
        found = [context.scope.find(name) for name in names]
        if not found or not all(known for known, _ in found):
            return None
        if any(value is POISON for _, value in found):
            return Stop()
        if isinstance(found[0][1], SymDim):
            (said, *_) = symbols_of(found[0][1])
            before = self._evaluator.session.graph.inputs.items()
            owner = next(n for n, v in before if any(said in symbols_of(d) for d in v.type.shape))
            return self._evaluator.fail(
                context,
                "E0603",
                f"`{names[0]}` is declared before: what holds of it stands there",
                span,
                help=f"say it of `{owner}`: `where {span.text}`",
            )
        return self._evaluator.fail(
            context,
            "E0603",
            f"`{names[0]}` is a value here, and no open size of this input",
            span,
            help=f"after the input: `assert {span.text}`",
        )

    def _not_understood(self, span: Span, context: Context) -> Stop:
        return self._evaluator.fail(
            context,
            "E0603",
            "this constraint is not understood",
            span,
            help="write H % 32 == 0, H >= 32, H <= 512 or H == W, joined by `and`",
        )

    # Blocks

    def _block_input(self, node: ast.Input, context: Context) -> None:
        if context.arriving is None:
            raise self._evaluator.fail(
                context, "E0602", "`input` stands directly in a block or model", node.span
            )
        for name in node.names:
            given: Given = context.arriving[0]
            context.arriving = context.arriving[1:]
            context.scope.names[name.id] = given.value
            if node.type is not None and isinstance(given.value, Value):
                self._match(node.type, given, context)

    def _match(self, node: ast.TypeExpression, given: Given, context: Context) -> None:
        """Check a tensor against a block's declaration; free names take its sizes."""
        type: TensorType = given.value.type
        wanted = f"{node.dtype.id}[{', '.join(e.span.text for e in node.extents)}]"
        fits = str(type.dtype) == node.dtype.id and type.rank == len(node.extents)
        for extent, actual in zip(node.extents, type.shape, strict=False):
            if isinstance(extent, ast.Name) and not context.scope.find(extent.id)[0]:
                context.scope.names[extent.id] = actual
            elif fits:
                fits = self._evaluator.need(extent, context) == actual
        if not fits:
            labels = [(node.span, "declared here")]
            if given.span is not None:
                labels.append((given.span, format_shape(type.shape)))
            raise self._evaluator.fail(context, "E0501", f"{type} does not fit {wanted}", *labels)


def _size_help(value: Any) -> tuple[str, ...]:
    """How to write what was meant for a size."""
    if isinstance(value, str) and value.isidentifier():
        return (f"write it without quotes: {value}",)
    if isinstance(value, float) and value.is_integer():
        return (f"write {int(value)}",)
    if isinstance(value, tuple):
        sizes = ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return (f"sizes stand apart: {sizes}",)
    return (_OPEN,) if value == -1 or value == 0 else ()


def _conjuncts(node: ast.Expression) -> Iterator[ast.Expression]:
    if isinstance(node, ast.Logic) and node.operator == "and":
        for operand in node.operands:
            yield from _conjuncts(operand)
    else:
        yield node


def _free_names(node: ast.Expression) -> Iterator[ast.Name]:
    """Names in a size expression."""
    match node:
        case ast.Name():
            yield node
        case ast.Arithmetic():
            yield from _free_names(node.first)
            for _, operand in node.rest:
                yield from _free_names(operand)
        case ast.Signed():
            yield from _free_names(node.operand)
        case ast.Power():
            for operand in node.operands:
                yield from _free_names(operand)
        case _:
            pass
