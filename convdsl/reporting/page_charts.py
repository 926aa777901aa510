"""The charts of an HTML report; None where sizes are open, or there is nothing to show."""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.analysis.memory import alive_bytes
from convdsl.analysis.report import Report
from convdsl.analysis.roofline import Roofline
from convdsl.drawing.charts import (
    Axis,
    Column,
    Curve,
    Point,
    bars,
    curves,
    spanning,
    steps,
    under_a_roof,
)
from convdsl.drawing.svg import Canvas, short_number
from convdsl.ir.graph import Graph
from convdsl.pictures.blocks import Part
from convdsl.pictures.wiring import Network, figure_of

MOST_CURVES = 6
"""Axes of inputs whose fields are drawn."""

_COLUMNS = {"params": "parameters", "macs": "multiply-accumulates", "bytes": "bytes put out"}


def costs_by_part(network: Network, parts: Sequence[Part]) -> Canvas | None:
    """Bars of parameters, multiply-accumulates and memory, a row for each box of the drawing."""
    columns: list[Column] = []
    for name, heading in _COLUMNS.items():
        sums: list[int] = []
        for part in parts:
            figures = [figure_of(node, network.costs[node], name) for node in part.nodes]
            if not all(isinstance(figure, int) for figure in figures):
                return None
            sums.append(sum(figure for figure in figures if isinstance(figure, int)))
        columns.append(Column(heading, sums, [short_number(n) for n in sums]))
    return bars([part.name for part in parts], columns) if parts else None


def memory_chart(graph: Graph) -> Canvas | None:
    """Bytes alive, operator by operator; the fullest one marked."""
    alive = alive_bytes(graph)
    totals = [total for _, total in alive if isinstance(total, int)]
    if not totals or len(totals) < len(alive):
        return None
    names = [node.name for node, _ in alive]
    fullest = max(range(len(totals)), key=totals.__getitem__)
    axis = spanning("bytes", [1.15 * max(totals)])  # room for what the mark says
    shown = [f"{total:,} B" for total in totals]
    return steps(totals, names, axis, across="operators", marked=fullest, shown=shown)


def fields_chart(report: Report) -> Canvas | None:
    """Sizes of receptive fields along the layers, a curve for each axis of each input."""
    found: dict[str, list[tuple[float, float]]] = {}
    for place, layer in enumerate(report.layers):
        for name, axes in layer.receptive_field.items():
            for axis, field in enumerate(axes):
                if field is not None and isinstance(field.size, int) and field.size > 0:
                    label = f"{name}, axis {axis + 2}"
                    found.setdefault(label, []).append((place, field.size))
    distinct: dict[tuple[tuple[float, float], ...], str] = {}
    for label, points in found.items():
        known = distinct.setdefault(tuple(points), label)
        if known != label:
            distinct[tuple(points)] = f"{known} and {label.rpartition(' ')[2]}"
    shown = [Curve(label, points) for points, label in distinct.items()][:MOST_CURVES]
    if not shown:
        return None
    sizes = [size for curve in shown for _, size in curve.points]
    level = _extent(report)
    y = spanning("positions of the input", [*sizes, level[1]] if level else sizes)
    x = Axis("operators", 0, max(len(report.layers), 2))
    return curves(shown, x, y, level=level)


def _extent(report: Report) -> tuple[str, float] | None:
    """The size of the input, where there is one."""
    sizes = {extent for type in report.inputs.values() for extent in type.shape[2:]}
    if len(sizes) != 1:
        return None
    (size,) = sizes
    return (f"the input: {size}", float(size)) if isinstance(size, int) else None


def roof_chart(roof: Roofline) -> Canvas | None:
    """Every kernel at its intensity, under what the machine can reach."""
    points = [
        Point(
            k.intensity,
            k.attainable,
            f"{k.name} ({' + '.join(k.ops)}): {k.intensity:.2f} flop/byte, at best "
            f"{k.attainable / 1e9:,.1f} GFLOP/s, {k.seconds * 1e6:.1f} us",
            k.bound == "compute",
        )
        for k in roof.kernels
        if k.flops and k.bytes
    ]
    if not points:
        return None
    machine = roof.machine
    x = spanning("flop/byte", [p.x for p in points] + [machine.ridge], log=True)
    y = spanning("flop/s", [p.y for p in points] + [machine.operations], log=True)
    kinds = ("bound by compute", "bound by memory")
    return under_a_roof(points, x, y, (machine.operations, machine.bandwidth), kinds)
