"""What tables show: rows of a report, per operator or per block, and their cells as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convdsl.analysis.cost import CONVENTIONS, Cost, known_sum, sum_or_gap
from convdsl.analysis.receptive_field import AxisField, Summary
from convdsl.analysis.report import UNKNOWN, Layer, Report, figure_text, window_text
from convdsl.tensor import Dim, TensorType

SHARED = "(shared)"
NOTHING = "none"

_SIGNS = {
    re.compile(r"\.\."): "a..b: from the smallest to the largest, as positions differ",
    re.compile(r" x "): "axes of space with x between",
    re.compile(r"/-/|/-(?!\d)"): "-: no single stride or padding",
    re.compile(r"unaligned"): "unaligned: paths differ in stride or centre",
    re.compile(r"none"): "none: sees nothing of it",
    re.compile(r"\?"): "?: not known",
}
"""Signs of receptive fields, and what they say."""


@dataclass(frozen=True, slots=True)
class Row:
    """One operator, or a block of several: sums, and the output and field of the last one."""

    name: str
    op: str
    attributes: str
    output: TensorType
    cost: Cost
    receptive_field: Summary
    location: str
    inputs: tuple[TensorType, ...]  # what flows into the first one
    window: str  # `3x3/2`: kernel and stride of one that has them
    shared: bool  # whether a row before counts parameters of this one


def rows(report: Report, depth: int | None = None) -> list[Row]:
    """A row per operator; with `depth`, operators whose paths begin with the same `depth` names
    are summed up, with 0 none, as totals say it."""
    if depth is None:
        return [_row([layer], layer.name) for layer in report.layers]
    if depth == 0:
        return []
    blocks: dict[str, list[Layer]] = {}
    for layer in report.layers:
        blocks.setdefault(".".join(layer.name.split(".")[:depth]), []).append(layer)
    return [_row(layers, name) for name, layers in blocks.items()]


MANY = 100
"""Rows that nobody reads one by one."""


def how_to_shorten(report: Report) -> str | None:
    """What is said of a table of many rows, where blocks sum most of them up: those of a network
    that is unrolled over time are of the same layers again and again."""
    each, blocks = len(report.layers), len({x.name.partition(".")[0] for x in report.layers})
    if each <= MANY or blocks > each // 2:
        return None
    again = sum(layer.weights_of is not None for layer in report.layers)
    repeated = f", {again:,} of layers that are counted above" if again else ""
    return f"{each:,} rows{repeated}; `--depth 1` sums them up in {blocks:,}, `--depth 0` in totals"


def _row(layers: Sequence[Layer], name: str) -> Row:
    first, last = layers[0], layers[-1]
    alone = len(layers) == 1
    owners = {layer.weights_of for layer in layers} - {None}
    return Row(
        name=name,
        op=last.op if alone else f"{len(layers)} operators",
        attributes=_attributes(last) if alone else "",
        output=last.output,
        cost=last.cost if alone else _sums([layer.cost for layer in layers]),
        receptive_field=last.receptive_field,
        location=f"{first.file}:{first.line}" if first.file else "",
        inputs=tuple(first.inputs.values()),
        window=window_text(last.kernel, last.stride) if alone else "",
        shared=bool(owners) and not owners <= {layer.name for layer in layers},
    )


def _attributes(layer: Layer) -> str:
    said = [f"{name}={value}" for name, value in layer.attributes.items()]
    return " ".join(said if layer.weights_of is None else [*said, f"weights of {layer.weights_of}"])


def _sums(costs: Sequence[Cost]) -> Cost:
    return Cost(
        params=known_sum(c.params for c in costs),
        macs=sum_or_gap([c.macs for c in costs]),
        flops=sum_or_gap([c.flops for c in costs]),
        neurons=known_sum(c.neurons for c in costs),
        activations=known_sum(c.activations for c in costs),
    )


def params_text(row: Row) -> str:
    """Parameters that no row before has counted, and whether there are others."""
    counted = figure_text(row.cost.params)
    if not row.shared:
        return counted
    return SHARED if row.cost.params == 0 else f"{counted} {SHARED}"


def field_text(summary: Summary) -> str:
    """`size/stride/padding`, per axis where axes differ, per input where several are seen."""
    texts = {name: axes_text(axes) for name, axes in summary.items() if axes}
    if len(texts) <= 1:
        return next(iter(texts.values()), "")
    return ", ".join(f"{name} {text}" for name, text in texts.items() if text != NOTHING) or NOTHING


def field_meaning(texts: Iterable[str]) -> str:
    """What the signs say that occur in receptive fields."""
    every = "\n".join(set(texts))
    return "".join(f"; {said}" for sign, said in _SIGNS.items() if sign.search(every))


def axes_text(axes: Sequence[AxisField | None]) -> str:
    """`size/stride/padding`, per axis where axes differ; `none` where nothing is seen."""
    if axes and all(axis is not None and axis.size == 0 for axis in axes):
        return NOTHING
    parts = [_axis_text(axis) for axis in axes]
    return parts[0] if len(set(parts)) == 1 else " x ".join(parts)


def _axis_text(axis: AxisField | None) -> str:
    if axis is None:
        return UNKNOWN
    size = str(axis.size) if axis.size == axis.smallest else f"{axis.smallest}..{axis.size}"
    stride = "-" if axis.stride is None else str(axis.stride)
    stride = f"({stride})" if "/" in stride else stride
    padding = "-" if axis.padding is None else str(axis.padding)
    return f"{size}/{stride}/{padding}" + ("" if axis.aligned else " unaligned")


def header_lines(report: Report) -> list[str]:
    """The model with its signature, and the convention of the figures."""
    inputs = ", ".join(f"{name} {type}" for name, type in report.inputs.items())
    outputs = ", ".join(f"{name} {type}" for name, type in report.outputs.items())
    return [
        f"model {report.model}: {inputs} -> {outputs}",
        f"count {report.count}: {CONVENTIONS[report.count]}",
    ]


def total_lines(report: Report) -> list[str]:
    """Name and value of every total; a sum that lacks a layer's figure is marked `>=`."""
    units = {"weight_bytes": " B", "peak_activation_bytes": " B"}
    lines: list[str] = []
    lower_bounds = report.lower_bounds
    for name, value in report.totals.items():
        bound = ">= " if name in lower_bounds else ""
        text = f"{bound}{figure_text(value)}{units.get(name, '')}"
        lines.append(f"{name}: {text}{_rounded(value, units.get(name, ''))}")
    if report.peak.at is not None:
        lines[-1] += f" at {report.peak.at.name}"
    if report.arena_bytes is not None:
        arena = report.arena_bytes
        lines.append(f"arena_bytes: {figure_text(arena)} B{_rounded(arena, 'B')} when compiled")
    return lines


def _rounded(value: Dim, unit: str) -> str:
    """` (4.089 G)`, for whole numbers of a million and more."""
    if not isinstance(value, int) or value < 10**6:
        return ""
    scale, letter = (10**9, "G") if value >= 10**9 else (10**6, "M")
    return f" ({value / scale:.3f} {letter}{unit.strip()})"
