"""Gradients held against differences, in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
from executors import graph_of
from graphs import evaluate_graph
from op_cases import draw_case
from op_cases.draw import Case

from convdsl.autodiff import gradients
from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.opdef import Call
from convdsl.ir.rules import kernel_of
from convdsl.kernel.evaluate import evaluate
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType

Array = np.ndarray[Any, Any]

EPS, ATOL, RTOL = 1e-6, 1e-5, 1e-3

POSITIVE = {"log", "sqrt", "pow"}
"""Operators that are defined, or smooth, for positive operands only."""


WITHIN = {"asin": (-0.9, 0.9), "acos": (-0.9, 0.9), "atanh": (-0.9, 0.9), "acosh": (1.1, 3.0)}
"""Operators that are defined, or smooth, in an interval only."""


# Operands


def smooth_case(name: str, number: int) -> Case:
    """Drawn configuration `number` of an operator, of those that have floating outputs."""
    return next(islice(_smooth_cases(name), number, None))


def _smooth_cases(name: str) -> Iterator[Case]:
    for seed in count():
        case = draw_case(name, seed)
        if any(type.dtype.is_float for type in case.call.outputs):
            yield case


def of_dtype(call: Call, dtype: DType) -> Call:
    """The call with all its floating operands of one dtype."""
    types = {
        name: TensorType(dtype, type.shape) if type.dtype.is_float else type
        for name, type in call.types.items()
    }
    attributes = dict(call.attributes)
    if "dtype" in attributes and DType(attributes["dtype"]).is_float:
        attributes["dtype"] = str(dtype)
    return Call(call.op, types, attributes)


def arrays_of(case: Case, call: Call, number: int) -> dict[str, Array]:
    """Operands: as they are drawn, with equal ones, zeros and large ones among them, or (for even
    numbers) distinct and of order 1."""
    drawn = number % 2 and all(np.isfinite(array).all() for array in case.arrays.values())
    if not drawn:
        return distinct_arrays(case, call, number)
    arrays = {name: case.arrays[name].astype(type.dtype.numpy) for name, type in call.types.items()}
    if call.op.name == "pow":
        arrays["b"] = np.asarray(np.rint(arrays["b"]))
    return arrays


def distinct_arrays(case: Case, call: Call, seed: int) -> dict[str, Array]:
    """Operands away from kinks: no two values alike or nearly so, none near 0, all of order 1."""
    random = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for number, (name, type) in enumerate(call.types.items()):
        given = case.arrays[name]
        if not type.dtype.is_float:
            arrays[name] = given
            continue
        size = given.size
        values = 0.137 + 1.7 * (random.permutation(size) + 0.1 * number + 0.31) / max(size, 1)
        positive = call.op.name in POSITIVE or name == "running_var"
        signs = 1 if positive else random.choice((-1, 1), size)
        if call.op.name in WITHIN:
            low, high = WITHIN[call.op.name]
            values, signs = low + (high - low) * values / 2.4, 1
        arrays[name] = (values * signs).reshape(given.shape).astype(type.dtype.numpy)
    return arrays


def case_graph(case: Case, number: int, dtype: DType = DType.F64) -> tuple[Graph, dict[str, Array]]:
    """A graph of one operator, and operands."""
    call = of_dtype(case.call, dtype)
    return graph_of(call), arrays_of(case, call, number)


# Gradients


def with_gradients(graph: Graph, wrt: Mapping[str, Value]) -> tuple[Graph, dict[str, Value | None]]:
    """The graph with inputs `d_<output>` added, and the gradients that follow from these."""
    build = Build(graph, BY_NAME, Names(node.name for node in graph.nodes()))
    cotangents: dict[Value, Value] = {}
    for name, value in graph.outputs.items():
        if value.type.dtype.is_float:
            dy = build.input(f"d_{name}", value.type)
            known = cotangents.get(value)
            cotangents[value] = dy if known is None else build("add", known, dy)
    found = gradients(graph, cotangents, list(wrt.values()), build)
    return graph, dict(zip(wrt, found, strict=True))


def gradient_graph(graph: Graph, wrt: Mapping[str, Value]) -> Graph:
    """The same graph with nothing but gradients as its outputs, by the names of `wrt`."""
    graph, found = with_gradients(graph, wrt)
    graph.outputs = {name: value for name, value in found.items() if value is not None}
    return graph


def floating(graph: Graph) -> dict[str, Value]:
    """Inputs and weights that may have gradients, by name."""
    weights = {name: node.output for name, node in graph.states.items() if node.data is None}
    values = graph.inputs | weights
    return {name: value for name, value in values.items() if value.type.dtype.is_float}


def cotangents_of(graph: Graph, seed: int) -> dict[str, Array]:
    """Drawn gradients of the floating outputs, by the outputs' names."""
    random = np.random.default_rng(seed)
    smooth = {n: v.type for n, v in graph.outputs.items() if v.type.dtype.is_float}
    return {name: random.standard_normal(type.sizes) for name, type in smooth.items()}


# Differences


