"""Every operator against PyTorch, in the configurations of tests/test_every_op.py.

PyTorch runs the source that `convdsl export --to pytorch` writes of a graph of one operator.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_cases import CASES_PER_OPERATOR, draw_case
from op_cases.closeness import assert_close
from op_cases.draw import Array, Case
from torch_modules import module_of, state_of

from convdsl.interop.correspondence import ROWS
from convdsl.interop.correspondence.wording import Lacking
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.kernel.evaluate import evaluate
from convdsl.ops import OPERATORS

pytestmark = pytest.mark.torch

UNDECIDED = {"gelu": "PyTorch's answers at infinities depend on the processor"}
"""Operators whose outputs are not compared where an input is infinite."""

SEEDS = range(CASES_PER_OPERATOR)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """max_unpool in several threads lets any of two values that claim a place win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def one_layer(case: Case) -> Model:
    """A network of just the call: weights by the operator's name."""
    graph, op = Graph(), case.op
    specs = {spec.name: spec for spec in op.state(case.call)}
    inputs = {
        name: graph.add_state(f"layer.{name}", type, specs[name].role, specs[name].init)
        if name in specs
        else graph.add_input(name, type)
        for name, type in case.call.types.items()
    }
    node = graph.apply(op, inputs, case.attributes, name="layer")
    for name, value in zip(case.call.output_names, node.outputs, strict=True):
        graph.outputs[name] = value
    return Model("one", graph)


def torch_says(case: Case) -> list[Array]:
    """The outputs, in order. Raises Lacking where PyTorch has no words for the call."""
    model = one_layer(case)
    module = module_of(model)
    weights = {key.removeprefix("layer."): tensor for key, tensor in state_of(module).items()}
    data = [name for name in case.arrays if name not in weights]
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(torch.from_numpy(np.array(case.arrays[name])))
        said = module(*(torch.from_numpy(np.array(case.arrays[name])) for name in data))
    parts = [said] if isinstance(said, torch.Tensor) else said
    return [part.detach().numpy() for part in parts]


@pytest.mark.parametrize(("name", "seed"), [(op.name, seed) for op in OPERATORS for seed in SEEDS])
def test_agrees_with_pytorch(name: str, seed: int) -> None:
    case = draw_case(name, seed)
    try:
        expected = torch_says(case)
    except Lacking as error:
        assert str(error).endswith(ROWS[name].pytorch.lacks)  # noqa: PT017
        return
    found = evaluate(case.call.kernel, case.arrays)
    for array, wanted in zip(found.values(), expected, strict=True):
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape), case
        if name in UNDECIDED:
            is_finite = ~np.isinf(case.arrays["x"])
            array, wanted = array[is_finite], wanted[is_finite]
        assert_close(array, wanted, case)


@pytest.mark.parametrize("name", [op.name for op in OPERATORS])
def test_some_configurations_have_words(name: str) -> None:
    reasons: list[str] = []
    for seed in SEEDS:
        try:
            module_of(one_layer(draw_case(name, seed)))
        except Lacking as error:
            reasons.append(str(error))
    elsewhere = ROWS[name].pytorch.name.startswith("torchvision.")
    assert len(reasons) == len(SEEDS) if elsewhere else len(SEEDS) - len(reasons) >= 4
