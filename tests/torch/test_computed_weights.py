"""Layers whose weights are tensors, against PyTorch's functional forms."""

from __future__ import annotations

import pytest
import torch
from computed_weights import WEIGHTED, computed
from gradients import arrays_of, of_dtype, smooth_case
from op_cases import CASES_PER_OPERATOR
from op_cases.closeness import assert_close
from torch_modules import module_of

from convdsl.diagnostics import InputError
from convdsl.interop.correspondence import ROWS
from convdsl.interop.correspondence.wording import Lacking
from convdsl.kernel.evaluate import evaluate
from convdsl.tensor import DType

pytestmark = pytest.mark.torch

LOOSE = [name for name in WEIGHTED if ROWS[name].pytorch.loose is not None]


@pytest.mark.parametrize("name", LOOSE)
def test_agrees_with_pytorch(name: str) -> None:
    for number in range(CASES_PER_OPERATOR):
        case = smooth_case(name, number)
        call = of_dtype(case.call, DType.F64)
        model = computed(case, DType.F64)
        arrays = {key: arrays_of(case, call, number)[key] for key in model.inputs}
        try:
            module = module_of(model).double()
        except Lacking as error:
            assert str(error).endswith(ROWS[name].pytorch.lacks)  # noqa: PT017
            continue
        assert not module.state_dict()
        expected = module(*map(torch.from_numpy, arrays.values())).detach().numpy()
        assert_close(evaluate(call.kernel, arrays)["y"], expected, case)


def test_a_bias_of_its_own_is_a_parameter() -> None:
    import convdsl

    model = convdsl.parse(
        "convdsl 1\nmodel one { input x: f32[1, 2, 5, 5]\n input w: f32[4, 2, 3, 3]\n"
        " x -> conv(4, 3x3, weight = w) as first -> output y }"
    )
    module = module_of(model)
    assert {key: tuple(t.shape) for key, t in module.state_dict().items()} == {"first.bias": (4,)}
    x, w = torch.randn(1, 2, 5, 5), torch.randn(4, 2, 3, 3)
    torch.nn.init.normal_(module.first.bias)
    expected = torch.nn.functional.conv2d(x, w, module.first.bias, padding=1)
    torch.testing.assert_close(module(x, w), expected)


@pytest.mark.parametrize("name", [n for n in WEIGHTED if n not in LOOSE and n != "deform_conv"])
def test_what_is_a_module_alone_says_so(name: str) -> None:
    cases = (smooth_case(name, number) for number in range(CASES_PER_OPERATOR))
    case = next(case for case in cases if "weight" in case.arrays)
    with pytest.raises(InputError, match="weights that are computed"):
        module_of(computed(case))
