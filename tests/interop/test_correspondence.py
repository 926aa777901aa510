"""The rows of operators, against ONNX's own definitions."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest
from onnx import helper
from onnx_rules import spelled
from op_cases import CASES_PER_OPERATOR, draw_case

from convdsl.interop.correspondence import READING, ROWS
from convdsl.interop.element_types import FROM_ONNX, INTEGERS, TO_ONNX
from convdsl.interop.onnx_export import OPSET

pytestmark = pytest.mark.drawn

ROWS_WITH_KEYWORDS = [row for row in ROWS.values() if row.keywords]


@pytest.mark.parametrize("row", ROWS_WITH_KEYWORDS, ids=lambda row: row.op)
def test_keywords_and_defaults_are_onnxs(row):
    known = onnx.defs.get_schema(row.kind, OPSET).attributes
    for keyword in row.keywords:
        default = helper.get_attribute_value(known[keyword.onnx].default_value)
        if isinstance(default, bytes):
            default = default.decode()
        is_said = known[keyword.onnx].default_value.name != ""
        if keyword.default is not None:
            assert is_said
            is_real = isinstance(default, float)
            assert keyword.default == (pytest.approx(default, rel=1e-6) if is_real else default)
        else:
            assert not is_said


@pytest.mark.parametrize("name", ROWS)
def test_spellings_have_the_kind_of_the_row(name):
    """One node of the kind, or more than one node where the row says none."""
    models = [spelled(draw_case(name, seed).call) for seed in range(CASES_PER_OPERATOR)]
    kinds = [[node.op_type for node in model.graph.node] for model in models]
    if ROWS[name].kind:
        assert any(ROWS[name].kind in found for found in kinds)
    else:
        assert any(len(found) > 1 for found in kinds)


ONNX = [kind for kind in READING if "." not in kind and kind != "SimplifiedLayerNormalization"]
"""Kinds of ONNX; those of ONNX Runtime stand behind their domain, but for one."""


def test_kinds_that_are_read_exist():
    for kind in ONNX:
        assert onnx.defs.has(kind), kind


def test_deciding_operands_are_operands():
    for kind in ONNX:
        schema = onnx.defs.get_schema(kind)
        assert all(index < len(schema.inputs) for index in READING[kind].deciding), kind


def test_element_types_are_onnxs():
    for dtype, number in TO_ONNX.items():
        name = helper.tensor_dtype_to_np_dtype(number).name
        assert name == dtype.numpy or (name, dtype.numpy) == ("bfloat16", "uint16")  # its bits
    for number in INTEGERS:
        assert helper.tensor_dtype_to_np_dtype(number).kind in "iu"
    assert not set(INTEGERS) & FROM_ONNX.keys()


def test_rows_are_read_without_onnx():
    """`convdsl ops` and the PyTorch source need none of it; tests/torch has it not."""
    script = (
        "import sys; sys.modules['onnx'] = None; import convdsl.interop.correspondence; "
        "print('onnx' in {name.split('.')[0] for name, m in sys.modules.items() if m})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
