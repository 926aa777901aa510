"""What every file of the gallery does: it is counted, runs, learns, goes to ONNX and back, and is
compiled for cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import evaluate_graph
from interop.runtimes import assert_close, draw_inputs, run_convdsl, run_onnxruntime
from resource_gate import check_resources

import convdsl
from convdsl import exporting, zoo
from convdsl.analysis.report import analyse
from convdsl.backends.cuda.printer import print_module
from convdsl.bound import bind_weights_of
from convdsl.interop.onnx_load import model_of
from convdsl.ir.opdef import Role
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.verify import verify_kernel
from convdsl.lowering.lower import lower
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.training.settings import complete
from convdsl.training.step import RATE

Array = np.ndarray[Any, Any]

NAMES = [name for name, entry in zoo.names().items() if entry.path.parent.name == "gallery"]

SMALL: dict[str, dict[str, Any]] = {
    "suppression": {"places": 30, "candidates": 12, "most": 6},
    "suppression_by_class": {"places": 30, "candidates": 12, "most": 6},
    "large_filter": {"channels": 16, "size": 24},
    "swin_stage": {"channels": 16, "heads": 2, "height": 8, "width": 12, "window": 4},
    "atrous_pyramid": {"channels": 4, "rates": [2, 5], "size": 7},
    "atrous_convolution": {"size": 9},
    "deformable_convolution": {"channels": 4, "width": 3, "size": 5},
    "spatial_pyramid_pooling": {"height": 8, "width": 11},
}
"""Parameters of those that would take long at their own sizes; sizes that are open are 8 here."""

SETTINGS: dict[str, dict[str, str]] = {
    "anchors_of_a_map": {"loss": "mse(scores, a) + mse(boxes, b)", "optimizer": "sgd(lr = 0.01)"},
    "octave_convolution": {
        "loss": "mse(fine, fine_target) + mse(coarse, coarse_target)",
        "optimizer": "sgd(lr = 0.01)",
        "augment": "[]",
    },
}
"""How those learn that have no `train` block and whose first output is no map of numbers."""

NOT_IN_ONNX: dict[str, str] = {}
"""Those that cannot be exported, and a word of the reason that is given."""

CORNERS = ("boxes", "proposals", "truth", "regions")
"""Inputs and targets that are boxes, which end behind where they begin."""

each = pytest.mark.parametrize("name", NAMES)


def some(test: Callable[[str], None]) -> Callable[[str], None]:
    """What compiles: a third of the files a commit."""
    return pytest.mark.drawn(share=3)(each(test))


def small(name: str) -> convdsl.Model:
    """With two samples."""
    given = SMALL.get(name, {})
    open = {symbol.name: 8 for symbol in convdsl.load(name, **given).symbols}
    return convdsl.load(name, **given, **(open | {"N": 2} if "N" in open else open))


def drawn(model: convdsl.Model, seed: int) -> dict[str, Array]:
    arrays = draw_inputs(model, seed)
    for name in arrays.keys() & {*CORNERS}:
        shape = arrays[name].shape
        corners = np.sort(arrays[name].reshape(*shape[:-1], 2, 2), axis=-2)
        arrays[name] = corners.reshape(shape)
    if "images" in arrays:  # numbers of the two samples
        arrays["images"] = abs(arrays["images"]) % 2
    return arrays


def settings(model: convdsl.Model) -> dict[str, str]:
    if model.name in SETTINGS:
        return SETTINGS[model.name]
    first = next(iter(model.outputs))
    said = {"optimizer": "sgd(lr = 0.01)", "augment": "[]"}
    return said if model.training is not None else {**said, "loss": f"mse({first}, {first}_target)"}


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@each
def test_is_counted(name: str) -> None:
    model = convdsl.load(name)
    assert not model.warnings, "\n\n".join(warning.render() for warning in model.warnings)
    open = {symbol.name: 8 for symbol in model.symbols}
    report = analyse(model, "all", open | {"N": 1})
    assert report.layers
    assert all(isinstance(report.totals[key], int) for key in ("params", "macs", "flops"))


@pytest.mark.dear
@some
def test_runs(name: str) -> None:
    """Machine code against the operators' arithmetic in double precision."""
    model = small(name)
    weights = bind_weights_of(model, "random:0")
    arrays = drawn(model, seed=1)
    found = run_convdsl(model, arrays, weights, cache=False)
    exact = {k: a.astype("f8") if a.dtype.kind == "f" else a for k, a in (weights | arrays).items()}
    wanted = evaluate_graph(model.graph, exact)
    assert_close(found, {key: a.astype(found[key].dtype) for key, a in wanted.items()}, 1e-4)


@pytest.mark.dear
@some
def test_learns(name: str) -> None:
    """A step: a loss that is a number, and gradients that reach every parameter there is."""
    model = small(name)
    trained = [k for k, s in model.graph.states.items() if s.role is Role.PARAMETER]
    how = complete(model, settings(model))
    if not trained:  # kernels that are written down
        with pytest.raises(convdsl.InputError, match="no weights"):
            convdsl.Session(model, how, "random:1", cache=False)
        return
    session = convdsl.Session(model, how, "random:1", cache=False)
    before = {key: array.copy() for key, array in session.weights().items()}
    arrays = drawn(session.plan.model, seed=2)  # targets too: labels are 0, 1 or 2
    batch = {k: abs(a) if a.dtype.kind == "i" else a for k, a in arrays.items()}
    loss = session.step({key: a for key, a in batch.items() if key != RATE}, rate=0.01)["loss"]
    assert np.isfinite(loss)
    after = session.weights()
    assert all(np.isfinite(after[key]).all() for key in trained)
    still = [key for key in trained if np.array_equal(before[key], after[key])]
    assert still == []


@pytest.mark.dear
@some
def test_to_onnx_and_back(name: str) -> None:
    model = small(name)
    weights = bind_weights_of(model, "random:0")
    if name in NOT_IN_ONNX:
        with pytest.raises(convdsl.InputError, match=NOT_IN_ONNX[name]):
            exporting.export(model, weights)
        return
    arrays = drawn(model, seed=3)
    ours = run_convdsl(model, arrays, weights, cache=False)
    exported = exporting.export(model, weights)
    assert_close(ours, run_onnxruntime(exported, arrays), 1e-4)
    again = model_of(onnx.load_from_string(exported), name, {})
    assert_close(run_convdsl(again, arrays, cache=False), ours, 1e-4)


@pytest.mark.dear
@some
def test_becomes_cuda(name: str) -> None:
    program = lower(small(name).graph, cuda_machine(CudaTarget("sm_80")), "test").program
    for kernel in program.kernels:
        verify_kernel(kernel)
    module = print_module(program, CudaTarget("sm_80"))
    done = {name for launch in module.launches for name in launch.nodes}
    assert done >= {name for step in program.steps for name in step.nodes}
    assert all(f" {launch.function}(" in module.source for launch in module.launches)


@pytest.mark.ladder
@each
def test_is_compiled_for_cards(name: str) -> None:
    """NVRTC takes it, and nothing is spilled."""
    target = CudaTarget("sm_80")
    program = lower(small(name).graph, cuda_machine(target), "test").program
    gate = check_resources({name: print_module(program, target).source}, target.arch)
    assert not gate.findings, "\n".join(gate.findings)
