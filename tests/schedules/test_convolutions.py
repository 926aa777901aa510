"""Convolutions in machine code of three widths of vectors, against double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawn_convolutions import check, conv_graph, convolutions, run
from hypothesis import given, settings

from convdsl.backends.llvm import objects as llvm
from convdsl.ir.graph import Graph
from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.text import format_kernel
from convdsl.lowering.lower import lower
from convdsl.ops import BY_NAME
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType, TensorType

CPUS = ["native", "x86-64-v3", "x86-64-v2"]
EXAMPLES = 12


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=EXAMPLES)
@given(drawn=convolutions())
def test_drawn_convolutions(drawn: tuple[Any, Any], cpu: str) -> None:
    check(conv_graph(*drawn), cpu=cpu)


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=EXAMPLES // 2)
@given(drawn=convolutions())
def test_drawn_convolutions_in_f64(drawn: tuple[Any, Any], cpu: str) -> None:
    check(conv_graph(*drawn, DType.F64), DType.F64, cpu)


@pytest.mark.dear
@settings(max_examples=EXAMPLES)
@given(drawn=convolutions(("depthwise",)))
def test_drawn_depthwise_convolutions(drawn: tuple[Any, Any]) -> None:
    assert {"depthwise", "generic"} & set(check(conv_graph(*drawn))[:2])


@pytest.mark.dear
@pytest.mark.parametrize(
    ("channels", "filters", "height", "width", "kernel", "stride"),
    [
        (512, 64, 7, 7, 3, 1),  # tiles of several rows
        (520, 40, 5, 14, 3, 2),  # a ragged last block of channels, borders in every row
        (2048, 128, 4, 4, 1, 1),  # all positions as one row
        (768, 64, 3, 30, 3, 1),  # rows longer than a tile
    ],
)
def test_filters_too_large_for_the_cache_are_swept_in_panels(
    channels: int, filters: int, height: int, width: int, kernel: int, stride: int
) -> None:
    """Sums wait in the output between panels; the epilogue runs once, after the last."""
    graph = Graph()
    shape = (1, channels, height, width)
    x = graph.add_input("x", TensorType(DType.F32, shape))
    before = graph.apply(BY_NAME["relu"], {"x": x}, name="before")
    attributes = {"channels": filters, "kernel": kernel, "stride": stride}
    conv = graph.apply(BY_NAME["conv"], {"x": before.output}, attributes, name="conv")
    after = graph.apply(BY_NAME["relu6"], {"x": conv.output}, name="after")
    conv.group = after.group = 1
    graph.outputs = {"y": after.output}
    machine = cpu_machine(llvm.find_target()).without("winograd")
    lowered = lower(graph, machine, "panels")
    (listing,) = [format_kernel(k) for k in lowered.program.kernels if k.name.startswith("conv")]
    assert "prefetch" in listing
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.standard_normal(node.type.sizes).astype(np.float32)
        for name, node in graph.states.items()
    }
    arrays["x"] = generator.standard_normal(shape).astype(np.float32)
    found = run(graph, arrays, llvm.find_target(), without=("winograd",))[0]["y"]
    operands = {"x": np.maximum(arrays["x"], 0).astype(np.float64)}
    operands |= {k: arrays[f"conv.{k}"].astype(np.float64) for k in ("weight", "bias")}
    types = {k: TensorType(DType.F64, v.shape) for k, v in operands.items()}
    call = BY_NAME["conv"].call(types, attributes)
    expected = np.clip(evaluate(call.kernel, operands)["y"], 0, 6)
    np.testing.assert_allclose(found, expected, atol=2e-6 * channels * kernel)
