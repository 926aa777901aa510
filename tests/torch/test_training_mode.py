"""batch_norm in training against PyTorch's: outputs, running statistics and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from executors import executing, run_session
from gradients import floating, with_gradients
from graphs import Builder, evaluate_results, random_arrays, rewritten

from convdsl.tensor import DType
from convdsl.training.mode import training_mode

pytestmark = pytest.mark.torch

KINDS = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
KINDS[5] = torch.nn.BatchNorm3d

CASES = [
    (shape, affine)
    for shape in [(8, 5), (2, 64), (3, 4, 9), (4, 16, 7, 7), (2, 33, 3, 5), (1, 2, 2, 3, 2)]
    for affine in (True, False)
]


@pytest.mark.parametrize(("shape", "affine"), CASES)
@pytest.mark.parametrize("dtype", [DType.F64, DType.F32])
def test_agrees_with_pytorch(shape: tuple[int, ...], affine: bool, dtype: DType) -> None:
    b = Builder()
    x = b.input("x", *shape, dtype=dtype)
    graph = b.output(y=b("batch_norm", x, name="bn", affine=affine, eps=1e-4, momentum=0.3))
    step = b.input("step", dtype=DType.I64)
    training_mode(b.build, step=step, seed=0, frozen=())
    wanted = {n: v for n, v in floating(graph).items() if "running" not in n}
    graph, found = with_gradients(graph, wanted)
    graph.outputs |= {f"d{name}": value for name, value in found.items() if value is not None}
    arrays = random_arrays(graph, 1)
    arrays = {n: np.asarray(a, dtype.numpy) for n, a in arrays.items()} | {"step": np.array(0)}

    layer = KINDS[len(shape)](shape[1], eps=1e-4, momentum=0.3, affine=affine).double()
    with torch.no_grad():
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if f"bn.{name}" in arrays:
                tensor.copy_(torch.from_numpy(arrays[f"bn.{name}"]))
    data = torch.from_numpy(arrays["x"].astype(np.float64)).requires_grad_()
    y = layer(data)
    y.backward(torch.from_numpy(arrays["d_y"].astype(np.float64)))
    expected = {"y": y.detach(), "dx": data.grad}
    if affine:
        expected |= {"dbn.weight": layer.weight.grad, "dbn.bias": layer.bias.grad}
    kept = {f"bn.{n}": b for n, b in layer.named_buffers() if n.startswith("running")}

    if dtype is DType.F64:
        outputs, states = evaluate_results(graph, arrays)
        tolerance = 1e-9
    else:
        given = {n: arrays[n] for n in graph.inputs}
        ((outputs, states),) = run_session(rewritten(graph), arrays, [given], executing)
        tolerance = 2e-5
    assert set(expected) == set(outputs)
    for name, tensor in {**expected, **kept}.items():
        actual = (outputs | states)[name]
        array = tensor.numpy()
        np.testing.assert_allclose(
            actual, array, rtol=0, atol=tolerance * max(1.0, np.abs(array).max()), err_msg=name
        )
