"""`conv(weight = tensor)`, and all other layers whose weights are tensors of the graph."""

from __future__ import annotations

import onnx
import pytest
from computed_weights import WEIGHTED, computed, statistics
from gradients import of_dtype
from interop.runtimes import run_convdsl, run_onnxruntime
from op_cases import CASES_PER_OPERATOR, draw_case
from op_cases.closeness import assert_close

import convdsl
from convdsl import exporting
from convdsl.interop.onnx_load import model_of
from convdsl.ir.alike import outputs_differ
from convdsl.kernel.evaluate import evaluate
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

CASES = pytest.mark.parametrize(
    ("name", "seed"), [(name, seed) for name in WEIGHTED for seed in range(CASES_PER_OPERATOR)]
)


def test_these_have_weights() -> None:
    assert {"conv", "conv_transpose", "deform_conv", "linear", "batch_norm", "prelu"} <= {*WEIGHTED}


@pytest.mark.parametrize("passes", ["all", "none"])
@CASES
def test_runs_as_with_weights_of_its_own(name: str, seed: int, passes: str) -> None:
    case = draw_case(name, seed)
    model = computed(case)
    expected = evaluate(case.call.kernel, case.arrays)
    how = {} if passes == "all" else {"passes": ()}
    given = {key: case.arrays[key] for key in model.inputs}
    found = run_convdsl(model, given, statistics(model, case.arrays), **how)
    for output, array in found.items():
        assert_close(array, expected[output], case)


@CASES
def test_text_says_it(name: str, seed: int) -> None:
    case = draw_case(name, seed)
    model = computed(case)
    model.weights = statistics(model, case.arrays)
    text, _ = exporting.translate(model)
    again = convdsl.parse(text)
    assert outputs_differ(model.graph, again.graph) is None, text


@CASES
def test_onnx_says_it_and_is_read_back(name: str, seed: int) -> None:
    """In f32: onnxruntime has few of these operators in double precision."""
    case = draw_case(name, seed)
    call = of_dtype(case.call, DType.F32)
    arrays = {key: case.arrays[key].astype(type.dtype.numpy) for key, type in call.types.items()}
    model = computed(case, DType.F32)
    file = convdsl.export(model, statistics(model, arrays))
    given = {key: arrays[key] for key in model.inputs}
    again = model_of(onnx.load_from_string(file), "one.onnx", {})
    expected = evaluate(call.kernel, arrays)
    for found in (run_onnxruntime(file, given), run_convdsl(again, given)):
        for output, array in found.items():
            assert_close(array, expected[output], case)
