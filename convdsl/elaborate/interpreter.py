"""What flows: chains, what stands in them, and calls.

A chain hands each stage the value before it. A body in braces receives it as `in`; where the
last expression of such a body is a layer or a chain of layers, `in` flows into it.
"""

from __future__ import annotations

from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import foreign
from convdsl.elaborate.bodies import Bodies
from convdsl.elaborate.builtins import TENSOR_ATTRIBUTES
from convdsl.elaborate.functions import Functions
from convdsl.elaborate.leading import (
    FLOWING,
    Flowing,
    begins_with_a_layer,
    ends_with_weights,
    first_operand,
    follows,
    stands_before_another,
)
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Session, Stop
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
    describe,
    is_tensors,
)
from convdsl.ir.graph import Value
from convdsl.syntax import ast


def _of_a_tensor(node: ast.Call) -> tuple[str, ...]:
    """Help for `x.height()`, which is a number."""
    called = node.callee
    if not isinstance(called, ast.Member) or called.name.id not in TENSOR_ATTRIBUTES:
        return ()
    if node.arguments:
        index = node.arguments[0].span.text
        return (f"one of its sizes is `{called.object.span.text}.shape[{index}]`",)
    return (f"it is no function: `{called.span.text}`",)


def _indexed(node: ast.Call, callee: Any) -> tuple[str, ...]:
    """Help for an element of a list in round brackets."""
    if not isinstance(callee, ListValue | tuple) or len(node.arguments) != 1:
        return ()
    index = node.arguments[0].span.text
    return (f"an element stands in square brackets: {node.callee.span.text}[{index}]",)


def _is_handed_tensors(layer: Layer) -> bool:
    """Whether a call names tensors: declared inputs, or parameters that are some."""
    return bool(layer.operands) or any(is_tensors(g.value) for g in layer.arguments.values())


class Interpreter(Functions, Bodies):
    """Evaluates everything that makes layers."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._stranded: Span | None = None  # the last layer that nothing flowed into
        self._rules |= {
            ast.Chain: self._chain,
            ast.Call: lambda node, context: self._call(node, context, None, None),
            ast.Named: lambda node, context: self._named(node, context, None),
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
                value = self.conditional(node, context, True)
                return context.incoming if explicit and value is NOTHING else value
            case ast.Loop() | ast.Repetition():
                return self.fold(node, context, explicit)
            case ast.Numbered() | ast.Scoped():
                return self.in_scope(node, context, True)

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
                        help=(foreign.flowing(callee.name, node.span.text),),
                    )
                return self.function(callee, node, context, label)
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
                    help=_of_a_tensor(node)
                    or _indexed(node, callee)
                    or hidden(node.callee.span.text, callee)
                    or foreign.name(node.callee.span.text),
                )

    def _named(self, node: ast.Named, context: Context, piped: Given | None) -> Any:
        """`value as label`"""
        inner = node.value
        if isinstance(inner, ast.Call):
            return self._call(inner, context, piped, node.label)
        self._doubt_name(node, context)
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

    def _doubt_name(self, node: ast.Named, context: Context) -> None:
        """Warn of `x + parameter([8]) as position`: that is the name of the sum."""
        call = ends_with_weights(node.value, context)
        name = node.label.plain
        if call is None or name is None or name.startswith("_"):
            return
        if ")" in node.span.source.text[call.span.end : node.label.span.start]:
            return  # in brackets: it is said what has the name
        assert isinstance(node.value, ast.Arithmetic)
        layer, sign = call.callee.span.text, node.value.rest[-1][0]
        text = f"`{name}` is the name of what `{sign}` gives, not of `{layer}`"
        alone, whole = f"({layer}(...) as {name})", f"(... {sign} {layer}(...)) as {name}"
        help = f"of the layer: `{alone}`; of the whole: `{whole}`"
        self.session.warn("W0501", text, node.label.span, frames=context.frames, help=(help,))

    def _fix_label(self, layer: Any, label: ast.Text, context: Context) -> None:
        if isinstance(layer, Layer | Composition):
            layer.fixed_label = self.label_of(label, context)

    def flow(self, node: ast.Expression, context: Context) -> Any:
        """An expression statement."""
        self.session.enter(node.span, context.frames)
        try:
            return self._flow(node, context)
        finally:
            self.session.depth -= 1

    def _stray_sink(self, node: ast.Sink, context: Context) -> Any:
        raise self.fail(context, "E0604", "nothing flows into this output", node.span)
