"""What flows: chains, layers, blocks, bodies, loops and the names that layers get.

A chain hands each stage the value before it. A body in braces receives it as `in`; where the
last expression of such a body is a layer or a chain of layers, `in` flows into it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from convdsl.diagnostics import Frame, Span
from convdsl.elaborate import limits
from convdsl.elaborate.arithmetic import checked_list
from convdsl.elaborate.builtins import BUILTINS
from convdsl.elaborate.calls import Binder, declared_inputs, describe_call, flatten
from convdsl.elaborate.expressions import TENSOR_OPERATORS
from convdsl.elaborate.operators import apply_arithmetic, apply_operator
from convdsl.elaborate.scope import Context, LayerNames, Results, Scope
from convdsl.elaborate.session import Session, Stop
from convdsl.elaborate.values import (
    LAYER_LIKE,
    NOTHING,
    POISON,
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
from convdsl.ops import BY_NAME, SPELLINGS
from convdsl.syntax import ast

FLOWING = (ast.Conditional, ast.Loop, ast.Repetition, ast.Numbered, ast.Scoped)
INLINE = "_"
LABEL = re.compile(r"[A-Za-z0-9_-]+")


class Interpreter(Binder):
    """Evaluates everything that makes layers."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
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

    def is_builtin(self, name: str) -> bool:
        return name in BUILTINS or name in SPELLINGS

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
                raise self.fail("E0408", "nothing flows out of this into the next stage",
                                given.span or node.span, context=context)  # fmt: skip
            given = Given(self._try_stage(stage, context, given), stage.span)
        return given.value

    def _try_stage(self, node: ast.Expression, context: Context, piped: Given) -> Any:
        self.session.step(node.span, context.frames)
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
                inner = context.copy(incoming=piped.value, incoming_span=piped.span)
                return self._flow(node, inner, explicit=True)
            case _:
                value = self.need(node, context)
                return self.apply(value, [piped], context, node.span, None)

    def _flow(self, node: ast.Expression, context: Context, explicit: bool = False) -> Any:
        """The node as a statement or stage: what is a layer gets `in`."""
        match node:
            case ast.Chain():
                head = self._flow(node.head, context)
                return self._stages(node, Given(head, node.head.span), context)
            case ast.Conditional():
                return self._conditional(node, context, True)
            case ast.Loop() | ast.Repetition():
                return self._fold(node, context, explicit)
            case ast.Numbered() | ast.Scoped():
                return self._in_scope(node, context, True)
            case _:
                pass
        value = self.evaluate(node, context)
        if not isinstance(value, LAYER_LIKE):
            return value
        if context.incoming is None:
            raise self.fail(
                "E0408", f"nothing flows into {describe(value)}", node.span, context=context,
                help=("start the chain with a tensor: `x -> ...`",),
            )  # fmt: skip
        incoming = Given(context.incoming, context.incoming_span)
        return self.apply(value, [incoming], context, node.span, None)

    def _compose(self, head: Any, node: ast.Chain, context: Context) -> Composition:
        elements = [self._element(head, node.head.span, context)]
        for stage in node.stages:
            if isinstance(stage, FLOWING):
                elements.append(Closure(stage, context.copy()))
            elif isinstance(stage, ast.Sink):
                raise self.fail("E0604", "nothing flows into this output", stage.span,
                                context=context)  # fmt: skip
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
                elements.append(self._element(self.need(stage, context), stage.span, context))
        return Composition(tuple(elements), node.span)

    def _element(self, value: Any, span: Span, context: Context) -> Any:
        if isinstance(value, Operator | BlockValue):
            return self.bind(value, (), context, span)
        if isinstance(value, Layer | Composition | Closure):
            return value
        raise self.fail("E0306", f"after `->` stands a layer, not {describe(value)}", span,
                        context=context)  # fmt: skip

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
            case Builtin():
                if piped:
                    raise self.fail("E0306", f"`{callee.name}` is a function, not a layer",
                                    node.callee.span, context=context)  # fmt: skip
                return self._function(callee, node, context)
            case Operator() | BlockValue():
                layer = self.bind(callee, node.arguments, context, node.span)
                data = any(g for n, g in layer.operands.items() if self._is_input(layer, n))
                if not piped and not layer.extra and not data:
                    if label is not None:
                        self._fix_label(layer, label, context)
                    return layer
                return self.apply(layer, inputs, context, node.span, label)
            case Layer() | Composition() | Closure():
                for argument in node.arguments:
                    value = self.need(argument.value, context)
                    if argument.name is not None or not is_tensors(value):
                        raise self.fail(
                            "E0303", "this layer has its arguments; give it tensors only",
                            argument.span, context=context,
                        )  # fmt: skip
                    inputs.append(Given(value, argument.value.span))
                return self.apply(callee, inputs, context, node.span, label)
            case _:
                raise self.fail(
                    "E0306", f"only layers and functions are called, not {describe(callee)}",
                    node.callee.span, context=context,
                )  # fmt: skip

    def _is_input(self, layer: Layer, name: str) -> bool:
        return isinstance(layer.factory, BlockValue)

    def _function(self, function: Builtin, node: ast.Call, context: Context) -> Any:
        values = [self.evaluate(argument.value, context) for argument in node.arguments]
        for argument in node.arguments:
            if argument.name is not None:
                raise self.fail("E0301", f"`{function.name}` takes no keywords",
                                argument.name.span, context=context)  # fmt: skip
        if POISON in values:
            raise Stop
        least, most = function.arity
        if len(values) < least or (most is not None and len(values) > most):
            count = str(least) if most == least else f"{least} to {most or 'many'}"
            raise self.fail("E0303", f"`{function.name}` takes {count} values, {len(values)} given",
                            node.span, context=context)  # fmt: skip
        return function.function(*values)

    def _named(self, node: ast.Named, context: Context, piped: Given | None) -> Any:
        """`value as label`"""
        inner = node.value
        if isinstance(inner, ast.Call):
            return self._call(inner, context, piped, node.label)
        if isinstance(inner, ast.Arithmetic) and piped is None:
            return self._arithmetic(inner, context, node.label)
        if isinstance(inner, FLOWING):
            raise self.fail("E0204", "`as` names one layer", node.label.span, context=context,
                            help=("name a group with `scope NAME { ... }`",))  # fmt: skip
        value = self.need(inner, context)
        if piped is not None:
            return self.apply(value, [piped], context, node.span, node.label)
        if not isinstance(value, LAYER_LIKE):
            raise self.fail("E0204", f"`as` names a layer, not {describe(value)}", node.span,
                            context=context, help=("bind a value with `name = ...`",))  # fmt: skip
        value = self._element(value, inner.span, context)
        self._fix_label(value, node.label, context)
        return value

    def _fix_label(self, layer: Any, label: ast.Text, context: Context) -> None:
        if isinstance(layer, Layer | Composition):
            layer.fixed_label = self._label(label, context)

    # Layers

    def apply(
        self, value: Any, inputs: Sequence[Given], context: Context, span: Span,
        label: ast.Text | None,
    ) -> Any:  # fmt: skip
        """Let the inputs flow into a layer."""
        if isinstance(value, Operator | BlockValue):
            value = self.bind(value, (), context, span)
        if not isinstance(value, Layer | Composition | Closure):
            help = ("join tensors with `+` or concat(a, b)",) if is_tensors(value) else ()
            raise self.fail("E0306", f"after `->` stands a layer, not {describe(value)}", span,
                            context=context, help=help)  # fmt: skip
        flat = [tensor for given in inputs for tensor in flatten(given)]
        for given in flat:
            if given.value is POISON:
                return POISON
            if not is_tensors(given.value):
                raise self.fail(
                    "E0307", f"a tensor flows into a layer, not {describe(given.value)}",
                    given.span or span, context=context,
                )  # fmt: skip
        match value:
            case Layer():
                return self._apply_layer(value, flat, context, span, label)
            case Composition():
                return self._apply_composition(value, flat, context, span, label)
            case Closure():
                inner = value.context.copy(names=context.names, frames=context.frames,
                                           incoming=self._joined(flat))  # fmt: skip
                return self._flow(value.node, inner, explicit=True)

    def _joined(self, inputs: Sequence[Given]) -> Any:
        if len(inputs) == 1:
            return inputs[0].value
        return ListValue.of(tuple(given.value for given in inputs))

    def _apply_composition(
        self, chain: Composition, inputs: Sequence[Given], context: Context, span: Span,
        label: ast.Text | None,
    ) -> Any:  # fmt: skip
        if chain.name or chain.fixed_label or label:
            part = self._claim(context, label, chain.fixed_label, chain.name or "", span)
            names = context.names.inside(part)
            if chain.home is None:
                chain.home = names.home
            else:
                names.home, names.shared = chain.home, True
            context = context.copy(names=names)
        given = Given(self._joined(inputs), inputs[0].span if inputs else span)
        for element in chain.elements:
            given = Given(self.apply(element, [given], context, span, None), span)
        return given.value

    def _apply_layer(
        self, layer: Layer, inputs: Sequence[Given], context: Context, span: Span,
        label: ast.Text | None,
    ) -> Any:  # fmt: skip
        factory = layer.factory
        if isinstance(factory, BlockValue) and self._inlined(layer, label):
            return self._inline(layer, factory, [*inputs, *layer.extra], context, span)
        base = factory.spelling if isinstance(factory, Operator) else factory.name
        part = self._claim(context, label, layer.fixed_label, layer.name or base, span)
        node_name = context.names.full(part)
        shared = context.names.shared or layer.home is not None
        layer.home = layer.home or context.names.key(part)
        tensors = [*inputs, *layer.extra]
        if isinstance(factory, BlockValue):
            names = LayerNames(node_name, layer.home, shared=shared)
            return self._instantiate(layer, factory, tensors, names, context, span)
        return apply_operator(
            self.session, context, factory.op, tensors, layer.arguments,
            node_name=node_name, home=layer.home, shared=shared, span=span, weights=layer.operands,
        )  # fmt: skip

    def _inlined(self, layer: Layer, label: ast.Text | None) -> bool:
        """`as _`: the block's layers are named as if they stood here."""
        return layer.fixed_label == INLINE if label is None else label.plain == INLINE

    def _inline(
        self, layer: Layer, factory: BlockValue, inputs: Sequence[Given], context: Context,
        span: Span,
    ) -> Any:  # fmt: skip
        if layer.home is not None:
            raise self.fail("E0203", f"`{factory.name}` is applied twice without a name", span,
                            context=context, help=("give it one: `as NAME`",))  # fmt: skip
        layer.home = context.names.home
        return self._instantiate(layer, factory, inputs, context.names, context, span)

    def _claim(
        self, context: Context, label: ast.Text | None, fixed: str | None, base: str, span: Span,
        positional: bool = True,
    ) -> str:  # fmt: skip
        """A layer's own part of its name."""
        names = context.names
        part = self._label(label, context) if label is not None else fixed
        if part is None:
            part = names.default(base, positional)
        else:
            if names.numbered and positional:
                names.skip()
            if part in names.taken:
                before = names.taken[part]
                notes = ((before, "first here"),) if before is not None else ()
                raise self.fail(
                    "E0203", f"two layers are called `{names.full(part)}`",
                    label.span if label is not None else span, *notes, context=context,
                    help=("in a loop, number them: `as \"name{i}\"`; to share weights, "
                          "`let f = ...` and use f twice",),
                )  # fmt: skip
        names.taken[part] = label.span if label is not None else span
        return part

    def _label(self, label: ast.Text, context: Context) -> str:
        text = self.text(label, context)
        if not LABEL.fullmatch(text):
            raise self.fail("E0204", f'"{text[:40]}" cannot be part of a name', label.span,
                            context=context, help=("letters, digits, `_` and `-`",))  # fmt: skip
        return text

    def combine(
        self, symbol: str, left: Given, right: Given, context: Context, span: Span,
        label: ast.Text | None,
    ) -> Any:  # fmt: skip
        if symbol not in TENSOR_OPERATORS:
            raise self.fail("E0401", f"`{symbol}` works on numbers, not on tensors", span,
                            context=context)  # fmt: skip
        op = BY_NAME[TENSOR_OPERATORS[symbol]]
        part = self._claim(context, label, None, op.name, span, positional=False)
        name = context.names.full(part)
        return apply_arithmetic(self.session, context, op, left, right, name, span)

    # Blocks

    def _instantiate(
        self, layer: Layer, factory: BlockValue, inputs: Sequence[Given], names: LayerNames,
        context: Context, span: Span,
    ) -> Any:  # fmt: skip
        definition = factory.definition
        frames = (Frame(describe_call(layer), span), *context.frames)
        inner = Context(Scope(factory.scope), names, factory.defaults, Results(), frames)
        self._arrive(definition, layer, inputs, inner, context, span)
        for parameter in definition.parameters:
            given = layer.arguments.get(parameter.name.id)
            if given is None:
                assert parameter.default is not None
                given = Given(self.evaluate(parameter.default, inner), None)
            self.define(parameter.name.id, given.value, inner)
        return self._result(definition, self.run(definition.body, inner, True), inner, span)

    def _arrive(
        self, definition: ast.Block | ast.Model, layer: Layer, inputs: Sequence[Given],
        inner: Context, context: Context, span: Span,
    ) -> None:  # fmt: skip
        """Match the tensors with the inputs that the block declares."""
        declared = [name.id for name in declared_inputs(definition)]
        waiting = list(inputs)
        if not declared:
            if len(waiting) != 1:
                raise self.fail(
                    "E0307", f"`{definition.name.id}` takes one tensor, {len(waiting)} given", span,
                    context=context, help=("declare them in the block: `input a, b`",),
                )  # fmt: skip
            inner.incoming, inner.incoming_span = waiting[0].value, waiting[0].span
            return
        named = layer.operands
        free = [name for name in declared if name not in named]
        if len(waiting) != len(free):
            listing = ", ".join(declared)
            raise self.fail(
                "E0307", f"`{definition.name.id}` takes {len(declared)} tensors ({listing}), "
                f"{len(waiting) + len(named)} given", span, context=context,
            )  # fmt: skip
        by_name = dict(zip(free, waiting, strict=True)) | dict(named)
        inner.arriving = tuple(by_name[name] for name in declared)
        if len(declared) == 1:
            inner.incoming, inner.incoming_span = inner.arriving[0].value, inner.arriving[0].span

    def _result(
        self, definition: ast.Block | ast.Model, last: Any, inner: Context, span: Span
    ) -> Any:
        """`output`s where there are some, else `out`, else the last value."""
        results = inner.results.values
        if results:
            return next(iter(results.values())) if len(results) == 1 else Record(dict(results))
        value = inner.scope.names.get("out", last)
        if value is POISON or is_tensors(value):
            return value
        what = "nothing" if value is NOTHING else describe(value)
        raise self.fail(
            "E0408", f"`{definition.name.id}` gives {what}, not a tensor", definition.name.span,
            context=inner, help=("end it with an expression, or bind `out`",),
        )  # fmt: skip

    def define(self, name: str, value: Any, context: Context) -> None:
        """Bind a variable; a layer without a name of its own is called after it."""
        if isinstance(value, Layer | Composition) and value.name is None and value.home is None:
            value.name = name
        context.scope.names[name] = value

    # Bodies

    def run(self, body: ast.Body, context: Context, flowing: bool) -> Any:
        """The value of the last statement; `flowing` tells whether `in` flows into layers."""
        value: Any = NOTHING
        last = len(body.statements) - 1
        for index, statement in enumerate(body.statements):
            try:
                self.session.step(statement.span, context.frames)
                value = self.execute(statement, context, flowing or index < last)
            except Stop:
                value = POISON
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
        for condition, body in node.branches:
            if self.condition(condition, context):
                return self.run(body, context.copy(), flowing)
        if node.otherwise is not None:
            return self.run(node.otherwise, context.copy(), flowing)
        return context.incoming if flowing and context.incoming is not None else NOTHING

    def _rounds(self, node: ast.Loop | ast.Repetition, context: Context) -> Sequence[Any]:
        """What a loop runs over, counted before it starts."""
        if isinstance(node, ast.Repetition):
            count = self.need(node.count, context)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise self.fail("E0305", f"`repeat` takes a count, not {describe(count)}",
                                node.count.span, context=context)  # fmt: skip
            if count > limits.ITERATIONS:
                raise self.session.halt("E0805", f"a loop of more than {limits.ITERATIONS:,} rounds",
                                        node.count.span, context.frames)  # fmt: skip
            return range(count)
        items = self.need(node.iterable, context)
        if isinstance(items, ListValue):
            return items.items
        if isinstance(items, tuple):
            return items  # pyright: ignore[reportUnknownVariableType]
        help = (f"write range({items})",) if isinstance(items, int) else ()
        raise self.fail("E0401", f"`for` runs over a list, not {describe(items)}",
                        node.iterable.span, context=context, help=help)  # fmt: skip

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
            raise self.fail("E0407", f"{len(targets)} names for {describe(value)}", span,
                            context=context)  # fmt: skip
        for target, part in zip(targets, parts, strict=True):
            self.define(target.id, part, context)

    def _fold(self, node: ast.Loop | ast.Repetition, context: Context, explicit: bool) -> Any:
        """Each round receives as `in` what the round before gave."""
        rounds = self._rounds(node, context)
        incoming, span = context.incoming, context.incoming_span
        gave = explicit or not len(rounds)
        for item in rounds:
            self._bind_round(node, item, context)
            value = self.run(node.body, context.copy(incoming=incoming, incoming_span=span), True)
            if value is NOTHING:
                continue
            gave = True
            incoming, span = value, node.body.span
            if value is not POISON and not is_tensors(value):
                raise self.fail("E0408", f"a round gives {describe(value)}, not a tensor",
                                node.body.span, context=context)  # fmt: skip
        return incoming if gave and incoming is not None else NOTHING

    def _collect(self, node: ast.Loop | ast.Repetition, context: Context) -> ListValue:
        """A loop as a value: the list of what its rounds give."""
        values: list[Any] = []
        for item in self._rounds(node, context):
            self._bind_round(node, item, context)
            value = self.run(node.body, context.copy(), False)
            if value is NOTHING:
                raise self.fail("E0408", "the rounds of this loop have no value", node.body.span,
                                context=context,
                                help=("end the body with an expression",))  # fmt: skip
            values.append(value)
        if any(value is POISON for value in values):
            raise Stop
        return checked_list(tuple(values))

    def _in_scope(self, node: ast.Numbered | ast.Scoped, context: Context, flowing: bool) -> Any:
        """The body with one more part in its layers' names."""
        numbered = isinstance(node, ast.Numbered)
        part = self._claim(context, node.label, None, "seq", node.span)
        inner = context.copy(names=context.names.inside(part, numbered))
        return self.run(node.body, inner, flowing)

    # Outputs

    def declare_output(self, label: ast.Text, given: Given, context: Context) -> None:
        """Record a result of the block or model."""
        name = self._label(label, context)
        results = context.results
        if name in results.values:
            raise self.fail("E0604", f"two outputs are called `{name}`", label.span,
                            (results.spans[name], "first here"), context=context)  # fmt: skip
        results.values[name] = given.value
        results.spans[name] = label.span
        if given.value is not POISON and not is_tensors(given.value):
            results.values[name] = POISON
            raise self.fail("E0604", f"an output is a tensor, not {describe(given.value)}",
                            label.span, context=context)  # fmt: skip

    def _stray_sink(self, node: ast.Sink, context: Context) -> Any:
        raise self.fail("E0604", "nothing flows into this output", node.span, context=context)
