"""Concatenation without copies: the parts are written straight into the whole.

At batch 1 the channels of a blocked tensor are consecutive runs of memory, so a part that
begins at a whole block is a tensor of its own at an offset into the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.timing import Timing
from convdsl.kernel.layout import Layout
from convdsl.lowering.calls import Alias, Key
from convdsl.lowering.layouts import Layouts
from convdsl.lowering.narrowing import Narrowed


def find_slices(
    graph: Graph, layouts: Layouts, timing: Timing, narrowed: Narrowed
) -> dict[Key, Alias]:
    """Values that can lie inside the output of the concatenation they feed. A concatenation all
    of whose operands do needs no code; one with a single operand that does not is left alone."""
    found: dict[Key, Alias] = {}
    for node in graph.op_nodes():
        if node.op.name != "concat" or node.attributes["axis"] != 1 or node.group is not None:
            continue
        parts = list(node.inputs.values())
        if timing.is_bound(node) or len(set(parts)) < len(parts):
            continue
        if not all(_may_lie_inside(part, found, timing) for part in parts):
            continue
        if any(narrowed.type(p).dtype is not narrowed.type(node.output).dtype for p in parts):
            continue
        element = narrowed.type(node.output).dtype.bytes
        lying = map(layouts.of_value, parts)
        slices = _slices(node.output, element, layouts.of_value(node.output), lying)
        if slices is not None:
            found.update(zip(parts, slices, strict=True))
    return found


def _may_lie_inside(part: Value, found: Mapping[Key, Alias], timing: Timing) -> bool:
    made = isinstance(part.node, OpNode) and not timing.is_bound(part.node)
    return made and part not in found


def _slices(
    whole: Value, element: int, target: Layout | None, parts: Iterable[Layout | None]
) -> list[Alias] | None:
    if target is None or target.axis != 1 or target.shape[0] != 1:
        return None
    slices: list[Alias] = []
    channel, plane = 0, prod(target.shape[2:])
    for layout in parts:
        alike = layout is not None and (layout.axis, layout.block) == (1, target.block)
        if layout is None or not alike or channel % target.block:
            return None
        slices.append(Alias(whole, channel * plane * element))
        channel += layout.shape[1]
    return slices
