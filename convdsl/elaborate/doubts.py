"""Layers of a sound graph that are likely others than they were meant to be."""

from __future__ import annotations

import re
from typing import cast

from convdsl.diagnostics import SourceFile, Span
from convdsl.elaborate.leftovers import own_part
from convdsl.elaborate.session import Session
from convdsl.ir.graph import Graph, InputNode, OpNode, Value
from convdsl.ir.opdef import Reach, no_doubt
from convdsl.tensor import Window, format_shape

SPATIAL = 4
"""Axes of a tensor of samples, channels and two of space."""


def check_doubts(session: Session, source: SourceFile) -> None:
    """Warn of layers that take a map of space for something else; of channels that come last."""
    graph: Graph = session.graph
    for name, value in graph.inputs.items():
        if value.node.span is not None and value.node.span.source is source:
            _check_order(session, name, value)
    for node in graph.op_nodes():
        if node.span is not None and node.span.source is source:
            _check_window(session, node, node.span)
            _check_momentum(session, node, node.span)
        if node.op.name in _SHARES and node.span is not None and node.span.source is source:
            _check_shares(session, node, node.span)
        if node.op.doubt is no_doubt or node.span is None or node.span.source is not source:
            continue
        doubt = node.op.doubt(node.call)
        if doubt is None or own_part(node).startswith("_") or not _is_map(node.data_inputs[0]):
            continue
        if doubt.of and re.search(rf"\b{doubt.of}\s*=", node.span.text):
            continue
        session.warn("W0501", doubt.text, node.span, frames=node.frames, help=(doubt.help,))


_SHARES = ("softmax", "log_softmax")
_SAYS_AXIS = re.compile(r"\baxis\b|[(,]\s*-?\d")


def _check_shares(session: Session, node: OpNode, span: Span) -> None:
    """Warn of shares over the second axis, where none is said, of what products of matrices made:
    scores of attention are shared out over the last."""
    value, axis = node.data_inputs[0], node.attributes["axis"]
    named = _SAYS_AXIS.search(span.text) or own_part(node).startswith("_")
    if named or value.type.rank < 3 or axis % value.type.rank != 1 or not _is_product(value):
        return
    text = f"`{node.op.name}` goes over axis 1 of {format_shape(value.type.shape)}, a product"
    help = "over the last, as attention: softmax(-1); where the second is meant, softmax(1)"
    session.warn("W0501", text, span, frames=node.frames, help=(help,))


_POOLS_ONE = re.compile(r"pool\w*\s*\(\s*(?:kernel\s*=\s*)?1(?:x1)*\s*[,)]")
_FILTERS = ("conv", "deform_conv")


def _check_window(session: Session, node: OpNode, span: Span) -> None:
    """Warn of a filter of which some taps lie outside the map wherever it stands, and of a pool of
    windows of one element."""
    rule = node.op.window(node.call) if node.data_inputs else None
    if not isinstance(rule, Window) or own_part(node).startswith("_"):
        return
    if _POOLS_ONE.search(span.text) and set(rule.stride) == {1}:
        text = "a window of one element leaves the map as it is"
        help = "to one element: avgpool(global), or adaptive_avgpool(1)"
        session.warn("W0501", text, span, frames=node.frames, help=(help,))
    space = node.data_inputs[0].type.shape[2:]
    outside = [axis for axis in range(rule.rank) if _is_outside(rule, axis, space[axis])]
    if node.op.name in _FILTERS and outside:
        field = "x".join(str(rule.extent(axis)) for axis in range(rule.rank))
        size = "x".join(map(str, space))
        text = f"a filter of {field}, of which some weights meet nothing of a map of {size}"
        dilated = max(rule.dilation) > 1
        help = f"less dilation, or a larger map: {size} comes in here"
        if not dilated:
            help = f"a smaller kernel; one of the whole map is {size}, with pad = 0"
        session.warn("W0501", text, span, frames=node.frames, help=(help,))


_WIDE = 16
"""Span of a filter, at least, that is told to reach beyond a map: small maps have small filters."""


def _is_outside(rule: Window, axis: int, size: object) -> bool:
    """Whether the first tap, or the last, meets the map nowhere."""
    extent, (before, after) = rule.extent(axis), rule.padding[axis]
    known = (extent, before, after, size)
    if any(type(number) is not int for number in known):
        return False
    span, first, last, length = (int(cast("int", number)) for number in known)
    if span < _WIDE or span <= length:
        return False
    moved = (first + length + last - span) // rule.stride[axis] * rule.stride[axis]
    return moved - first < 0 or span - 1 - first >= length


def _check_momentum(session: Session, node: OpNode, span: Span) -> None:
    """Warn once of running statistics that keep little: Keras and ONNX count what stays."""
    momentum = node.attributes.get("momentum")
    if node.op.name != "batch_norm" or not isinstance(momentum, float) or momentum <= _MOST:
        return
    text = f"momentum = {momentum:g} is the share of a batch in the running statistics"
    help = f"where {momentum:g} is what stays of them, as of Keras: momentum = {1 - momentum:g}"
    if all(told.message != text for told in session.warnings):
        session.warn("W0501", text, span, frames=node.frames, help=(help,))


_MOST = 0.5
"""The share of a batch in running statistics, at most, that is not told of."""


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
