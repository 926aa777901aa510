"""What flows: chains, layers, blocks, bodies, loops and the names that layers get.

A chain hands each stage the value before it. A body in braces receives it as `in`; where the
last expression of such a body is a layer or a chain of layers, `in` flows into it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import foreign, limits
from convdsl.elaborate.arithmetic import checked_list
from convdsl.elaborate.builtins import of_an_empty_range
from convdsl.elaborate.layers import Layers
from convdsl.elaborate.leading import (
    FLOWING,
    Flowing,
    begins_with_a_layer,
    first_operand,
    follows,
    stands_before_another,
)
from convdsl.elaborate.lost import losing
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Refused, Session, Stop
from convdsl.elaborate.unknown import IMAGE, hidden
from convdsl.elaborate.values import (
    LAYER_LIKE,
    NOTHING,
    POISON,
    SPELLED,
    BlockValue,
    Builtin,
    Closure,
    Composition,
    Given,
    Layer,
    ListValue,
    Operator,
    Record,
    describe,
    is_tensors,
)
from convdsl.ir.graph import Value
from convdsl.syntax import ast


def _indexed(node: ast.Call, callee: Any) -> tuple[str, ...]:
    """Help for an element of a list in round brackets."""
    if not isinstance(callee, ListValue | tuple) or len(node.arguments) != 1:
        return ()
    index = node.arguments[0].span.text
    return (f"an element stands in square brackets: {node.callee.span.text}[{index}]",)


def _is_handed_tensors(layer: Layer) -> bool:
    """Whether a call names tensors: declared inputs, or parameters that are some."""
    return bool(layer.operands) or any(is_tensors(g.value) for g in layer.arguments.values())


def _of_elements(name: str) -> tuple[str, ...]:
    """The operator that does to the elements of a tensor what a function does to its arguments."""
    operator = f"reduce_{name}"
    return (f"of the elements of a tensor: {operator}(x, axes = [...])",) * (operator in SPELLED)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, ListValue) and any(isinstance(item, Value) for item in value.items)


class Interpreter(Layers):
    """Evaluates everything that makes layers."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._stranded: Span | None = None  # the last layer that nothing flowed into
        self._rules |= {
            ast.Chain: self._chain,
            ast.Call: lambda node, context: self._call(node, context, None, None),
            ast.Named: lambda node, context: self._named(node, context, None),
            ast.Conditional: lambda node, context: self._conditional(node, context, False),
            ast.Loop: self._collect,
            ast.Repetition: self._collect,
            ast.Numbered: lambda node, context: self._in_scope(node, context, False),
            ast.Scoped: lambda node, context: self._in_scope(node, context, False),
            ast.Sink: self._stray_sink,
        }

    # Chains

    def _chain(self, node: ast.Chain, context: Context) -> Any:
        """A chain as a value: applied where it starts with a tensor, else a composition."""
        head = self.evaluate(node.head, context)
        if isinstance(head, LAYER_LIKE):
            return self._compose(head, node, context)
        return self._stages(node, Given(head, node.head.span), context)

    def _stages(self, node: ast.Chain, given: Given, context: Context) -> Any:
        for stage in node.stages:
            if given.value is NOTHING:
                raise self.fail(
                    context,
                    "E0408",
                    "nothing flows out of this into the next stage",
                    given.span or node.span,
                )
            given = Given(self._try_stage(stage, context, given), stage.span)
        return given.value

    def _try_stage(self, node: ast.Expression, context: Context, piped: Given) -> Any:
        self.session.enter(node.span, context.frames)
        try:
            return self._stage(node, context, piped)
        except Stop:
            return POISON
        finally:
            self.session.depth -= 1

    def _stage(self, node: ast.Expression, context: Context, piped: Given) -> Any:
        """What the stage makes of the value that flows into it."""
        match node:
            case ast.Sink():
                self.declare_output(node.label, piped, context)
                return NOTHING
            case ast.Call():
                return self._call(node, context, piped, None)
            case ast.Named():
                return self._named(node, context, piped)
            case ast.Conditional() | ast.Loop() | ast.Repetition() | ast.Numbered() | ast.Scoped():
                return self.flow_stage(node, context.receiving(piped.value, piped.span))
            case ast.Arithmetic() | ast.Power() if begins_with_a_layer(node, context):
                return self._go_on(
                    self._stage(first_operand(node), context, piped), node, context, None
                )
            case _:
                value = self.need(node, context)
                if piped.value is POISON and not isinstance(value, LAYER_LIKE):
                    return POISON  # as in `maxpool -> (3x3)`: one mistake
                return self.apply(value, [piped], context, node.span, None)

    def _go_on(
        self, given: Any, node: ast.Arithmetic | ast.Power, context: Context, label: ast.Text | None
    ) -> Any:
        """`conv(8, 3x3) + y`: arithmetic with what the layer gave that it begins with."""
        if isinstance(node, ast.Arithmetic):
            return self.computed_on(given, node, context, label)
        return self.raised(given, node, context)

    def flow_stage(self, node: ast.Expression, context: Context) -> Any:
        return self._flow(node, context, explicit=True)

    def _flow(self, node: ast.Expression, context: Context, explicit: bool = False) -> Any:
        """The node as a statement or stage: what is a layer gets `in`."""
        if isinstance(node, ast.Chain):
            head = self._flow(node.head, context, explicit=context.incoming is not None)
            return self._stages(node, Given(head, node.head.span), context)
        if isinstance(node, FLOWING):
            return self._flow_body(node, context, explicit)
        if context.incoming is not None and begins_with_a_layer(node, context):
            assert isinstance(node, ast.Arithmetic | ast.Power)
            return self._go_on(self._flow(first_operand(node), context, True), node, context, None)
        value = self.evaluate(node, context)
        if not isinstance(value, LAYER_LIKE):
            return value
        if context.incoming is None:
            raise self._nothing_flows(value, node, context)
        incoming = Given(context.incoming, context.incoming_span)
        return self.apply(value, [incoming], context, node.span, None)

    def _adds_nothing(
        self, statement: ast.Statement, before: ast.Statement, context: Context
    ) -> None:
        """The sum that broke off in the line before has another value than was meant: what is
        computed with it is not told of, and this is, whatever else is wrong."""
        if isinstance(before, ast.Assign | ast.Let):
            for target in before.targets:
                context.scope.names[target.id] = POISON
        sign = statement.span.text[0]
        what = "adds to nothing" if sign == "+" else "is taken from nothing"
        text = f"this line is a statement of its own: it {what}"
        help = f"leave the `{sign}` at the end of the line before, or put the sum in brackets"
        self.session.causes.add(statement.span)
        self.fail(context, "E0409", text, statement.span, help=help)

    def _nothing_flows(self, value: Any, node: ast.Expression, context: Context) -> Stop:
        """Said once of layers that stand on lines of their own, one after the other."""
        before, self._stranded = self._stranded, node.span
        if follows(before, node.span):
            return Stop()
        help = "start the chain with a tensor: `x -> ...`"
        if stands_before_another(node.span):
            help = "layers follow each other with `->`, also over lines"
        elif context.root and not self.session.graph.inputs:
            help = f"a model declares its inputs: `{IMAGE.format('image')}`, then `image -> ...`"
        what = describe(value).removesuffix(", applied to nothing")
        return self.fail(context, "E0408", f"nothing flows into {what}", node.span, help=help)

    def _flow_body(self, node: Flowing, context: Context, explicit: bool) -> Any:
        match node:
            case ast.Conditional():
                value = self._conditional(node, context, True)
                return context.incoming if explicit and value is NOTHING else value
            case ast.Loop() | ast.Repetition():
                return self._fold(node, context, explicit)
            case ast.Numbered() | ast.Scoped():
                return self._in_scope(node, context, True)

    def _compose(self, head: Any, node: ast.Chain, context: Context) -> Composition:
        elements = [self._element(head, node.head.span, context)]
        for stage in node.stages:
            if isinstance(stage, FLOWING) or begins_with_a_layer(stage, context):
                elements.append(Closure(stage, context.copy()))
            elif isinstance(stage, ast.Sink):
                raise self.fail(context, "E0604", "nothing flows into this output", stage.span)
            elif isinstance(stage, ast.Call) or (
                isinstance(stage, ast.Named) and isinstance(stage.value, ast.Call)
            ):
                call = stage.value if isinstance(stage, ast.Named) else stage
                assert isinstance(call, ast.Call)
                made = self._make(call, context)
                if isinstance(stage, ast.Named):
                    self._fix_label(made, stage.label, context)
                elements.append(made)
            else:
                before = node.head.span if len(elements) == 1 else None
                value = self.need(stage, context)
                elements.append(self._element(value, stage.span, context, before))
        return Composition(tuple(elements), node.span)

    def _element(self, value: Any, span: Span, context: Context, before: Span | None = None) -> Any:
        if isinstance(value, Operator | BlockValue):
            return self.bind(value, (), context, span)
        if isinstance(value, Layer | Composition | Closure):
            return value
        help = ()
        if isinstance(value, Value) and before is not None:
            help = (f"a tensor flows into a layer: `{span.text} -> {before.text}`",)
        text = f"after `->` stands a layer, not {describe(value)}"
        raise self.fail(context, "E0306", text, span, help=help)

    # Calls

    def _make(self, node: ast.Call, context: Context) -> Any:
        """The layer of a call that stands in a composition."""
        callee = self.need(node.callee, context)
        if isinstance(callee, Operator | BlockValue):
            return self.bind(callee, node.arguments, context, node.span)
        return self._element(self._call(node, context, None, None), node.span, context)

    def _call(
        self, node: ast.Call, context: Context, piped: Given | None, label: ast.Text | None
    ) -> Any:
        callee = self.need(node.callee, context)
        inputs = [piped] if piped else []
        match callee:
            case Builtin() if piped and callee.name in SPELLED:
                layer = self.bind(SPELLED[callee.name], node.arguments, context, node.span)
                return self.apply(layer, inputs, context, node.span, label)
            case Builtin():
                if piped:
                    raise self.fail(
                        context,
                        "E0306",
                        f"`{callee.name}` is a function, not a layer",
                        node.callee.span,
                    )
                return self._function(callee, node, context, label)
            case Operator() | BlockValue():
                layer = self.bind(callee, node.arguments, context, node.span)
                named = isinstance(callee, BlockValue) and _is_handed_tensors(layer)
                alone = isinstance(callee, Operator) and not callee.op.data_operands
                if not piped and not layer.extra and not named and not alone:
                    if label is not None:
                        self._fix_label(layer, label, context)
                    return layer
                return self.apply(layer, inputs, context, node.span, label)
            case Layer() | Composition() | Closure():
                if not node.arguments and isinstance(node.callee, ast.Call):
                    said = node.callee.span.text
                    text = f"`{said}` is a layer already: nothing is left to give"
                    raise self.fail(context, "E0303", text, node.span, help=f"write `{said}`")
                for argument in node.arguments:
                    value = self.need(argument.value, context)
                    if argument.name is not None or not is_tensors(value):
                        raise self.fail(
                            context,
                            "E0303",
                            "this layer has its arguments; give it tensors only",
                            argument.span,
                        )
                    inputs.append(Given(value, argument.value.span))
                return self.apply(callee, inputs, context, node.span, label)
            case _:
                raise self.fail(
                    context,
                    "E0306",
                    f"only layers and functions are called, not {describe(callee)}",
                    node.callee.span,
                    help=_indexed(node, callee)
                    or hidden(node.callee.span.text, callee)
                    or foreign.name(node.callee.span.text),
                )

    def _function(
        self, function: Builtin, node: ast.Call, context: Context, label: ast.Text | None
    ) -> Any:
        """A function's value; the operator of the same name where tensors are given."""
        values = [self.evaluate(argument.value, context) for argument in node.arguments]
        for argument in node.arguments:
            if argument.name is not None:
                raise self.fail(
                    context,
                    "E0301",
                    f"`{function.name}` takes no keywords",
                    argument.name.span,
                    help=_of_elements(function.name),
                )
        if POISON in values:
            raise Stop
        if function.name in SPELLED and any(isinstance(value, Value) for value in values):
            operator = SPELLED[function.name]
            spans = (argument.value.span for argument in node.arguments)
            extra = tuple(Given(v, span) for v, span in zip(values, spans, strict=True))
            layer = Layer(operator, {}, {}, extra, node.span)
            return self.apply(layer, [], context, node.span, label)
        if function.name == "sum" and len(values) == 1 and _holds_tensors(values[0]):
            return self._sum(values[0], node, context)
        least, most = function.arity
        if len(values) < least or (most is not None and len(values) > most):
            count = f"{least} to {most}" if most else f"{least} or more"
            count = str(least) if most == least else count
            text = f"`{function.name}` takes {count} value{'' if count == '1' else 's'}"
            raise self.fail(
                context,
                "E0303",
                f"{text}, {len(values) or 'none'} given",
                node.span,
                help=_of_another(function, node),
            )
        written = all(_DIGITS.fullmatch(argument.span.text) for argument in node.arguments)
        # Of computed bounds an empty range is no mistake.
        if function.name == "range" and written and (help := of_an_empty_range(values)):
            text = f"`{node.span.text}` is empty"
            raise self.fail(context, "E0405", text, node.span, help=help)
        return function.function(*values)

    def _sum(self, terms: ListValue, node: ast.Call, context: Context) -> Any:
        """Of a list with tensors: what `+` between them makes."""
        span = node.arguments[0].value.span
        total, *others = (Given(item, span) for item in terms.items)
        for other in others:
            total = Given(self.combined("+", total, other, context, node.span, None), span)
        return total.value

    def _named(self, node: ast.Named, context: Context, piped: Given | None) -> Any:
        """`value as label`"""
        inner = node.value
        if isinstance(inner, ast.Call):
            return self._call(inner, context, piped, node.label)
        if isinstance(inner, ast.Arithmetic) and piped is None:
            return self._arithmetic(inner, context, node.label)
        if isinstance(inner, ast.Arithmetic) and piped and begins_with_a_layer(inner, context):
            given = self._stage(inner.first, context, piped)
            return self._go_on(given, inner, context, node.label)
        if isinstance(inner, FLOWING):
            raise self.fail(
                context,
                "E0204",
                "`as` names one layer",
                node.label.span,
                help="name a group with `scope NAME { ... }`",
            )
        value = self.need(inner, context)
        if piped is not None:
            return self.apply(value, [piped], context, node.span, node.label)
        if not isinstance(value, LAYER_LIKE):
            raise self.fail(
                context,
                "E0204",
                f"`as` names a layer, not {describe(value)}",
                node.span,
                help="bind a value with `name = ...`",
            )
        value = self._element(value, inner.span, context)
        self._fix_label(value, node.label, context)
        return value

    def _fix_label(self, layer: Any, label: ast.Text, context: Context) -> None:
        if isinstance(layer, Layer | Composition):
            layer.fixed_label = self._label(label, context)

    # Bodies

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
            sign = statement.span.text[0]
            if before is not None and is_tensors(value) and sign in ("+-" if index < last else "+"):
                self._adds_nothing(statement, before[1], context)
                value, before = POISON, None
                continue
            if before is not None:
                self.check_used(*before, context)
            before = (value, statement)
        return value

    def execute(self, statement: ast.Statement, context: Context, flowing: bool) -> Any:
        """Run a statement; statements.py knows all but evaluations."""
        raise NotImplementedError

    def flow(self, node: ast.Expression, context: Context) -> Any:
        """An expression statement."""
        self.session.enter(node.span, context.frames)
        try:
            return self._flow(node, context)
        finally:
            self.session.depth -= 1

    def _conditional(self, node: ast.Conditional, context: Context, flowing: bool) -> Any:
        bodies = (*(body for _, body in node.branches), *filter(None, (node.otherwise,)))
        for condition, body in node.branches:
            with losing(bodies, context):
                holds = self.condition(condition, context)
            if holds:
                return self.run(body, context.copy(), flowing)
        if node.otherwise is not None:
            return self.run(node.otherwise, context.copy(), flowing)
        return NOTHING

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
            raise self.fail(context, "E0407", text, span, help=_named(targets, len(parts)))
        for target, part in zip(targets, parts, strict=True):
            self.define(target.id, part, context)

    def _fold(self, node: ast.Loop | ast.Repetition, context: Context, explicit: bool) -> Any:
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

    def _in_scope(self, node: ast.Numbered | ast.Scoped, context: Context, flowing: bool) -> Any:
        """The body with one more part in its layers' names."""
        numbered = isinstance(node, ast.Numbered)
        part = self._claim(context, node.label, None, "seq" if numbered else "scope", node.span)
        inner = context.copy(context.names.inside(part, numbered))
        return self.run(node.body, inner, flowing)

    def _stray_sink(self, node: ast.Sink, context: Context) -> Any:
        raise self.fail(context, "E0604", "nothing flows into this output", node.span)


