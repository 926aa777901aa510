"""Gradients of graphs: the reverse sweep from results to what they depend on.

From the last node to the first, the gradients of a node's outputs become gradients of its operands,
as its operator's record says; where a value branches, or a weight is shared, they are summed. Only
what lies between the results and what gradients are wanted for is visited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import NoneType

from convdsl.calling import suggests
from convdsl.diagnostics import InputError, expect
from convdsl.ir.build import Build, Names
from convdsl.ir.derivative import derive
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.model import Model, expect_model
from convdsl.ir.opdef import Derived, Missing, NotDifferentiable, Role, Rule, Zero
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.kernel.gradient import Unsolved
from convdsl.ops import BY_NAME
from convdsl.spelling import nearest


class NoGradient(InputError):
    """An operator on the way has no gradient, or none that is known."""


@suggests
def gradient(model: Model, of: str | None = None, wrt: str | Iterable[str] | None = None) -> Model:
    """A model of the output `of` and, as `d<name>`, the gradients of the sum of its elements by
    inputs and weights.

    of: may be left out where there is one output. wrt: names, with wildcards as in `layer1.*`; by
    default all parameters. Inputs and weights are those of the model. Raises InputError for names
    that do not exist, and NoGradient where an operator on the way has none.
    """
    graph, _ = backward(model, of, wrt)
    return replace(model, graph=graph, reread=None, declares={}, training=None)


def backward(
    model: Model, of: str | None = None, wrt: str | Iterable[str] | None = None
) -> tuple[Graph, Flow]:
    """The graph of `gradient`, and what flows in it."""
    expect_model(model)
    expect("the output", of, str, NoneType)
    if model.obstacle is not None:
        raise InputError(model.obstacle)
    graph = model.graph.copy()
    name = _output(graph, of)
    y = graph.outputs[name]
    if not y.type.dtype.is_float:
        raise InputError(f"output {name} is {y.type}; gradients are of floating-point values")
    wanted = _wanted(graph, wrt)
    build = Build(graph, BY_NAME, Names(node.name for node in graph.nodes()))
    flow = Flow({y: [build.filled(1.0, y.type)]})
    _sweep(graph, flow, list(wanted.values()), build)
    graph.outputs = {name: y}
    for key, value in wanted.items():
        dx = flow.total(value, build.at(value.node))
        graph.outputs[f"d{key}"] = build.filled(0.0, value.type) if dx is None else dx
    remove_unused(graph)
    return graph, flow


def gradients(
    graph: Graph, cotangents: Mapping[Value, Value], wrt: Sequence[Value], build: Build
) -> list[Value | None]:
    """Gradients of a result by values, from those (`cotangents`) of others; None where it does not
    depend on them smoothly. Nodes are added to the graph by `build`."""
    flow = Flow({value: [dy] for value, dy in cotangents.items()})
    _sweep(graph, flow, wrt, build)
    return [flow.total(value, build.at(value.node)) for value in wrt]


def pulled_back(model: Model, of: str, wrt: Sequence[str]) -> Model:
    """A model of values inside a network, and of how one of them depends on the others.

        d<x> = (dy/dx)^T d<y>      y = `of`, x in `wrt`

    Its further input `d<y>` weighs the elements of y: with 1 for one element, and 0 for all others,
    d<x> is that element's gradient. Outputs are y, d<x>, and those x that are no inputs. Sizes must
    be known. Raises InputError for names that no value has, and NoGradient.
    """
    graph = model.graph.copy()
    values = {v.name: v for node in graph.op_nodes() for v in node.outputs} | graph.inputs
    for name in (of, *wrt):
        if name not in values:
            raise InputError(f"{model.name} has no value {name}")
        if not values[name].type.dtype.is_float:
            raise InputError(f"{name} is {values[name].type}; it has no gradient")
    y, inputs = values[of], [values[name] for name in wrt]
    names = Names(node.name for node in graph.nodes())
    dy = graph.add_input(names.unused(f"d{of}"), y.type)
    build = Build(graph, BY_NAME, names)
    found = gradients(graph, {y: dy}, inputs, build)
    kept = {name: values[name] for name in (of, *wrt) if name not in graph.inputs}
    graph.outputs = kept | {
        f"d{name}": build.filled(0.0, value.type) if dx is None else dx
        for name, value, dx in zip(wrt, inputs, found, strict=True)
    }
    graph.updates = {}
    remove_unused(graph)
    return replace(model, graph=graph, reread=None, declares={}, training=None)


@dataclass
class Flow:
    """The gradients that flow into values: from each of their users, and all together."""

    parts: dict[Value, list[Value]]
    totals: dict[Value, Value] = field(default_factory=dict[Value, Value])

    def total(self, value: Value, build: Build) -> Value | None:
        """The sum of what flows into a value from all its users."""
        if value in self.parts and value not in self.totals:
            total, *others = self.parts[value]
            for part in others:
                total = build("add", total, part, name="grad")
            self.totals[value] = total
        return self.totals.get(value)


def _sweep(graph: Graph, flow: Flow, wrt: Sequence[Value], build: Build) -> None:
    """Gradients flow from the last node to the first, where there are any and they are wanted."""
    between = _dependent(graph, wrt)
    for node in reversed(graph.op_nodes()):
        if not any(value in flow.parts for value in node.outputs):
            continue
        inputs = node.inputs.items()
        wanted = frozenset(n for n, v in inputs if v in between and v.type.dtype.is_float)
        if not wanted:
            continue
        here = build.at(node)
        dys = tuple(flow.total(value, here) for value in node.outputs)
        for operand, dx in _pull_back(Pullback(here, node, dys, wanted)).items():
            if dx is not None and operand in wanted:
                flow.parts.setdefault(node.inputs[operand], []).append(dx)


def _pull_back(p: Pullback) -> Gradients:
    """Gradients of a node's operands, as its record says."""
    op = p.node.op
    match op.gradient:
        case Derived():
            try:
                return {name: derive(p.build, p.node, p.dys, name) for name in sorted(p.wanted)}
            except (Unsolved, NotImplementedError) as error:
                raise NoGradient(f"{p.node.name}: no gradient of {op.name}: {error}") from error
        case Rule(build):
            return build(p)
        case Zero():
            return {}
        case NotDifferentiable(reason):
            raise NoGradient(f"{p.node.name}: {op.name} has no gradient: {reason}")
        case Missing(needs):
            raise NoGradient(f"{p.node.name}: no gradient of {op.name} yet: it needs {needs}")


