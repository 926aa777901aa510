"""Losses: gradients against differences, extremes, labels that are no class, machine code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from executors import machine_code, run_graph
from gradients import check_graph
from graphs import evaluate_graph, rewritten
from losses import OUTPUT, TARGET, Case, complete, draw_case

from convdsl.diagnostics import InputError
from convdsl.ir import techniques
from convdsl.ir.build import Build
from convdsl.ir.graph import Graph
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType, symbol
from convdsl.training.losses import COMPARING, LOSSES

pytestmark = pytest.mark.drawn

F32, F64 = DType.F32, DType.F64
CLASSES = ("cross_entropy", "nll", "focal", "dice")
EXTREME = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [1e4, 1e4, -1e4]])


def test_the_language_has_the_same_losses() -> None:
    assert set(LOSSES) == set(techniques.LOSSES)


@pytest.mark.dear
@pytest.mark.parametrize("name", COMPARING)
def test_gradients_agree_with_differences(name: str) -> None:
    """By outputs and by targets that are numbers."""
    checked = 0
    for seed in range(16):
        case = draw_case(name, seed)
        whole = np.isfinite(evaluate_graph(case.forward(), case.arrays())["loss"])
        if whole and np.abs(case.output).max() < 20:
            checked += check_graph(case.forward(), case.arrays(), seed, places=3)
    assert checked >= 3


@pytest.mark.dear
@pytest.mark.parametrize("name", COMPARING)
def test_machine_code_agrees(name: str) -> None:
    """After all passes, fused, in f32; huge logits among the draws."""
    for seed in range(8):
        case = draw_case(name, seed)
        arrays = case.arrays(F32)
        expected = evaluate_graph(case.graph(F32), arrays)
        found = run_graph(rewritten(case.graph(F32)), arrays, machine_code)
        for key, array in expected.items():
            span = float(np.max(np.abs(array[np.isfinite(array)]), initial=1e-3))
            np.testing.assert_allclose(found[key], array, 0, 1e-5 * span, err_msg=f"{key} {seed}")


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "focal"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_extreme_logits_are_finite(name: str, gamma: float) -> None:
    labels = np.array([1, 1, 2])
    more = {"gamma": gamma} if name == "focal" else {}
    target = np.eye(3)[labels] if name == "binary_cross_entropy" else labels
    case = Case(name, complete(name, **more), EXTREME, target)
    found = run_graph(rewritten(case.graph(F32)), case.arrays(F32), machine_code)
    assert np.isfinite(found["loss"])
    assert np.isfinite(found["gradient"]).all()
    assert found["loss"] > 1e3
    assert found["gradient"][0, 1] < 0  # towards the label


def test_equal_huge_logits_keep_their_difference() -> None:
    """log 2, which a difference of log-sum-exp and logit loses in single precision."""
    case = Case("cross_entropy", complete("cross_entropy"), np.full((1, 2), 1e4), np.array([0]))
    found = run_graph(rewritten(case.graph(F32)), case.arrays(F32), machine_code)
    np.testing.assert_allclose(found["loss"], np.log(2), 1e-6)


def test_what_is_sure_and_right_keeps_its_gradient() -> None:
    """sigmoid(30) is 1 in single precision, and yet there is something left to learn."""
    arguments = complete("binary_cross_entropy")
    case = Case("binary_cross_entropy", arguments, np.array([[30.0], [-30.0]]), np.eye(2)[:, :1])
    found = run_graph(rewritten(case.graph(F32)), case.arrays(F32), machine_code)
    truth = np.array([[-0.5], [0.5]]) * np.exp(-30)
    np.testing.assert_allclose(found["gradient"], truth, 1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "nll", "focal"])
def test_nothing_that_counts(name: str) -> None:
    """A mean over nothing is no number, as PyTorch's; its gradient is zero."""
    arguments = complete(name, ignore_index=-1)
    case = Case(name, arguments, EXTREME / 1e4, np.array([-1, -1, -1]))
    found = evaluate_graph(case.graph(), case.arrays())
    assert np.isnan(found["loss"])
    np.testing.assert_array_equal(found["gradient"], np.zeros((3, 3)))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_that_is_no_class_is_found(name: str, wrong: int) -> None:
    """By the host before the step; and by the loss, which is NaN then."""
    arguments = complete(name)
    label = np.array([[0], [wrong], [-100]])
    case = Case(name, arguments, EXTREME.reshape(3, 3, 1), np.array([[0], [0], [-100]]))
    found = evaluate_graph(case.forward(), {**case.arrays(), TARGET: label})
    assert np.isnan(found["loss"])
    with pytest.raises(
        InputError, match=rf"sample 1 .* labelled {wrong} at \[0\], .* 3 classes, 0 to 2"
    ):
        LOSSES[name].check(label, TensorType(F64, (3, 3, 1)), arguments)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "focal", "dice"])
@pytest.mark.parametrize("wrong", [255.0, -0.5, np.nan])
def test_shares_are_from_0_to_1(name: str, wrong: float) -> None:
    target = np.ones((2, 1, 1, 1))
    target[1] = wrong
    with pytest.raises(InputError, match=r"sample 1 .* 0 to 1"):
        LOSSES[name].check(target, TensorType(F64, (2, 1, 1, 1)), complete(name))


def test_a_box_of_no_class_is_found() -> None:
    target = np.zeros((2, 5))
    type = TensorType(F64, (2, 8))
    LOSSES["box"].check(target, type, complete("box"))
    for wrong in (2.0, -1.0, 0.5, np.nan):
        target[1, 0] = wrong
        with pytest.raises(InputError, match="box 1 .* 2 classes, 0 to 1"):
            LOSSES["box"].check(target, type, complete("box"))


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("cross_entropy", (4,), "N, classes"),
        ("cross_entropy", (4, symbol("C")), "has to be known"),
        ("dice", (4, 3), "regions of maps"),
        ("box", (4, 6), "boxes by class"),
        ("box", (4, 3, 5), "boxes by class"),
    ],
)
def test_outputs_that_a_loss_cannot_judge(name: str, shape: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        LOSSES[name].target(TensorType(F32, shape), complete(name))


def test_as_many_weights_as_classes() -> None:
    case = Case(
        "cross_entropy", complete("cross_entropy", class_weights=[1.0]), EXTREME, np.arange(3)
    )
    with pytest.raises(InputError, match="class_weights has 1 numbers for 3 classes"):
        case.forward()


@pytest.mark.parametrize("name", COMPARING)
def test_the_batch_may_be_free(name: str) -> None:
    """As models have it: the same loss once it is known."""
    case = next(c for c in (draw_case(name, seed) for seed in range(50)) if c.output.shape[0] > 1)
    free, graph = symbol("N"), Graph()
    build = Build(graph, BY_NAME)
    shape = (free, *case.output.shape[1:])
    y = build.input(OUTPUT, TensorType(F64, shape))
    builder = LOSSES[name]
    labelled = case.target.dtype.kind == "i"
    rule = builder.target if labelled or builder.shares is None else builder.shares
    t = build.input(TARGET, rule(y.type, case.arguments))
    graph.outputs = {"loss": builder.build(build, y, t, case.arguments)}
    found = evaluate_graph(graph.bind({"N": case.output.shape[0]}), case.arrays())
    np.testing.assert_array_equal(
        found["loss"], evaluate_graph(case.forward(), case.arrays())["loss"]
    )
