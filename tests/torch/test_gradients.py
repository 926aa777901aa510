"""Gradients against PyTorch's autograd, of the source that `export` writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from computed_weights import WEIGHTED, computed
from gradients import (
    Array,
    Differences,
    arrays_of,
    cotangents_of,
    floating,
    gradient_graph,
    of_dtype,
    smooth_case,
)
from graphs import evaluate_graph, random_arrays
from op_cases import CASES_PER_OPERATOR
from op_cases.draw import Case
from random_graphs import smooth_graph
from torch_modules import module_of

from convdsl.interop.correspondence import ROWS
from convdsl.interop.correspondence.wording import Lacking
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.ir.opdef import Call, Derived, Rule, Zero
from convdsl.ops import OPERATORS
from convdsl.tensor import DType

pytestmark = pytest.mark.torch

SMOOTH = [op.name for op in OPERATORS if isinstance(op.gradient, Derived | Rule | Zero)]


def one_layer(call: Call) -> Graph:
    """A graph of just the call: weights are called as in the exported module."""
    graph = Graph()
    specs = {spec.name: spec for spec in call.op.state(call)}
    inputs = {
        n: graph.add_state(f"layer.{n}", t, specs[n].role, specs[n].init)
        if n in specs
        else graph.add_input(n, t)
        for n, t in call.types.items()
    }
    node = graph.apply(call.op, inputs, call.attributes, name="layer")
    graph.outputs = dict(zip(call.output_names, node.outputs, strict=True))
    return graph


@pytest.mark.parametrize("name", SMOOTH)
def test_agrees_with_autograd(name: str) -> None:
    places = kinks = 0
    for number in range(CASES_PER_OPERATOR):
        case = smooth_case(name, number)
        call = of_dtype(case.call, DType.F64)
        if _claimed_twice(case):
            continue  # PyTorch's gradient goes to all that claim a place, ours to the one that won
        graph = one_layer(call)
        try:
            module = module_of(Model("one", graph)).double()
        except Lacking as error:
            assert str(error).endswith(ROWS[name].pytorch.lacks)  # noqa: PT017
            continue
        arrays = arrays_of(case, call, number)
        named = {n if n in graph.inputs else f"layer.{n}": array for n, array in arrays.items()}
        found = check(graph, module, named, number)
        places, kinks = places + found[0], kinks + found[1]
    elsewhere = ROWS[name].pytorch.name.startswith("torchvision.")
    assert places == 0 if elsewhere else kinks < places / 4


@pytest.mark.parametrize(
    "name", [name for name in WEIGHTED if ROWS[name].pytorch.loose is not None]
)
def test_tensors_as_weights_agree_with_autograd(name: str) -> None:
    places = kinks = 0
    for number in range(0, CASES_PER_OPERATOR, 2):
        case = smooth_case(name, number)
        model = computed(case, DType.F64)
        try:
            module = module_of(model).double()
        except Lacking as error:
            assert str(error).endswith(ROWS[name].pytorch.lacks)  # noqa: PT017
            continue
        arrays = arrays_of(case, of_dtype(case.call, DType.F64), number)
        found = check(model.graph, module, arrays, number)
        places, kinks = places + found[0], kinks + found[1]
    assert kinks < places / 4


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[] if n < 50 else pytest.mark.slow) for n in range(500)]
)
def test_random_graphs_agree_with_autograd(seed: int) -> None:
    graph = smooth_graph(seed, DType.F64)
    arrays = random_arrays(graph, seed, 0.5)
    try:
        module = module_of(Model("net", graph)).double()
    except Lacking:
        pytest.skip("PyTorch has no words for it")
    _, kinks = check(graph, module, arrays, seed)
    assert kinks < 3


def _claimed_twice(case: Case) -> bool:
    """Whether several values are put at one place, of which one wins."""
    positions, x = case.arrays.get("positions"), case.arrays.get("x")
    if positions is None or x is None:
        return False
    if case.op.name == "max_unpool":
        lines = positions.reshape(x.shape[0] * x.shape[1], -1)
    elif case.attributes.get("by") != "last":
        return False
    elif case.op.name == "put_along":
        axis = case.attributes["axis"]
        lines = np.moveaxis(positions % x.shape[axis], axis, -1)
        lines = lines.reshape(-1, positions.shape[axis])
    else:
        extents = x.shape[: positions.shape[-1]]
        rows = np.moveaxis(positions % np.array(extents), -1, 0)
        lines = np.ravel_multi_index(tuple(rows), extents).reshape(1, -1)
    return any(len(set(line)) < len(line) for line in lines.tolist())


def check(
    graph: Graph, module: torch.nn.Module, arrays: dict[str, Array], seed: int
) -> tuple[int, int]:
    """Gradients of all inputs and weights are PyTorch's, but at kinks, where slopes differ on both
    sides or there is none on one; (how many places there are, how many such that differ)"""
    dys = cotangents_of(graph, seed)
    expected = autograd(graph, module, arrays, dys)
    slopes = Differences(graph.copy(), arrays, dys)
    graph = gradient_graph(graph, floating(graph))
    results = evaluate_graph(graph, arrays | {f"d_{n}": dy for n, dy in dys.items()})
    places = kinks = 0
    for name, wanted in expected.items():
        found = results.get(name, np.zeros(wanted.shape))
        close = np.isclose(found, wanted, 1e-8, 1e-9, equal_nan=True)
        for place in np.flatnonzero(~close):
            _, smooth = slopes.at(name, int(place))
            assert not smooth, (name, place, found.flat[place], wanted.flat[place])
        places, kinks = places + wanted.size, kinks + int(np.sum(~close))
    return places, kinks


def autograd(
    graph: Graph, module: torch.nn.Module, arrays: dict[str, Array], dys: dict[str, Array]
) -> dict[str, Array]:
    """What PyTorch finds, by name; nothing where it finds that nothing depends on anything."""
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    data = [tensors[n].requires_grad_(tensors[n].is_floating_point()) for n in graph.inputs]
    with torch.no_grad():
        for key, tensor in own.items():
            if not key.endswith("num_batches_tracked"):
                tensor.copy_(tensors[key])
    said = module(*data)
    parts = [said] if isinstance(said, torch.Tensor) else list(said)
    named = zip(graph.outputs, parts, strict=True)
    smooth = [(n, part) for n, part in named if n in dys and part.requires_grad]
    if smooth:
        seeds = [torch.from_numpy(dys[n]) for n, _ in smooth]
        torch.autograd.backward([part for _, part in smooth], seeds)
    found = {n: t for n, t in zip(graph.inputs, data, strict=True) if t.requires_grad}
    found |= {key: tensor for key, tensor in own.items() if tensor.requires_grad}
    return {n: np.zeros(t.shape) if t.grad is None else t.grad.numpy() for n, t in found.items()}
