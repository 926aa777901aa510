"""Figures of layers: worked out for a whole graph when the first is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convdsl.analysis.cost import Cost, costs, sum_or_gap
from convdsl.analysis.receptive_field import AxisField, Summary, receptive_fields
from convdsl.analysis.report import figure_text
from convdsl.elaborate.examination import Applied, Examination
from convdsl.ir.graph import OpNode, Value
from convdsl.tensor import Dim

LARGEST = 5_000
"""Operators of a graph whose receptive fields are worked out while somebody points at a layer."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a layer, or all operators of a block, cost, and what its result sees."""

    params: str
    macs: str
    fields: str  # nothing where it is not known


class Figures:
    """Of the examinations that were asked about."""

    def __init__(self) -> None:
        self._costs: dict[int, Mapping[OpNode, Cost]] = {}
        self._fields: dict[int, Mapping[Value, Summary]] = {}

    def of(self, examination: Examination, applied: Applied) -> Figure:
        """The figures of a layer that was applied."""
        known = self._costs.get(id(examination))
        if known is None:
            known = self._costs[id(examination)] = costs(examination.graph)
        own = [c for node, c in known.items() if applied.first < node.id <= applied.last]
        value = applied.result if isinstance(applied.result, Value) else None
        return Figure(
            figure_text(sum_or_gap([cost.params for cost in own])),
            figure_text(sum_or_gap([cost.macs for cost in own])),
            "" if value is None else self._field(examination, value),
        )

    def _field(self, examination: Examination, value: Value) -> str:
        if examination.graph.newest > LARGEST:
            return ""
        fields = self._fields.get(id(examination))
        if fields is None:
            fields = self._fields[id(examination)] = receptive_fields(examination.graph)
        found = ((name, _axes(axes)) for name, axes in fields.get(value, {}).items())
        return ", ".join(f"{text} of `{name}`" for name, text in found if text)


def _axes(axes: tuple[AxisField | None, ...]) -> str:
    """`7x7`, and where positions see different sizes the greatest."""
    known = [axis for axis in axes if axis is not None]
    if not known or len(known) < len(axes):
        return ""
    return "x".join(_size(axis.size) for axis in known)


def _size(extent: Dim) -> str:
    text = str(extent)
    return f"({text})" if " " in text else text
