"""Maxima of windows on a card, which in training say which tap won: one kernel for both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contractions_on_cards import check, lowered_for
from cuda_shim.programs import run_on_cpu
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_results, rewritten
from lowering.test_second_target import packed

from convdsl.autodiff import gradients
from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import CudaTarget

WINDOWS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "apart": ((2, 24, 8, 6), {"kernel": 2}),
    "over each other": ((3, 17, 9, 11), {"kernel": 3, "stride": 2, "pad": 1}),
    "many taps": ((1, 8, 11, 9), {"kernel": 5, "stride": 2, "pad": 2}),
    "ragged ends": ((1, 20, 8, 7), {"kernel": 3, "stride": 2, "ceil_mode": True}),
    "in a row": ((2, 20, 19), {"kernel": 3, "dilation": 2}),
    "three ways": ((1, 12, 5, 6, 4), {"kernel": 2}),
}


def trained(shape: tuple[int, ...], attributes: dict[str, Any], channels: int = 8) -> Graph:
    """What wins is read by a product, which has it rounded where the units take fewer bits."""
    b = Builder()
    x = b("relu", b.input("x", *shape))
    y = b("max_pool", x, **attributes)
    (dx,) = gradients(b.graph, {y: y}, [x], b.build)
    assert dx is not None
    out = b("conv", y, channels=channels, kernel=1)
    return rewritten(b.output(y=b("relu", y), out=out, dx=b("mul", dx, dx)))


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("windows", WINDOWS)
def test_what_is_largest_and_which_tap_it_is(windows: str, precision: Any) -> None:
    """Windows are read once, by one kernel."""
    graph, target = trained(*WINDOWS[windows]), CudaTarget("sm_90", precision)
    lowered = lowered_for(graph, target)
    found = [c for c in lowered.choices if c.task.op == "max_pool.keeping(tap)"]
    assert [(c.schedule, len(c.task.earlier)) for c in found] == [("vectors", 1)]
    check(graph, target)


@pytest.mark.dear
@pytest.mark.parametrize("order", sorted(ORDERS))
def test_in_any_order(order: str) -> None:
    check(trained(*WINDOWS["over each other"]), CudaTarget("sm_90"), order)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("windows", WINDOWS)
def test_windows_without_numbers(windows: str) -> None:
    """NaN is passed on, and the first one takes the gradient; of infinities the first."""
    shape, attributes = WINDOWS[windows]
    b = Builder()
    x = b.input("x", *shape)
    y = b("max_pool", x, **attributes)
    (dx,) = gradients(b.graph, {y: b("cast", b("equal", y, y), dtype="f32")}, [x], b.build)
    assert dx is not None
    graph, target = rewritten(b.output(y=y, dx=dx)), CudaTarget("sm_90")
    random = np.random.default_rng(3)
    values = [np.nan, np.inf, -np.inf, -np.inf, 0.0, 1.0]
    arrays = {"x": random.choice(values, size=shape).astype("f4")}
    lowered = lowered_for(graph, target)
    program, module = lowered.program, print_module(lowered.program, target)
    made = run_on_cpu(
        program, module, packed(lowered, arrays), [arrays["x"]], [], ORDERS["shuffled"]
    )
    truth, _ = evaluate_results(graph, {"x": arrays["x"].astype("f8")})
    for port, found in zip(program.outputs, made, strict=True):
        np.testing.assert_array_equal(found, truth[port.name], port.name)
