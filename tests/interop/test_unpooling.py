"""Max-unpooling there and back: readers differ in how they count positions in larger outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import convdsl
from convdsl.interop.onnx_load import model_of
from interop.runtimes import draw_inputs, run_convdsl, run_onnxruntime

LAYERS = {
    "2x2": ("2x2", 45, 64),
    "odd sizes": ("2x2", 9, 7),
    "steps and borders": ("3x3, stride = 2, pad = 1", 8, 11),
    "borders that are not reached": ("3x3, stride = 3, pad = 1", 7, 6),
    "gaps": ("2x1, stride = 3", 10, 9),
    "windows that overlap": ("3x2, stride = 1x2", 6, 9),
}


@pytest.mark.parametrize("window", LAYERS)
def test_a_larger_output_is_the_same_by_all_readers(window):
    """onnxruntime, ONNX's reference, and what is read back, here and as text of its file."""
    options, height, width = LAYERS[window]
    text = f"""model m {{
        input x: f32[N, 3, {height}, {width}]
        y, p = x -> max_pool_with_positions({options})
        y * 2 -> max_unpool(p, {options}, size = [{height}, {width}]) -> output o
    }}"""
    model = convdsl.parse(text)
    proto = onnx.load_model_from_string(convdsl.export(model))
    given = draw_inputs(model, N=2)
    (expected,) = run_convdsl(model, given).values()
    assert np.count_nonzero(expected)
    (there,) = run_onnxruntime(proto, given).values()
    np.testing.assert_array_equal(there, expected)
    (back,) = run_convdsl(model_of(proto, "m.onnx", {"N": 2}), given).values()
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("window", LAYERS)
def test_positions_are_what_the_reference_takes(window):
    """The unpooling alone: ONNX's reference has no positions of padded pooling."""
    options, height, width = LAYERS[window]
    pooled = convdsl.parse(f"""model m {{
        input x: f32[2, 3, {height}, {width}]
        y, p = x -> max_pool_with_positions({options})
        y -> output y
        p -> output p
    }}""")
    made = run_convdsl(pooled, draw_inputs(pooled))
    shape = list(made["y"].shape)
    model = convdsl.parse(f"""model m {{
        input y: f32{shape}
        input p: i64{shape}
        y -> max_unpool(p, {options}, size = [{height}, {width}]) -> output o
    }}""")
    (expected,) = run_convdsl(model, made).values()
    proto = onnx.load_model_from_string(convdsl.export(model))
    (found,) = ReferenceEvaluator(proto).run(None, made)
    np.testing.assert_array_equal(found, expected)
