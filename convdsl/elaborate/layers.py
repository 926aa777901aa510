"""Layers: letting tensors flow into them, what they are called, blocks within blocks."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from convdsl.diagnostics import Frame, Span
from convdsl.elaborate.calls import describe_call, flatten, listed
from convdsl.elaborate.leading import follows
from convdsl.elaborate.naming import LABEL
from convdsl.elaborate.operators import apply_operator, of_a_list
from convdsl.elaborate.scope import Context, LayerNames, Results, Scope
from convdsl.elaborate.signs import Signs
from convdsl.elaborate.unknown import hidden
from convdsl.elaborate.unused import KNOWN
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
    format_value,
    is_number,
    is_tensors,
)
from convdsl.ir.graph import Value
from convdsl.syntax import ast

INLINE = "_"
ROUNDS = "`repeat` and `for` as values are lists; layers in a row stand in a block, used as NAME()"


class Layers(Signs):
    """Applies layers, compositions and blocks, and gives them their names."""

    _unused: Span | None = None  # the last statement that was said to go nowhere

    @abstractmethod
    def run(self, body: ast.Body, context: Context, flowing: bool) -> Any:
        """The value of the last statement; `flowing` tells whether `in` flows into layers."""

    @abstractmethod
    def flow_stage(self, node: ast.Expression, context: Context) -> Any:
        """What a loop, condition or scope makes of `in`."""

    # Applying

    def apply(
        self,
        value: Any,
        inputs: Sequence[Given],
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        """Let the inputs flow into a layer."""
        if not isinstance(value, Layer | Composition | Closure):
            value = self._made(value, context, span)
        if len(inputs) != 1 or not isinstance(inputs[0].value, Value):
            inputs = [tensor for given in inputs for tensor in flatten(given)]
            if not self._all_tensors(inputs, context, span):
                return POISON
        return self._let_flow(value, inputs, context, span, label)

    def _made(self, value: Any, context: Context, span: Span) -> Layer:
        """A layer of what stands for one: a bare name makes a new one."""
        if isinstance(value, Builtin) and value.name in SPELLED:
            value = SPELLED[value.name]
        if isinstance(value, Operator | BlockValue):
            return self.bind(value, (), context, span)
        help = ("join tensors with `+` or concat(a, b)",) if is_tensors(value) else ()
        if is_tensors(value) and (signed := _SIGNED.match(span.text)):
            help = (f"a stage goes on with its sign, without another `->`: `f {signed[1]} x`",)
        if is_number(value):
            help = (f"to scale by it: `... * {format_value(value)}`",)
        if isinstance(value, str) and value in SPELLED:
            help = (f"write it without quotes: {value}",)
        help = hidden(span.text, value) or help
        layers = (Layer, Composition, Closure)
        if isinstance(value, ListValue) and any(isinstance(i, layers) for i in value.items):
            help = ("let the tensor flow into each: concat(x -> a, x -> b)", ROUNDS)
        text = f"after `->` stands a layer, not {describe(value)}"
        raise self.fail(context, "E0306", text, span, help=help)

    def _all_tensors(self, inputs: Sequence[Given], context: Context, span: Span) -> bool:
        """Whether all inputs are tensors; False where one is poison."""
        for given in inputs:
            if given.value is POISON:
                return False
            if not is_tensors(given.value):
                text = f"a tensor flows into a layer, not {describe(given.value)}"
                help = (ROUNDS,) if isinstance(given.value, LAYER_LIKE) else ()
                name = given.span.text if given.span is not None else ""
                if name in self.session.graph.inputs:
                    help = (f"the input `{name}` is hidden by what is bound to its name since",)
                raise self.fail(context, "E0307", text, given.span or span, help=help)
        return True

    def _let_flow(
        self,
        value: Layer | Composition | Closure,
        flat: Sequence[Given],
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        match value:
            case Layer():
                return self._apply_layer(value, flat, context, span, label)
            case Composition():
                return self._apply_composition(value, flat, context, span, label)
            case Closure():
                inner = value.context.copy(context.names, context.frames)
                inner.incoming = self._joined(flat)
                return self.flow_stage(value.node, inner)

    def _joined(self, inputs: Sequence[Given]) -> Any:
        if len(inputs) == 1:
            return inputs[0].value
        return ListValue.of(tuple(given.value for given in inputs))

    def _apply_composition(
        self,
        chain: Composition,
        inputs: Sequence[Given],
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        if chain.name or chain.fixed_label or label:
            again = chain.home is not None  # its name is taken, by itself
            fixed, base = chain.fixed_label, chain.name or ""
            fixed, base = (None, fixed or base) if again else (fixed, base)
            part = self.claim(context, label, fixed, base, span)
            names = context.names.inside(part)
            if chain.home is None:
                chain.home = names.home
            else:
                names.home, names.shared = chain.home, True
            context = context.copy(names)
        given = Given(self._joined(inputs), inputs[0].span if inputs else span)
        for element in chain.elements:
            given = Given(self.apply(element, [given], context, span, None), span)
        return given.value

    def _apply_layer(
        self,
        layer: Layer,
        inputs: Sequence[Given],
        context: Context,
        span: Span,
        label: ast.Text | None,
    ) -> Any:
        factory = layer.factory
        if isinstance(factory, BlockValue) and self._inlined(layer, label):
            return self._inline(layer, factory, [*inputs, *layer.extra], context, span)
        fixed, base = layer.fixed_label, layer.name or factory.name
        if layer.home is not None:  # applied again: its name is taken, by itself
            fixed, base = None, fixed or base
        part = self.claim(context, label, fixed, base, span)
        node_name = context.names.full(part)
        shared = context.names.shared or layer.home is not None
        layer.home = layer.home or context.names.key(part)
        tensors = [*inputs, *layer.extra]
        if isinstance(factory, BlockValue):
            names = LayerNames(node_name, layer.home, shared=shared)
            return self._instantiate(layer, factory, tensors, names, context, span)
        return apply_operator(
            self.session,
            context,
            factory.op,
            tensors,
            layer.arguments,
            node_name=node_name,
            home=layer.home,
            shared=shared,
            span=span,
            weights=layer.operands,
        )

    def _inlined(self, layer: Layer, label: ast.Text | None) -> bool:
        """`as _`: the block's layers are named as if they stood here."""
        return layer.fixed_label == INLINE if label is None else label.plain == INLINE

    def _inline(
        self,
        layer: Layer,
        factory: BlockValue,
        inputs: Sequence[Given],
        context: Context,
        span: Span,
    ) -> Any:
        if layer.home is not None:
            raise self.fail(
                context,
                "E0203",
                f"`{factory.name}` is applied twice without a name",
                span,
                help="give it one: `as NAME`",
            )
        layer.home = context.names.home
        return self._instantiate(layer, factory, inputs, context.names, context, span)

    # Blocks

    def _instantiate(
        self,
        layer: Layer,
        factory: BlockValue,
        inputs: Sequence[Given],
        names: LayerNames,
        context: Context,
        span: Span,
    ) -> Any:
        definition = factory.definition
        self.session.instantiated.add(id(definition))
        frames = (Frame(describe_call(layer), span), *context.frames)
        inner = Context(Scope(factory.scope), names, factory.defaults, Results(), frames)
        self._arrive(factory, layer, inputs, inner, context, span)
        for parameter in definition.parameters:
            given = layer.arguments.get(parameter.name.id)
            if given is None:
                assert parameter.default is not None
                given = Given(self.evaluate(parameter.default, inner), None)
            self.define(parameter.name.id, given.value, inner)
        return self._result(definition, self.run(definition.body, inner, True), inner, span)

    def _arrive(
        self,
        factory: BlockValue,
        layer: Layer,
        inputs: Sequence[Given],
        inner: Context,
        context: Context,
        span: Span,
    ) -> None:
        """Match the tensors with the inputs that the block declares."""
        declared = factory.signature.operands
        waiting = list(inputs)
        if not declared:
            if not waiting and any(is_tensors(g.value) for g in layer.arguments.values()):
                return  # all that it works on stands in its parameters
            if len(waiting) != 1:
                labels, lists = of_a_list(waiting, context)
                raise self.fail(
                    context,
                    "E0307",
                    f"`{factory.name}` takes one tensor, {len(waiting)} given",
                    span,
                    *labels,
                    help=lists or listed(factory) or "declare them in the block: `input a, b`",
                )
            inner.incoming, inner.incoming_span = waiting[0].value, waiting[0].span
            return
        named = layer.operands
        free = [name for name in declared if name not in named]
        if len(waiting) != len(free):
            listing = ", ".join(declared)
            raise self.fail(
                context,
                "E0307",
                f"`{factory.name}` takes {len(declared)} tensors ({listing}), "
                f"{len(waiting) + len(named)} given",
                span,
            )
        by_name = dict(zip(free, waiting, strict=True)) | dict(named)
        inner.arriving = tuple(by_name[name] for name in declared)
        if len(declared) == 1:
            inner.incoming, inner.incoming_span = inner.arriving[0].value, inner.arriving[0].span

    def _result(
        self, definition: ast.Block | ast.Model, last: Any, inner: Context, span: Span
    ) -> Any:
        """`output`s where there are some, else `out`, else the last value."""
        results = inner.results.values
        if (results or "out" in inner.scope.names) and definition.body.statements:
            self.check_used(last, definition.body.statements[-1], inner)
        if results:
            return next(iter(results.values())) if len(results) == 1 else Record(dict(results))
        value = inner.scope.names.get("out", last)
        if value is POISON or is_tensors(value):
            return value
        what = "nothing" if value is NOTHING else describe(value)
        raise self.fail(
            inner,
            "E0408",
            f"`{definition.name.id}` gives {what}, not a tensor",
            definition.name.span,
            help="end it with an expression, or bind `out`",
        )

    def check_used(self, value: Any, statement: ast.Statement, context: Context) -> None:
        """A statement whose result goes nowhere is a mistake; handing on `in` is none."""
        if not is_tensors(value) or value is context.incoming:
            return
        help = "bind it (`x = ...`), go on with `->`, or end it with `-> output NAME`"
        before, self._unused = self._unused, statement.span
        if follows(before, statement.span):
            return  # lines that follow each other are one mistake
        if _is_bare_layer(statement, context):
            help = "layers follow each other with `->`, also over lines"
        elif statement.span.text.startswith("-"):
            help = further_in(statement)
            self.session.causes.add(statement.span)
        text = "the result of this statement is not used"
        self.fail(context, "E0409", text, statement.span, help=help)

    def define(self, name: str, value: Any, context: Context) -> None:
        """Bind a variable; a layer without a name of its own is called after it."""
        if isinstance(value, Layer | Composition) and value.name is None and value.home is None:
            value.name = name
        context.scope.names[name] = value

    # Outputs

    def declare_output(self, label: ast.Text, given: Given, context: Context) -> None:
        """Record a result of the block or model."""
        name = self.label_of(label, context, LABEL)
        results = context.results
        if name in results.values:
            again = results.spans[name] == label.span  # in another round
            raise self.fail(
                context,
                "E0604",
                f"two outputs are called `{name}`",
                label.span,
                *(() if again else ((results.spans[name], "first here"),)),
                help=self._outputs_alike(label, again, context),
            )
        is_result = given.value is POISON or is_tensors(given.value)
        results.values[name] = given.value if is_result else POISON
        results.spans[name] = label.span
        if name not in KNOWN and not context.scope.find(name)[0]:
            context.scope.names[name] = results.values[name]  # it may be read below
        if not is_result:
            what = f"an output is a tensor, not {describe(given.value)}"
            layer = given.span.text if given.span and isinstance(given.value, LAYER_LIKE) else None
            help = (f"let something flow in: `x -> {layer} -> output {name}`",) if layer else ()
            raise self.fail(context, "E0604", what, label.span, help=help)

    def _outputs_alike(self, label: ast.Text, again: bool, context: Context) -> tuple[str, ...]:
        """Help for an output of each round, or for a variable that is taken for what it holds."""
        name = label.span.text
        held = self.held_by(name, context) if name.isidentifier() else None
        if held is not None:
            return (f'`{name}` is the name itself; what it holds, {held}: `output "{{{name}}}"`',)
        if again:
            return (f'number them: `for i in range(n) {{ ... output "{name.strip(_Q)}{{i}}" }}`',)
        return ("call one of them otherwise",)


_Q = '"'
_SIGNED = re.compile(r"([+-])")


def further_in(statement: ast.Statement) -> str:
    """Help for a line that begins with `-` and was to go on with the one before."""
    line = statement.span.text[1:].strip().partition("\n")[0]
    return f"a line goes on with a `-` that is further in, and a space: `    - {line}`"


def _is_bare_layer(statement: ast.Statement, context: Context) -> bool:
    """Whether `in` flows into it without being named: `relu`, `conv(8, 3x3)`."""
    layer = statement.value if isinstance(statement, ast.Evaluation) else None
    given = layer.arguments if isinstance(layer, ast.Call) else ()
    tensors = (a.value for a in given if isinstance(a.value, ast.Name))
    return isinstance(layer, ast.Name | ast.Call) and not any(
        is_tensors(context.scope.find(name.id)[1]) for name in tensors
    )
