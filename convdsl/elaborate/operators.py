"""Applying operators: into the graph, with shared weights, fixed kernels, good errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import channels_in
from convdsl.elaborate.constants import constants, want_a_tensor
from convdsl.elaborate.joining import advice
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Session, Stop
from convdsl.elaborate.values import Given, ListValue, Record
from convdsl.elaborate.weights import known_weights, said_weights
from convdsl.ir.graph import StateNode, Value
from convdsl.ir.opdef import Kind, OpDef, Operand, OpError, Role, Unproven
from convdsl.ops import BY_NAME
from convdsl.ops.elementwise import SIGNS
from convdsl.tensor import format_shape


def apply_operator(
    session: Session,
    context: Context,
    op: OpDef,
    inputs: Sequence[Given],
    arguments: Mapping[str, Given],
    *,
    node_name: str,
    home: str,
    shared: bool,
    span: Span,
    weights: Mapping[str, Given] | None = None,
) -> Any:
    """The operator's result: a tensor, several by name, or a list of any number.

    `arguments` are converted attributes; `home` is the path of the weights; `weights` are
    tensors that stand for weights, fixed kernels, or words that say how weights start, by
    operand name.
    """
    want_a_tensor(session, context, op, inputs, span)
    inputs = constants(session, context, op, inputs, node_name)
    operands = _assign_operands(session, context, op, inputs, span)
    attributes = {name: given.value for name, given in arguments.items()} if arguments else {}
    values: dict[str, Value] = {name: given.value for name, given in operands.items()}
    session.count_node(span, context.frames)
    session.count_tensors(len(inputs), span, context.frames)
    try:
        if weights:
            values |= said_weights(session, context, op, values, attributes, weights, home)
        if shared:
            values |= known_weights(session, context, op, values, attributes, home, span)
        node = session.graph.apply(
            op, values, attributes, name=node_name, span=span, frames=context.frames
        )
    except OpError as error:
        raise _objection(session, context, error, op, operands, arguments, span) from None
    channels_in.check(session, context, op, operands, arguments)
    session.count_tensors(len(node.outputs), span, context.frames)
    for value in node.outputs:
        session.admit(value.type, span, context.frames)
    if len(op.operands) > len(op.data_operands):
        for operand in op.operands:
            if operand.role is not Role.DATA and operand.name in node.inputs:
                state = node.inputs[operand.name]
                if isinstance(state.node, StateNode):
                    session.states[state.node.name] = state
    if op.outputs[-1].endswith("*"):
        return ListValue.of(node.outputs)
    if len(op.outputs) > 1:
        return Record(dict(zip(op.outputs, node.outputs, strict=True)))
    return node.outputs[0]


def _assign_operands(
    session: Session, context: Context, op: OpDef, inputs: Sequence[Given], span: Span
) -> dict[str, Given]:
    """Tensors to operand names, in order; a variadic operand takes the rest."""
    wanted = op.data_operands
    variadic = wanted[-1] if wanted and wanted[-1].variadic else None
    fixed: tuple[Operand, ...] = wanted[:-1] if variadic else wanted
    least = sum(not operand.optional for operand in fixed) + (1 if variadic else 0)
    if len(inputs) < least or (variadic is None and len(inputs) > len(fixed)):
        count = f"{least} tensor{'s' if least != 1 else ''}"
        many = f"at least {count}" if variadic or least < len(fixed) else count
        flows = len(inputs) == len(fixed) + 1 and span.text.rstrip().endswith(")")
        help = f"what flows in is the first: `x -> {op.name}(y)` is `{op.name}(x, y)`"
        labels, lists = of_a_list(inputs, context)
        raise session.fail(
            "E0307",
            f"`{op.name}` takes {many}{_listed(fixed)}, {len(inputs)} given",
            span,
            *labels,
            frames=context.frames,
            help=lists
            or _joined(op, inputs, span)
            or ((help,) if flows and len(fixed) > 1 else ())
            or _sized(op, len(inputs))
            or _placed(fixed, len(inputs)),
        )
    if len(inputs) == len(fixed) == 1:
        return {fixed[0].name: inputs[0]}
    names = [operand.name for operand in fixed[: len(inputs)]]
    if variadic:
        names += [f"{variadic.name}{i}" for i in range(len(inputs) - len(names))]
    return dict(zip(names, inputs, strict=True))


_SHORT = 24
"""Letters of a list that stands in a help as it is written."""


def of_a_list(
    inputs: Sequence[Given], context: Context
) -> tuple[tuple[tuple[Span, str], ...], tuple[str, ...]]:
    """Labels and help where the tensors that are too many are those of one list."""
    spans = [given.span for given in inputs]
    list_ = spans[0] if spans else None
    if list_ is None or len(inputs) < 2 or any(span is not list_ for span in spans):
        return (), ()
    name = list_.text
    labels = ((list_, f"a list of {len(inputs)}"),)
    if name in context.results.values:
        return labels, (f"it is not the output `{name}`: call one of them otherwise",)
    if not name.isidentifier() and (len(name) > _SHORT or not name.startswith("[")):
        return labels, ()
    return labels, (f"join them, `concat({name})`, or take each: `for y in {name} {{ ... }}`",)


def _joined(op: OpDef, inputs: Sequence[Given], span: Span) -> tuple[str, ...]:
    """Help where one, or more than two, are added or multiplied, or one is wanted back from its
    pooling."""
    given, first = len(inputs), inputs[0].span if inputs else None
    if f"reduce_{op.name}" in BY_NAME and given == 1:
        return (f"of two: {op.name}(a, b); along axes reduce_{op.name}([1])",)
    if op.name in SIGNS and given == 1:
        name = first.text if first is not None and first.text.isidentifier() else "a"
        return (f"of two: {name} {SIGNS[op.name]} b",)
    called = first is not None and span.start <= first.start and first.end <= span.end
    if op.name in SIGNS and given > 2 and called:
        also = ", or sum([a, b, ...])" if op.name == "add" else ""
        return (f"of several: a {SIGNS[op.name]} b {SIGNS[op.name]} c{also}",)
    if op.name == "max_unpool" and given == 1:
        return ("y, places = x -> max_pool_with_positions(2), later y -> max_unpool(places, 2)",)
    return ()


def _placed(operands: Sequence[Operand], given: int) -> tuple[str, ...]:
    """Help where positions are missing, which are no attribute, or what a mask does not take."""
    if [operand.name for operand in operands][:1] == ["condition"] and given == 2:
        return ("say what stands where it does not hold: where(condition, a, 0.0)",)
    if given >= len(operands) or operands[given].name != "positions":
        return ()
    return ("positions are a tensor; a part that is known here is slice(axes, start, stop)",)


def _listed(operands: Sequence[Operand]) -> str:
    """What several operands are called, where that says more than letters."""
    names = [operand.name for operand in operands]
    return f" ({', '.join(names)})" if any(len(name) > 1 for name in names) else ""


def _sized(op: OpDef, given: int) -> tuple[str, ...]:
    """Help for two tensors, where the second is meant for its size."""
    attribute = op.attribute("size")
    if given != 2 or attribute is None or attribute.kind is not Kind.SHAPE:
        return ()
    return (f"to the size of another: `x -> {op.name}(size = y.space)`",)


def _objection(
    session: Session,
    context: Context,
    error: OpError,
    op: OpDef,
    operands: Mapping[str, Given],
    arguments: Mapping[str, Given],
    span: Span,
) -> Stop:
    """The rule's objection with carets: blamed attributes, then blamed operands."""
    labels: list[tuple[Span, str]] = []
    for name in error.attributes:
        given = arguments.get(name)
        if given is not None and given.span is not None:
            labels.append((given.span, ""))
    joined = len(operands) > 1 and all(
        g.span is not None
        and g.span.source is span.source
        and span.start <= g.span.start
        and g.span.end <= span.end
        for g in operands.values()
    )
    if not labels and not (joined and error.operands):
        labels.append((span, ""))
    for name in error.operands:
        given = operands.get(name)
        if given is not None and given.span is not None:
            labels.append((given.span, _provenance(given)))
    help = (
        channels_in.help_of(error, operands, arguments)
        or error.help
        or _of_one_type(error, operands)
        or advice(op, operands)
    )
    if isinstance(error, Unproven) and help:
        if help in session.undeclared:
            return Stop()  # what is to be declared was told before
        session.undeclared.add(help)
    return session.fail("E0501", error.message, *labels, frames=context.frames, help=help)


def _of_one_type(error: OpError, operands: Mapping[str, Given]) -> tuple[str, ...]:
    """How two operands that are blamed for their element types come to one."""
    blamed = [operands[name] for name in error.operands if name in operands]
    if len(blamed) != 2:
        return ()
    whole = [given for given in blamed if not given.value.type.dtype.is_float]
    types = {given.value.type.dtype for given in blamed}
    if len(types) != 2:
        return ()
    changed = whole[0] if len(whole) == 1 else blamed[1]
    other = blamed[0] if changed is blamed[1] else blamed[1]
    said = changed.span.text if changed.span is not None else ""
    name = said if said.isidentifier() else "..."
    return (f"of one element type: cast({name}, {other.value.type.dtype})",)


def _provenance(given: Given) -> str:
    """`[N, 64, 56, 56], from `bn` at resnet.cnn:6`."""
    value: Value = given.value
    shape = format_shape(value.type.shape)
    made = value.node.span
    if made is None or (
        given.span is not None
        and given.span.source is made.source
        and given.span.start <= made.start
        and made.end <= given.span.end
    ):
        return shape
    return f"{shape}, from `{value.node.name}` at {made.location}"
