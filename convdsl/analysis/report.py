"""One model's figures gathered: rows per operator of the graph as written, and totals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, cast

from convdsl.analysis.cost import (
    CONVENTIONS,
    Cost,
    Figure,
    costs,
    has_gap,
    known_sum,
    weight_bytes,
)
from convdsl.analysis.memory import Peak, peak_activation_bytes
from convdsl.analysis.receptive_field import AxisField, Summary, receptive_fields
from convdsl.appearance import Shown
from convdsl.diagnostics import InputError
from convdsl.ir.graph import Graph, OpNode, StateNode
from convdsl.ir.model import Model
from convdsl.ir.opdef import Kind, Required, Role
from convdsl.ir.rules import Answers, numbered
from convdsl.ir.text import format_attribute, stated_attributes
from convdsl.tensor import Dim, TensorType
from convdsl.tensor.dim import separated

UNKNOWN = "?"
SCALAR = "scalar"

TOTALS = ("params", "macs", "flops", "weight_bytes", "neurons", "activations")


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator."""

    name: str
    op: str
    attributes: Mapping[str, str]  # those that differ from the defaults, as text
    inputs: Mapping[str, TensorType]  # what flows in, by operand
    output: TensorType  # of the first output
    cost: Cost
    receptive_field: Summary
    file: str | None
    line: int | None
    kernel: tuple[int, ...] | None = None  # of operators with windows, per axis of space
    stride: tuple[int, ...] | None = None
    weights_of: str | None = None  # the layer that has them too, and stands before this one

    def to_json(self) -> dict[str, Any]:
        fields = self.receptive_field
        return {
            "name": self.name,
            "op": self.op,
            "output_shape": [dim_to_json(extent) for extent in self.output.shape],
            "params": dim_to_json(self.cost.params),
            "macs": dim_to_json(self.cost.macs),
            "flops": dim_to_json(self.cost.flops),
            "receptive_field": {name: field_to_json(axes) for name, axes in fields.items()},
            "file": self.file,
            "line": self.line,
            "weights_of": self.weights_of,
        }


@dataclass(frozen=True, slots=True)
class Default:
    """A default that is in force for an operator of the model, with its reason."""

    op: str
    attribute: str
    value: str
    doc: str


@dataclass(frozen=True, slots=True, repr=False)
class Report(Shown):
    """Figures of a model under a counting convention; symbols that are not bound stay. Printed, it
    is the table that `convdsl report` prints."""

    model: str
    count: str
    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    layers: tuple[Layer, ...]
    weight_bytes: Dim
    buffers: Dim  # elements of running statistics
    peak: Peak
    defaults: tuple[Default, ...]
    arena_bytes: int | None = None  # of the compiled program; only lowering knows it

    def __repr__(self) -> str:
        return shown[0](self) if shown else f"<Report of {self.model}>"

    @property
    def totals(self) -> dict[str, Dim]:
        """Sums over the layers; see `lower_bounds`."""
        rows = [layer.cost for layer in self.layers]
        return {
            "params": known_sum(row.params for row in rows),
            "macs": known_sum(row.macs for row in rows),
            "flops": known_sum(row.flops for row in rows),
            "weight_bytes": self.weight_bytes,
            "neurons": known_sum(row.neurons for row in rows),
            "activations": known_sum(row.activations for row in rows),
            "peak_activation_bytes": self.peak.bytes,
        }

    @property
    def lower_bounds(self) -> tuple[str, ...]:
        """Totals that lack the figure of some layer."""
        rows = [layer.cost for layer in self.layers]
        gaps = {"macs": [r.macs for r in rows], "flops": [r.flops for r in rows]}
        return tuple(name for name, figures in gaps.items() if has_gap(figures))

    def to_json(self) -> dict[str, Any]:
        """The report under the keys that other programs rely on; a total with gaps is named in
        `lower_bounds`, too."""
        total = {name: dim_to_json(value) for name, value in self.totals.items()}
        return {
            "model": self.model,
            "count": self.count,
            "convention": CONVENTIONS[self.count],
            "input": {name: type_to_json(type) for name, type in self.inputs.items()},
            "output": {name: type_to_json(type) for name, type in self.outputs.items()},
            "total": {**total, "arena_bytes": self.arena_bytes},
            "lower_bounds": list(self.lower_bounds),
            "layers": [layer.to_json() for layer in self.layers],
        }


shown: list[Callable[[Report], str]] = []
"""How a report is drawn: `reporting`, which stands above, puts it here."""


