"""Every operator against PyTorch, in the configurations of tests/test_every_op.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_cases import CASES_PER_OPERATOR, draw_case
from op_cases.draw import Array, Case
from torch_rules import RULES, has_pytorch

from convdsl.kernel.evaluate import evaluate
from convdsl.ops import OPERATORS

pytestmark = pytest.mark.torch


def test_no_operator_is_forgotten() -> None:
    assert {op.name for op in OPERATORS} == set(RULES)


CASES = [
    (op.name, seed)
    for op in OPERATORS
    for seed in range(CASES_PER_OPERATOR)
    if op.name != "resize" or has_pytorch(draw_case(op.name, seed).call)
]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_agrees_with_pytorch(name: str, seed: int) -> None:
    case = draw_case(name, seed)
    call = case.call
    tensors = {operand: torch.from_numpy(np.array(a)) for operand, a in case.arrays.items()}
    said = RULES[name](call, tensors)
    expected = [said] if isinstance(said, torch.Tensor) else list(said)
    found = evaluate(call.kernel, case.arrays)
    for array, tensor in zip(found.values(), expected, strict=True):
        assert_close(array, tensor.numpy(), case)


def assert_close(found: Array, expected: Array, case: Case) -> None:
    assert found.dtype == expected.dtype, case
    assert found.shape == expected.shape, case
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected, str(case))
        return
    scale = float(np.max(np.abs(expected), initial=1.0, where=np.isfinite(expected)))
    tolerance = 64 * float(np.finfo(found.dtype).eps)
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * scale, err_msg=str(case)
    )
