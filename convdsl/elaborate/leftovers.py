"""What a sound graph holds to no purpose: layers and inputs that lead to no output, and layers that
are likely others than they were meant to be."""

from __future__ import annotations

import re
from collections.abc import Iterator

from convdsl.diagnostics import Frame, SourceFile, Span
from convdsl.elaborate.session import Session
from convdsl.elaborate.usage import Usage
from convdsl.ir.graph import Graph, InputNode, Node, OpNode, Value
from convdsl.ir.opdef import Reach, no_doubt
from convdsl.tensor import Window, format_shape

SPATIAL = 4
"""Axes of a tensor of samples, channels and two of space."""


def check_leftovers(session: Session, source: SourceFile, usage: Usage) -> None:
    """Warn of layers and inputs in no path to an output, where the text of `source` has them."""
    graph = session.graph
    contributing = graph.contributing()
    spare = [node for node in graph.nodes() if node not in contributing]
    if not spare:
        return
    read = {
        value.node for node in spare if isinstance(node, OpNode) for value in node.inputs.values()
    }
    calls = {call for node in contributing for call in _calls(node)}
    living = {_place(node) for node in contributing}
    known = [*usage.meant, *(binding.statement for binding in usage.suspected)]
    for node in spare:
        if node in read or node.span is None or _own_part(node).startswith("_"):
            continue
        if isinstance(node, InputNode):
            binding = usage.inputs.get(node.name)
            if binding is not None and not binding.read:
                _warn_of_input(session, node.name, node.span)
        elif isinstance(node, OpNode) and not _within(node, known):
            if _place(node) in living and _within(node, usage.carried):
                continue  # what the last round leaves for one that does not come
            span, frames = _outermost(node, calls)
            if span is not None and span.source is source:
                text = f"`{node.name}` is in no path to an output"
                session.warn("W0409", text, span, frames=frames, help=(_SPARE,))


_SPARE = "use what it gives, or leave it out; bound to a name with `_` it may stay"


def _place(node: Node) -> tuple[Span | None, ...]:
    """Where a node's text stands, and the calls that led there, the innermost first."""
    return (node.span, *(frame.span for frame in node.frames))


def _calls(node: Node) -> Iterator[tuple[Span | None, ...]]:
    """The places of the calls around a node."""
    place = _place(node)
    return (place[start:] for start in range(1, len(place)))


def _outermost(
    node: Node, living: set[tuple[Span | None, ...]]
) -> tuple[Span | None, tuple[Frame, ...]]:
    """Where a leftover is: the outermost call of a block of which nothing is left, or itself."""
    place = _place(node)
    for start in range(len(place) - 1, 0, -1):
        if place[start:] not in living:
            return place[start], node.frames[start:]
    return node.span, node.frames


def _warn_of_input(session: Session, name: str, span: Span) -> None:
    text = f"nothing uses the input `{name}`"
    session.warn("W0202", text, span, help=(f"call it `_{name}` if that is on purpose",))


def _own_part(node: Node) -> str:
    return node.name.rpartition(".")[2]


def _within(node: Node, places: list[Span]) -> bool:
    """Whether a node stands in one of the places, or was made by a block that is called there."""
    return any(
        span is not None
        and span.source is place.source
        and place.start <= span.start
        and span.end <= place.end
        for span in _place(node)
        for place in places
    )


def check_doubts(session: Session, source: SourceFile) -> None:
    """Warn of layers that take a map of space for something else; of channels that come last."""
    graph: Graph = session.graph
    for name, value in graph.inputs.items():
        if value.node.span is not None and value.node.span.source is source:
            _check_order(session, name, value)
    for node in graph.op_nodes():
        if node.op.name in _SHARES and node.span is not None and node.span.source is source:
            _check_shares(session, node, node.span)
        if node.op.doubt is no_doubt or node.span is None or node.span.source is not source:
            continue
        doubt = node.op.doubt(node.call)
        if doubt is None or _own_part(node).startswith("_") or not _is_map(node.data_inputs[0]):
            continue
        text, help = doubt
        session.warn("W0501", text, node.span, frames=node.frames, help=(help,))


_SHARES = ("softmax", "log_softmax")
_SAYS_AXIS = re.compile(r"\baxis\b|[(,]\s*-?\d")


def _check_shares(session: Session, node: OpNode, span: Span) -> None:
    """Warn of shares over the second axis, where none is said, of what products of matrices made:
    scores of attention are shared out over the last."""
    value, axis = node.data_inputs[0], node.attributes["axis"]
    named = _SAYS_AXIS.search(span.text) or _own_part(node).startswith("_")
    if named or value.type.rank < 3 or axis % value.type.rank != 1 or not _is_product(value):
        return
    text = f"`{node.op.name}` goes over axis 1 of {format_shape(value.type.shape)}, a product"
    help = "over the last, as attention: softmax(-1); where the second is meant, softmax(1)"
    session.warn("W0501", text, span, frames=node.frames, help=(help,))


def _is_product(value: Value) -> bool:
    """Whether a tensor is a product of matrices, scaled or masked."""
    node = value.node
    for _ in range(8):
        if not isinstance(node, OpNode) or not node.data_inputs:
            return False
        if node.op.name in ("matmul", "einsum"):
            return True
        source = next((v for v in node.data_inputs if v.type.shape == value.type.shape), None)
        if source is None or node.op.window(node.call) is not Reach.POINTWISE:
            return False
        node = source.node
    return False


def _check_order(session: Session, name: str, value: Value) -> None:
    """Warn of an image whose channels come last."""
    shape = value.type.shape
    if len(shape) != SPATIAL or name.startswith("_") or value.node.span is None:
        return
    batch, channels, rows, columns = shape
    square = isinstance(channels, int) and channels == rows and channels > 2 * _COLOURS
    if square and isinstance(columns, int) and columns in (1, 3, _COLOURS):
        text = f"`{name}` has {channels} channels, of {rows} x {columns} pixels"
        help = f"channels come second: {value.type.dtype}[{batch}, {columns}, {channels}, {rows}]"
        session.warn("W0501", text, value.node.span, help=(help,))


_COLOURS = 4
"""Channels of an image, at most."""


def _is_map(value: Value) -> bool:
    """Whether the last axes are space: as an input has them, or what windows slide over."""
    while isinstance(node := value.node, OpNode):
        operands = node.data_inputs
        if not operands or operands[0].type.rank != value.type.rank:
            return False
        rule = node.op.window(node.call)
        if isinstance(rule, Window):
            return all(stride > 0 for stride in rule.stride)
        if rule is not Reach.POINTWISE:
            resized = sorted(map(str, operands[0].type.shape)) != sorted(map(str, value.type.shape))
            return rule is Reach.DERIVED and len(operands) == 1 and resized
        if operands[0].type.shape != value.type.shape:
            return False
        value = operands[0]
    return isinstance(node, InputNode) and value.type.rank >= SPATIAL