def analyse(model: Model, count: str = "all", bindings: Mapping[str, int] | None = None) -> Report:
    """The figures of a model, with symbols bound as far as `bindings` says."""
    if count not in CONVENTIONS:
        raise InputError(f"no counting convention {count}: there are {', '.join(CONVENTIONS)}")
    graph = model.graph.bind(bindings) if bindings else model.graph
    numbers = numbered(node.call for node in graph.op_nodes())
    fields = receptive_fields(graph, numbers)
    stated: Answers[dict[str, str]] = Answers()
    owners: dict[int, str] = {}
    layers = tuple(
        _layer(
            *(node, stated.of(number, partial(stated_attributes, node))),
            *(cost, fields[node.outputs[0]], _owner(node, owners)),
        )
        for number, (node, cost) in zip(numbers, costs(graph, count, numbers).items(), strict=True)
    )
    buffers = (s.type.elements for s in graph.states.values() if s.role is Role.BUFFER)
    return Report(
        model=model.name,
        count=count,
        inputs={name: value.type for name, value in graph.inputs.items()},
        outputs={name: value.type for name, value in graph.outputs.items()},
        layers=layers,
        weight_bytes=weight_bytes(graph),
        buffers=known_sum(buffers),
        peak=peak_activation_bytes(graph),
        defaults=defaults_of(graph),
    )


def defaults_of(graph: Graph) -> tuple[Default, ...]:
    """The defaults of the operators that a graph uses."""
    used = {node.op.name: node.op for node in graph.op_nodes()}
    return tuple(
        Default(op.name, a.name, format_attribute(a.default), a.doc)
        for op in used.values()
        for a in op.attributes
        if not isinstance(a.default, Required)
    )


def _owner(node: OpNode, owners: dict[int, str]) -> str | None:
    """The layer before that has a parameter of this one; `owners` are those of parameters so far,
    by the ids of their nodes."""
    states = [v.node for v in node.inputs.values() if isinstance(v.node, StateNode)]
    ids = [state.id for state in states if state.role is Role.PARAMETER]
    found = next((owners[i] for i in ids if i in owners), None)
    owners.update((i, node.name) for i in ids if i not in owners)
    return found


def _layer(
    node: OpNode, attributes: Mapping[str, str], cost: Cost, field: Summary, owner: str | None
) -> Layer:
    return Layer(
        name=node.name,
        op=node.op.name,
        attributes=attributes,
        inputs=_flowing(node),
        output=node.outputs[0].type,
        cost=cost,
        receptive_field=field,
        file=node.span.source.path if node.span else None,
        line=node.span.line if node.span else None,
        kernel=sizes_of(node, "kernel"),
        stride=sizes_of(node, "stride"),
        weights_of=owner,
    )


def _flowing(node: OpNode) -> dict[str, TensorType]:
    """The operands that are no weights, by name."""
    states = {operand.name for operand in node.op.operands if operand.role is not Role.DATA}
    return {name: value.type for name, value in node.inputs.items() if name not in states}


def sizes_of(node: OpNode, attribute: str) -> tuple[int, ...] | None:
    """A size that an operator resolves for each axis of space, where it has one."""
    found = node.op.attribute(attribute)
    value: Any = node.attributes.get(attribute)
    if found is None or found.kind is not Kind.SIZES or not isinstance(value, tuple):
        return None
    return cast("tuple[int, ...]", value)


def dim_to_json(value: Figure) -> int | str | None:
    """An integer where it is known, else the polynomial as text, `64*N*H*W`; None stays."""
    return value if isinstance(value, int) or value is None else str(value)


def figure_text(value: Figure) -> str:
    """`11,689,512`, `2,850,816*N`; `?` where nothing exact is known."""
    if value is None:
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int) else separated(str(value))


def shape_text(type: TensorType) -> str:
    """`1x3x224x224`; `scalar` where there are no axes."""
    sizes = (str(e) if isinstance(e, int) else _grouped(e) for e in type.shape)
    return "x".join(sizes) or SCALAR


def _grouped(extent: Dim) -> str:
    text = str(extent)
    return f"({text})" if " " in text else text


def window_text(kernel: Sequence[int] | None, stride: Sequence[int] | None) -> str:
    """`3x3`, and where it does not step by one `3x3/2`; nothing where there is no window."""
    if kernel is None:
        return ""
    said = "x".join(map(str, kernel))
    if stride is None or set(stride) == {1}:
        return said
    alike = len(set(stride)) == 1
    return f"{said}/{stride[0] if alike else 'x'.join(map(str, stride))}"


def type_to_json(type: TensorType) -> dict[str, Any]:
    """Element type and shape; free sizes as text."""
    return {"dtype": str(type.dtype), "shape": [dim_to_json(extent) for extent in type.shape]}


def field_to_json(axes: Sequence[AxisField | None]) -> dict[str, Any] | None:
    """Per axis size, stride, padding and aligned; None where no axis is available.

    `size` is the largest over all positions; where positions differ `size_min` is there too.
    """
    if axes and all(axis is None for axis in axes):
        return None
    result: dict[str, Any] = {
        "size": [axis and dim_to_json(axis.size) for axis in axes],
        "stride": [axis and _stride_to_json(axis.stride) for axis in axes],
        "padding": [axis and dim_to_json(axis.padding) for axis in axes],
        "aligned": [axis and axis.aligned for axis in axes],
    }
    if any(axis and axis.size != axis.smallest for axis in axes):
        result["size_min"] = [axis and dim_to_json(axis.smallest) for axis in axes]
    return result


def _stride_to_json(stride: Fraction | None) -> int | str | None:
    if stride is None:
        return None
    return stride.numerator if stride.denominator == 1 else str(stride)
