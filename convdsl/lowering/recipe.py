"""Packings as JSON: how a compiled program that was kept gets its weights.

A weight is told by its node's position in the graph, which must be equal to the one that was
lowered (ir.canonical says so); one that a stage of a group makes, by the position of the group's
last node and the variable. Reading composes such a group, and lowers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from convdsl.ir.graph import Graph, Node, OpNode
from convdsl.ir.groups import leaving
from convdsl.ir.timing import Timing
from convdsl.kernel.expr import Stage
from convdsl.kernel.layout import Layout
from convdsl.lowering.compose import Composer
from convdsl.lowering.layouts import plain_layout
from convdsl.lowering.packing import Packing, Source, bound_sources
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Pack
from convdsl.tensor import DType


def packings_to_json(
    graph: Graph, machine: Machine, packings: Sequence[Packing]
) -> list[dict[str, Any]]:
    """How weights are packed, for the artifact: forms by their names, nodes by their numbers."""
    number = {node.id: position for position, node in enumerate(graph.nodes())}
    rows: list[dict[str, Any]] = []
    for packing in packings:
        value, form = packing.source.value, type(packing.pack).__name__
        row = {
            "form": form,
            "fields": _fields_of(packing.pack, machine.packs[form]),
            "dtype": packing.dtype.value,
            "offset": packing.offset,
        }
        if value is not None:
            row |= {"node": number[value.node.id], "output": value.index}
        else:
            assert packing.source.stage is not None
            last, variable = packing.source.stage
            row |= {"group": number[last.id], "stage": variable}
        rows.append(row)
    return rows


def packings_from_json(
    graph: Graph, machine: Machine, rows: Sequence[Mapping[str, Any]]
) -> tuple[Packing, ...]:
    """The packings over the values of this graph."""
    nodes = graph.nodes()
    made = _stage_sources(graph, [nodes[int(row["group"])] for row in rows if "group" in row])
    packings: list[Packing] = []
    for row in rows:
        if "group" in row:
            source = made[nodes[int(row["group"])]][row["stage"]]
        else:
            source = Source(nodes[int(row["node"])].outputs[int(row["output"])])
        told = {key: _value(item) for key, item in row["fields"].items()}
        pack = machine.packs[row["form"]](**told)
        packings.append(Packing(source, pack, DType(row["dtype"]), int(row["offset"])))
    return tuple(packings)


def _stage_sources(graph: Graph, last: Sequence[Node]) -> dict[Node, dict[str, Source]]:
    """What stages make of weights in the groups that end with these nodes."""
    timing = Timing(graph)
    composer = Composer(timing, _plainly)
    found: dict[Node, dict[str, Source]] = {}
    for node in {n for n in last if isinstance(n, OpNode)}:
        alone = node.group is None
        group = [node] if alone else [n for n in graph.op_nodes() if n.group == node.group]
        composed = composer.compose(group, leaving(graph, group))
        found[node] = bound_sources(composed, node, timing)
    return found


def _plainly(_: OpNode, stage: Stage) -> Layout:
    """Stages over weights alone do not depend on how tensors lie."""
    return plain_layout(stage)


def _fields_of(pack: Pack, form: type[Pack]) -> dict[str, Any]:
    return {f.name: getattr(pack, f.name) for f in fields(form)}  # pyright: ignore[reportArgumentType]


def _value(item: Any) -> Any:
    return tuple(item) if isinstance(item, list) else item  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
