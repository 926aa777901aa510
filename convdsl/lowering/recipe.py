"""Packings as JSON: how a compiled program that was kept gets its weights.

A weight is told by its node's position in the graph, which must be equal to the one that was
lowered (ir.canonical says so), or by the step that reads it, if a stage of lowering's own makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from convdsl.ir.graph import Graph
from convdsl.lowering.lower import stage_sources
from convdsl.lowering.packing import Packing, Source
from convdsl.schedules.machine import Machine
from convdsl.schedules.task import Pack
from convdsl.tensor import DType


def packings_to_json(
    graph: Graph, machine: Machine, packings: Sequence[Packing]
) -> list[dict[str, Any]]:
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
            row |= {"stage": packing.stage}
        rows.append(row)
    return rows


def packings_from_json(
    graph: Graph, machine: Machine, rows: Sequence[Mapping[str, Any]]
) -> tuple[Packing, ...]:
    """The packings over the values of this graph."""
    nodes = graph.nodes()
    made = stage_sources(graph, machine) if any("stage" in row for row in rows) else {}
    packings: list[Packing] = []
    for row in rows:
        stage = None
        if "stage" in row:
            stage = (int(row["stage"][0]), str(row["stage"][1]))
            source = made[stage]
        else:
            source = Source(nodes[int(row["node"])].outputs[int(row["output"])])
        told = {key: _value(item) for key, item in row["fields"].items()}
        pack = machine.packs[row["form"]](**told)
        packings.append(Packing(source, pack, DType(row["dtype"]), int(row["offset"]), stage))
    return tuple(packings)


def _fields_of(pack: Pack, form: type[Pack]) -> dict[str, Any]:
    return {f.name: getattr(pack, f.name) for f in fields(form)}  # pyright: ignore[reportArgumentType]


def _value(item: Any) -> Any:
    return tuple(item) if isinstance(item, list) else item  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
