"""Concatenation without copies: the parts are written straight into the whole.

At batch 1 the channels of a blocked tensor are consecutive runs of memory, so a part that
begins at a whole block is a tensor of its own at an offset into the whole. Where all channels of a
position lie side by side a part has a piece of each position: its kernels step over the others'.
No kernel is given two such parts of which it writes one: they lie in the same run of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.groups import kernels_of
from convdsl.ir.timing import Timing
from convdsl.kernel.layout import Layout
from convdsl.lowering.calls import Alias, Key
from convdsl.lowering.layouts import Layouts
from convdsl.lowering.narrowing import Narrowed


def find_slices(
    graph: Graph, layouts: Layouts, timing: Timing, narrowed: Narrowed, parts_at: int = 0
) -> dict[Key, Alias]:
    """Values that can lie inside the output of the concatenation they feed. A concatenation all
    of whose operands do needs no code; one with a single operand that does not is left alone.
    `parts_at`: of what pieces of positions begin at a multiple (`Machine.parts`)."""
    found: dict[Key, Alias] = {}
    beside = _beside(graph) if parts_at else {}
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
        lying = [layouts.of_value(part) for part in parts]
        whole = layouts.of_value(node.output)
        slices = _slices(node.output, element, whole, lying)
        if slices is None and parts_at and not _meet(node.output, parts, found, beside):
            slices = _pieces(node.output, element, whole, lying, parts_at)
        if slices is not None:
            found.update(zip(parts, slices, strict=True))
    return {key: _outermost(alias, found) for key, alias in found.items()}


def _outermost(alias: Alias, found: Mapping[Key, Alias]) -> Alias:
    """The same, with the pitch of the whole that all others lie in."""
    pitch, owner = alias.pitch, alias.owner
    while pitch and owner in found:
        pitch, owner = found[owner].pitch, found[owner].owner
    return replace(alias, pitch=pitch)


def _beside(graph: Graph) -> dict[Value, frozenset[Value]]:
    """What the group that makes a value reads, and makes besides."""
    found: dict[Value, frozenset[Value]] = {}
    for nodes in kernels_of(graph):
        touched = {value for node in nodes for value in (*node.inputs.values(), *node.outputs)}
        found |= {value: frozenset(touched - {value}) for n in nodes for value in n.outputs}
    return found


def _meet(
    whole: Value,
    parts: Iterable[Value],
    found: Mapping[Key, Alias],
    beside: Mapping[Value, frozenset[Value]],
) -> bool:
    """Whether some kernel would write one value that lies in the whole, and touch another."""
    inside: set[Key] = {whole, *parts}
    for part in reversed(found):  # a whole that is a part was found before
        if found[part].owner in inside:
            inside.add(part)
    joined = {whole, *(alias.owner for alias in found.values())}  # which no kernel writes
    return any(inside & beside[v] for v in inside - joined if isinstance(v, Value))


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


def _pieces(
    whole: Value, element: int, target: Layout | None, parts: Iterable[Layout | None], at: int
) -> list[Alias] | None:
    """Parts of every position, none of which is filled up: nothing may be written behind it."""
    if target is None or target.axis != 1 or target.blocks > 1 or target.block * element % at:
        return None
    pieces: list[Alias] = []
    channel = 0
    for layout in parts:
        if layout is None or layout.axis != 1 or layout.block != layout.shape[1]:
            return None
        if channel * element % at:
            return None
        pieces.append(Alias(whole, channel * element, pitch=target.block))
        channel += layout.shape[1]
    return pieces
