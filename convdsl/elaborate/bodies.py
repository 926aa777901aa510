"""Bodies in braces: their statements in turn, conditions, scopes, and the rounds of loops.

A loop as a stage hands each round what the round before gave; as a value it is the list of
what its rounds give.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import limits
from convdsl.elaborate.arithmetic import checked_list
from convdsl.elaborate.layers import Layers, further_in
from convdsl.elaborate.lost import losing
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Refused, Session, Stop
from convdsl.elaborate.values import (
    NOTHING,
    POISON,
    ListValue,
    Record,
    describe,
    is_number,
    is_tensors,
)
from convdsl.ir.graph import Value
from convdsl.syntax import ast


class Bodies(Layers):
    """Runs what stands in braces, and says which of it runs."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._rules |= {
            ast.Conditional: lambda node, context: self.conditional(node, context, False),
            ast.Loop: self._collect,
            ast.Repetition: self._collect,
            ast.Numbered: lambda node, context: self.in_scope(node, context, False),
            ast.Scoped: lambda node, context: self.in_scope(node, context, False),
        }

    @abstractmethod
    def execute(self, statement: ast.Statement, context: Context, flowing: bool) -> Any:
        """Run a statement of any kind."""

    def run(self, body: ast.Body, context: Context, flowing: bool) -> Any:
        """The value of the last statement; `flowing` tells whether `in` flows into layers."""
        value: Any = NOTHING
        last = len(body.statements) - 1
        before: tuple[Any, ast.Statement] | None = None  # whose use the line after it decides
        for index, statement in enumerate(body.statements):
            try:
                self.session.step(statement.span, context.frames)
                value = self.execute(statement, context, flowing or index < last)
            except Refused:
                raise
            except Stop:
                value = POISON
            taken = index < last and statement.span.text[0] == "-"
            counts = is_tensors(value) or is_number(value)
            if before is not None and taken and counts:
                self._is_taken_from_nothing(statement, before[1], context)
                value, before = POISON, None
                continue
            if before is not None:
                self.check_used(*before, context)
            before = (value, statement)
        return value

    def _is_taken_from_nothing(
        self, statement: ast.Statement, before: ast.Statement, context: Context
    ) -> None:
        """The difference that broke off in the line before has another value than was meant: what
        is computed with it is not told of, and this is, whatever else is wrong."""
        if isinstance(before, ast.Assign | ast.Let):
            for target in before.targets:
                context.scope.names[target.id] = POISON
        text = "this line is a statement of its own: it is taken from nothing"
        self.session.causes.add(statement.span)
        self.fail(context, "E0409", text, statement.span, help=further_in(statement))

    def conditional(self, node: ast.Conditional, context: Context, flowing: bool) -> Any:
        bodies = (*(body for _, body in node.branches), *filter(None, (node.otherwise,)))
        for condition, body in node.branches:
            with losing(bodies, context):
                holds = self.condition(condition, context)
            if holds:
                return self.run(body, context.copy(), flowing)
        if node.otherwise is not None:
            return self.run(node.otherwise, context.copy(), flowing)
        return NOTHING

    def in_scope(self, node: ast.Numbered | ast.Scoped, context: Context, flowing: bool) -> Any:
        """The body with one more part in its layers' names."""
        numbered = isinstance(node, ast.Numbered)
        part = self.claim(context, node.label, None, "seq" if numbered else "scope", node.span)
        inner = context.copy(context.names.inside(part, numbered))
        return self.run(node.body, inner, flowing)

    def _rounds(self, node: ast.Loop | ast.Repetition, context: Context) -> Sequence[Any]:
        """What a loop runs over, counted before it starts."""
        if isinstance(node, ast.Repetition):
            count = self.need(node.count, context)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise self.fail(
                    context,
                    "E0305",
                    f"`repeat` takes a count, not {describe(count)}",
                    node.count.span,
                    help=_WHOLE if isinstance(count, float) else (),
                )
            if count > limits.ITERATIONS:
                raise self.session.halt(
                    "E0805",
                    f"a loop of more than {limits.ITERATIONS:,} rounds",
                    node.count.span,
                    context.frames,
                )
            return range(count)
        items = self.need(node.iterable, context)
        if isinstance(items, ListValue):
            return items.items
        if isinstance(items, tuple):
            return items  # pyright: ignore[reportUnknownVariableType]
        help = (f"write range({items})",) if isinstance(items, int) else ()
        raise self.fail(
            context,
            "E0401",
            f"`for` runs over a list, not {describe(items)}",
            node.iterable.span,
            help=help,
        )

    def _bind_round(self, node: ast.Loop | ast.Repetition, item: Any, context: Context) -> None:
        self.session.step(node.span, context.frames)
        if isinstance(node, ast.Loop):
            self.bind_targets(node.targets, item, context, node.iterable.span)

    def bind_targets(
        self, targets: tuple[ast.Name, ...], value: Any, context: Context, span: Span
    ) -> None:
        """One name takes the value, several take its parts."""
        if len(targets) == 1:
            self.define(targets[0].id, value, context)
            return
        if value is POISON:
            parts: tuple[Any, ...] = (POISON,) * len(targets)
        elif isinstance(value, ListValue):
            parts = value.items
        elif isinstance(value, Record):
            parts = tuple(value.fields.values())
        else:
            parts = ()
        if len(parts) != len(targets):
            for target in targets:
                context.scope.names[target.id] = POISON
            text = f"{len(targets)} names for {describe(value)}"
            raise self.fail(context, "E0407", text, span, help=_named(targets, len(parts), value))
        for target, part in zip(targets, parts, strict=True):
            self.define(target.id, part, context)

    def fold(self, node: ast.Loop | ast.Repetition, context: Context, explicit: bool) -> Any:
        """Each round receives as `in` what the round before gave."""
        with losing((node.body,), context):
            rounds = self._rounds(node, context)
        incoming, span = context.incoming, context.incoming_span
        gave = explicit or not len(rounds)
        for item in rounds:
            self._bind_round(node, item, context)
            value = self.run(node.body, context.receiving(incoming, span), True)
            if value is NOTHING:
                continue
            gave = True
            incoming, span = value, node.body.span
            if value is not POISON and not is_tensors(value):
                raise self.fail(
                    context,
                    "E0408",
                    f"a round gives {describe(value)}, not a tensor",
                    node.body.span,
                )
        return incoming if gave and incoming is not None else NOTHING

    def _collect(self, node: ast.Loop | ast.Repetition, context: Context) -> ListValue:
        """A loop as a value: the list of what its rounds give."""
        values: list[Any] = []
        with losing((node.body,), context):
            rounds = self._rounds(node, context)
        for item in rounds:
            self._bind_round(node, item, context)
            value = self.run(node.body, context.copy(), False)
            if value is NOTHING:
                raise self.fail(
                    context,
                    "E0408",
                    "the rounds of this loop have no value",
                    node.body.span,
                    help="end the body with an expression",
                )
            values.append(value)
        if any(value is POISON for value in values):
            raise Stop
        return checked_list(tuple(values))


def _named(targets: Sequence[ast.Name], parts: int, value: Any) -> tuple[str, ...]:
    """Help where names are too many, or too few, for the parts of a value."""
    names = [target.id for target in targets]
    if isinstance(value, Value):
        return (f"equal parts of its channels: `{', '.join(names)} = ... -> split({len(names)})`",)
    if parts == 0 and len(names) == 2:
        return ("numbers with their places are enumerate(list), pairs of two lists zip(a, b)",)
    if not 1 < parts <= 8:
        return ()
    rest = [f"_{chr(ord('a') + i)}" for i in range(parts - len(names))]
    unused = "what is not needed has a `_` before its name: " if rest else "write "
    return (f"{unused}`{', '.join([*names[:parts], *rest])} = ...`",)


_WHOLE = "round it: floor(x), ceil(x), round(x); `//` divides whole numbers"