def _of_another(function: Builtin, node: ast.Call) -> tuple[str, ...]:
    """Help for a function of numbers that is given too few or too many: what it gives, or how two
    values of it are written."""
    given = [argument.value.span.text for argument in node.arguments]
    if len(given) > 1 and function.arity == (1, 1):
        if function.name in ("sum", "len", "reversed", "enumerate"):
            return (f"of one list: {function.name}([{', '.join(given)}])",)
        if function.name == "round":
            return (f"to decimals: round({given[0]} * 10) / 10; to a multiple round_to(x, 8)",)
    return (f"it gives {function.doc}",)


def _named(targets: Sequence[ast.Name], parts: int) -> tuple[str, ...]:
    """Help where names are too many, or too few, for the parts of a value."""
    names = [target.id for target in targets]
    if parts == 0 and len(names) == 2:
        return ("numbers with their places are enumerate(list), pairs of two lists zip(a, b)",)
    if not 1 < parts <= 8:
        return ()
    rest = [f"_{chr(ord('a') + i)}" for i in range(parts - len(names))]
    unused = "what is not needed has a `_` before its name: " if rest else "write "
    return (f"{unused}`{', '.join([*names[:parts], *rest])} = ...`",)


_DIGITS = re.compile(r"-?[0-9]+")
_WHOLE = "round it: floor(x), ceil(x), round(x); `//` divides whole numbers"