def _dependent(graph: Graph, wrt: Sequence[Value]) -> set[Value]:
    """The values that depend on others, these included."""
    found = set(wrt)
    for node in graph.op_nodes():
        if any(value in found for value in node.inputs.values()):
            found.update(node.outputs)
    return found


def _output(graph: Graph, of: str | None) -> str:
    names = ", ".join(graph.outputs)
    if of is None:
        if len(graph.outputs) != 1:
            raise InputError(f"there are several outputs; say which: {names}")
        return next(iter(graph.outputs))
    if of not in graph.outputs:
        raise InputError(f"there is no output {of}; there are: {names}")
    return of


def _wanted(graph: Graph, wrt: str | Iterable[str] | None) -> dict[str, Value]:
    """Inputs and states by name."""
    states = graph.states
    if wrt is None:
        return {k: n.output for k, n in states.items() if n.role is Role.PARAMETER and _smooth(n)}
    values = graph.inputs | {k: n.output for k, n in states.items() if n.data is None}
    found: dict[str, Value] = {}
    expect("what gradients are by", wrt, str, Iterable)
    for pattern in (wrt,) if isinstance(wrt, str) else wrt:
        expect("a name", pattern, str)
        names = [name for name in values if fnmatchcase(name, pattern)]
        if not names:
            scopes = {".".join(k.split(".")[:n]) + ".*" for k in values for n in range(1, 9)}
            near = nearest(pattern, {*values, *scopes})
            meant = f"; did you mean {near}?" if near is not None else ""
            raise InputError(f"there is no input or weight {pattern}{meant}")
        for name in names:
            if not values[name].type.dtype.is_float:
                raise InputError(f"{name} is {values[name].type}; it has no gradient")
            found[name] = values[name]
    return found


def _smooth(node: StateNode) -> bool:
    return node.type.dtype.is_float


def remove_unused(graph: Graph) -> None:
    """Remove operators and constants that nothing reads; inputs and weights stay."""
    for node in reversed(graph.nodes()):
        removable = isinstance(node, OpNode) or (
            isinstance(node, StateNode) and node.data is not None
        )
        if removable and not graph.is_used(node):
            graph.remove(node)
