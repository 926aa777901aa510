"""Gradients where there is more than one right answer are the ones that docs/gradients.md says."""

from __future__ import annotations

import numpy as np
import pytest
from executors import graph_of, machine_code, run_graph
from gradients import gradient_graph
from graphs import evaluate_graph
from kinks import KINKS, Kink

from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("kink", KINKS, ids=str)
def test_oracle_and_machine_code(kink: Kink) -> None:
    for dtype in (DType.F64, DType.F32):
        arrays = {name: array.astype(dtype.numpy) for name, array in kink.arrays.items()}
        operands = [o.name for o in BY_NAME[kink.op].operands]
        types = {name: TensorType(dtype, arrays[name].shape) for name in operands}
        graph = graph_of(BY_NAME[kink.op].call(types, kink.attributes))
        arrays["d_y"] = np.ones(graph.outputs["y"].type.sizes, dtype.numpy)
        graph = gradient_graph(graph, {kink.by: graph.inputs[kink.by]})
        wanted = np.array(kink.ours)
        if not graph.outputs:
            assert not wanted.any()
            continue
        for found in (evaluate_graph(graph, arrays), run_graph(graph, arrays, machine_code)):
            np.testing.assert_allclose(found[kink.by], wanted, 1e-6)
