"""Gradients of every operator against PyTorch's autograd, of the source that `export` writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gradients import floating, of_dtype, smooth_arrays, with_gradients
from graphs import evaluate_graph
from op_cases import draw_case
from torch_modules import module_of

from convdsl.interop.correspondence import ROWS
from convdsl.interop.correspondence.wording import Lacking
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.ir.opdef import Derived, Rule
from convdsl.ops import OPERATORS
from convdsl.tensor import DType

pytestmark = pytest.mark.torch

SEEDS = 8

SMOOTH = [op.name for op in OPERATORS if isinstance(op.gradient, Derived | Rule)]


@pytest.mark.parametrize("name", SMOOTH)
def test_agrees_with_autograd(name: str) -> None:
    for seed in range(SEEDS):
        drawn = draw_case(name, seed)
        call = of_dtype(drawn.call, DType.F64)
        case = replace(
            drawn, arrays=smooth_arrays(drawn, call, seed), attributes=dict(call.attributes)
        )
        if name == "max_unpool" and _claimed_twice(drawn.arrays["positions"]):
            continue  # PyTorch's gradient goes to all that claim a place, ours to the one that won
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
        try:
            module = module_of(Model("one", graph)).double()
        except Lacking as error:
            assert str(error) in ROWS[name].pytorch.lacks  # noqa: PT017
            continue
        _compare(case.arrays, graph, module)


def _claimed_twice(positions: np.ndarray) -> bool:
    maps = positions.reshape(*positions.shape[:2], -1)
    return any(len(set(row)) < len(row) for image in maps.tolist() for row in image)


def _compare(arrays: dict[str, np.ndarray], graph: Graph, module: torch.nn.Module) -> None:
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    data = [tensors[n].requires_grad_(tensors[n].is_floating_point()) for n in graph.inputs]
    with torch.no_grad():
        for key, tensor in own.items():
            given = tensors.get(key.removeprefix("layer."))
            if given is not None:
                tensor.copy_(given)
    said = module(*data)
    parts = [said] if isinstance(said, torch.Tensor) else list(said)
    random = np.random.default_rng(1)
    named = zip(graph.outputs.items(), parts, strict=True)
    smooth = [(n, part) for (n, v), part in named if v.type.dtype.is_float and part.requires_grad]
    dys = {n: random.standard_normal(tuple(part.shape)) for n, part in smooth}
    if not smooth:
        return
    torch.autograd.backward([p for _, p in smooth], [torch.from_numpy(dys[n]) for n, _ in smooth])
    expected = {n: t.grad for n, t in zip(graph.inputs, data, strict=True)}
    expected |= {key: tensor.grad for key, tensor in own.items()}
    wrt = floating(graph)
    graph, found = with_gradients(graph, wrt)
    graph.outputs = {n: value for n, value in found.items() if value is not None}
    values = {
        n: arrays[n.removeprefix("layer.")] for n in [*wrt, *graph.inputs] if not n.startswith("d_")
    }
    results = evaluate_graph(graph, values | {f"d_{n}": dy for n, dy in dys.items()})
    for key, wanted in expected.items():
        if wanted is not None and key in results:
            np.testing.assert_allclose(results[key], wanted.numpy(), 1e-8, 1e-9, err_msg=key)
        elif wanted is not None:
            assert not wanted.numpy().any(), key