def held(graph: Graph, arrays: Mapping[str, Array]) -> tuple[Graph, dict[str, Array]]:
    """The graph with values whose gradient is stopped as inputs of their own, which stay."""
    graph = graph.copy()
    outputs = graph.outputs
    stops = [node.output for node in graph.op_nodes() if node.op.name == "stop_gradient"]
    graph.outputs = {f"stopped{number}": value for number, value in enumerate(stops)}
    given = evaluate_graph(graph, arrays)
    for name, value in graph.outputs.items():
        constant = graph.add_input(name, value.type)
        for user, operand in graph.users(value):
            graph.set_input(user, operand, constant)
        outputs = {n: constant if v is value else v for n, v in outputs.items()}
    graph.outputs = outputs
    return graph, {**arrays, **given}


class Differences:
    """By how much the sum of outputs times `dys` changes with elements of an input or weight."""

    def __init__(self, graph: Graph, arrays: Mapping[str, Array], dys: Mapping[str, Array]) -> None:
        self.graph, self.arrays = held(graph, arrays)
        self.dys = dys
        self.here = evaluate_graph(self.graph, self.arrays)

    def _moved(self, name: str, place: int, step: float) -> dict[str, Array]:
        """The outputs with one element changed."""
        array = self.arrays[name].copy()
        array.reshape(-1)[place] += step
        return evaluate_graph(self.graph, {**self.arrays, name: array})

    def _slope(self, low: Mapping[str, Array], high: Mapping[str, Array], run: float) -> float:
        """Differences first, so that large outputs that do not change add no noise."""
        with np.errstate(all="ignore"):
            parts = ((high[key] - low[key]) * dy for key, dy in self.dys.items())
            return sum(float(np.sum(part)) for part in parts) / run

    def at(self, name: str, place: int) -> tuple[float, bool]:
        """(the slope, whether it is the same on both sides: elsewhere there is a kink)"""
        above, below = self._moved(name, place, EPS), self._moved(name, place, -EPS)
        right, left = self._slope(self.here, above, EPS), self._slope(below, self.here, EPS)
        if not np.isfinite(right + left):
            return np.nan, False
        steepest = max(abs(right), abs(left))
        return self._slope(below, above, 2 * EPS), abs(right - left) <= 1e-3 * steepest + 1e-4


def differences(
    graph: Graph, arrays: Mapping[str, Array], dys: Mapping[str, Array], name: str, places: Any
) -> Array:
    """Slopes at some places of one input or weight."""
    found = Differences(graph, arrays, dys)
    return np.array([found.at(name, place)[0] for place in places])


def check_graph(graph: Graph, arrays: Mapping[str, Array], seed: int, places: int = 6) -> int:
    """Gradients of all inputs and weights agree with differences; how many there are."""
    found = compare(graph, arrays, seed, places)
    assert found.agreed > found.kinks
    return found.gradients


@dataclass(frozen=True)
class Compared:
    """How many gradients there are, at how many places they agree with differences, and how many
    more places were kinks."""

    gradients: int
    agreed: int
    kinks: int


def compare(graph: Graph, arrays: Mapping[str, Array], seed: int, places: int = 6) -> Compared:
    """Gradients of all inputs and weights agree with differences, at some places of each."""
    random = np.random.default_rng(seed)
    dys = cotangents_of(graph, seed)
    slopes = Differences(graph.copy(), arrays, dys)
    wrt = floating(graph)
    graph = gradient_graph(graph, wrt)
    results = evaluate_graph(graph, {**arrays, **{f"d_{name}": dy for name, dy in dys.items()}})
    agreed = kinks = 0
    for name, value in wrt.items():
        actual = results.get(name, np.zeros(value.type.sizes))
        assert actual.shape == value.type.sizes
        for place in random.permutation(actual.size)[:places]:
            slope, smooth = slopes.at(name, place)
            kinks += not smooth
            if smooth:
                found = actual.reshape(-1)[place]
                np.testing.assert_allclose(found, slope, RTOL, ATOL, err_msg=f"d{name}[{place}]")
                agreed += 1
    return Compared(len(results), agreed, kinks)


# In single precision


def assert_as_exact(
    found: Mapping[str, Array],
    expected: Mapping[str, Array],
    graph: Graph,
    arrays: Mapping[str, Any],
) -> None:
    """What machine code finds in f32 is what the oracle says in double precision, within 1e-4 of
    the tensor's range; where the oracle itself says something else in f32, as of terms that
    cancel, within a few times that."""
    rounded = in_single(graph, arrays)
    for name, array in expected.items():
        finite = np.isfinite(array)
        span = float(np.max(np.abs(array), initial=0.0, where=finite))
        with np.errstate(all="ignore"):
            lost = float(np.max(np.abs(rounded[name] - array), initial=0.0, where=finite))
        assert found[name].dtype == np.float32
        bound = 1e-4 * span + 8 * lost
        np.testing.assert_allclose(found[name], array, rtol=0, atol=bound, err_msg=name)


def in_single(graph: Graph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by the oracle, node by node in f32."""
    values: dict[Value, Array] = {}
    for node in graph.nodes():
        if isinstance(node, OpNode):
            operands = {name: values[value] for name, value in node.inputs.items()}
            found = evaluate(kernel_of(node.call), operands)
            values.update(zip(node.outputs, found.values(), strict=True))
        else:
            data = node.data if isinstance(node, StateNode) else None
            values[node.output] = arrays[node.name] if data is None else data
    return {name: values[value] for name, value in graph.outputs.items()}
