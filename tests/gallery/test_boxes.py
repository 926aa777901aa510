"""R-CNN's box regression: targets, their inverse, ridge and smooth L1 fits; anchors; overlaps."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from graphs import evaluate_graph
from losses import OUTPUT, TARGET, Case, complete

import convdsl
from convdsl.ir.graph import Graph
from convdsl.training.metrics.classes import box_overlaps

Array = np.ndarray[Any, Any]


def drawn(seed: int, count: int = 8, reach: float = 50.0) -> Array:
    """Boxes [2, count, 4]."""
    random = np.random.default_rng(seed)
    begin = random.uniform(-reach, reach, (2, count, 2))
    return np.concatenate([begin, begin + random.uniform(1, reach, begin.shape)], -1).astype("f4")


def by_middle(boxes: Array) -> tuple[Array, Array]:
    """(middles, sizes), [.., 2] each."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def test_targets_are_equations_6_to_9() -> None:
    p, g = drawn(0), drawn(1)
    found = convdsl.compile("box_targets", threads=1)(proposals=p, truth=g)
    (p_xy, p_wh), (g_xy, g_wh) = by_middle(p), by_middle(g)
    np.testing.assert_allclose(found[..., :2], (g_xy - p_xy) / p_wh, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[..., 2:], np.log(g_wh / p_wh), rtol=1e-4, atol=1e-5)


def test_the_inverse_finds_the_truth_again() -> None:
    p, g = drawn(2), drawn(3)
    t = convdsl.compile("box_targets", threads=1)(proposals=p, truth=g)
    found = convdsl.compile("box_decoded", threads=1)(proposals=p, targets=t)
    np.testing.assert_allclose(found, g, atol=1e-3)


def test_targets_know_nothing_of_place_and_scale() -> None:
    """Moving or enlarging both boxes leaves t as it is, which is what it is for."""
    p, g = drawn(4), drawn(5)
    encode = convdsl.compile("box_targets", threads=1)
    moved = encode(proposals=3 * p + 7, truth=3 * g + 7)
    np.testing.assert_allclose(moved, encode(proposals=p, truth=g), atol=1e-4)


# Equation 5


def samples(count: int = 200, features: int = 64) -> tuple[Array, Array]:
    random = np.random.default_rng(6)
    x = random.standard_normal((count, features)).astype("f4")
    true = random.standard_normal((features, 4)) / 8
    t = x @ true + 0.1 * random.standard_normal((count, 4))
    return x, t.astype("f4")


def fitted(x: Array, t: Array, **settings: Any) -> Array:
    model = convdsl.load("box_regression")
    said = {"val_fraction": 0.0, "batch": len(x), "epochs": 400, "decay_all": True, **settings}
    trained = convdsl.train(model, {"x": x, "targets": t}, **said)
    return np.asarray(trained.weights["regressor.weight"]).T


@pytest.mark.dear
@pytest.mark.parametrize("ridge", [10.0, 1000.0])
def test_training_ends_at_the_ridge_solution(ridge: float) -> None:
    """w = (X'X + lambda I)^-1 X't; the paper's lambda is 1000."""
    x, t = samples()
    wanted = np.linalg.solve(x.T @ x + ridge * np.eye(64), x.T @ t)
    rate = 1 / (np.linalg.eigvalsh(x.T @ x).max() + ridge)
    found = fitted(x, t, l2=2 * ridge, optimizer=f"sgd(lr = {rate / 2}, momentum = 0.5)")
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.dear
def test_smooth_l1_heeds_outliers_less() -> None:
    """A tenth of the targets far off: the fit is several times nearer to the truth."""
    x, t = samples()
    clean = np.linalg.lstsq(x, t, rcond=None)[0]
    random = np.random.default_rng(7)
    spoilt = t.copy()
    spoilt[random.permutation(len(t))[:20]] += random.choice([-20, 20], (20, 4)).astype("f4")
    squares = np.linalg.lstsq(x, spoilt, rcond=None)[0]
    loss = 'smooth_l1(t, targets, reduction = "sum")'
    robust = fitted(x, spoilt, loss=loss, optimizer="sgd(lr = 2e-3, momentum = 0.9)")
    apart = [np.linalg.norm(w - clean) for w in (squares, robust)]
    assert apart[1] < apart[0] / 5


# Anchors


def test_anchors_are_the_published_ones() -> None:
    """The table of py-faster-rcnn's generate_anchors, which ends with pixels of the box."""
    text = """
    use "zoo:gallery/anchors.cnn": anchors
    model m {
        input map: f32[1, 1, 3, 5]
        nothing = 0.0 * (map -> reduce_sum([0, 1, 2, 3]))
        (map -> anchors) + nothing -> output y
    }
    """
    (found,) = convdsl.compile(convdsl.parse(text), threads=1)(np.zeros((1, 1, 3, 5), "f4"))
    table = [
        [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
        [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
        [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
    ]  # fmt: skip
    shifts = [[16 * x, 16 * y, 16 * x, 16 * y] for y in range(3) for x in range(5)]
    wanted = np.array(shifts)[:, None] + np.array(table) + [0, 0, 1, 1]
    np.testing.assert_array_equal(found, wanted.reshape(-1, 4))


# The overlap family


@cache
def graph_of(name: str) -> Graph:
    return Case(name, complete(name), np.zeros((1, 4)), np.zeros((1, 4))).graph()


def loss(name: str, found: Any, wanted: Any) -> tuple[float, Array]:
    """The loss of one box, and its gradient."""
    arrays = {OUTPUT: np.array([found], np.float64), TARGET: np.array([wanted], np.float64)}
    said = evaluate_graph(graph_of(name), arrays)
    return float(said["loss"]), said["gradient"][0]


UNIT = [0.0, 0.0, 1.0, 1.0]


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("found", "iou", "giou", "diou"),
    [
        ([0, 0, 1, 1], 1, 1, 1),  # the same
        ([0.5, 0, 1.5, 1], 1 / 3, 1 / 3, 1 / 3 - 0.25 / 3.25),  # half of it
        ([2, 0, 3, 1], 0, -1 / 3, -4 / 10),  # beside it, one apart
        ([0, 0, 2, 2], 1 / 4, 1 / 4, 1 / 4 - 0.5 / 8),  # around it
        ([1, 1, 2, 2], 0, -1 / 2, -2 / 8),  # at the corner
    ],
)
def test_overlaps_by_hand(found: Any, iou: float, giou: float, diou: float) -> None:
    said = [1 - loss(name, found, UNIT)[0] for name in ("iou", "giou", "diou", "ciou")]
    np.testing.assert_allclose(said, [iou, giou, diou, diou], atol=1e-6)  # all are square


def test_shapes_count_in_ciou_alone() -> None:
    """Equation 9 of the paper: v = 4 / pi^2 (atan(1) - atan(2))^2 of a box of twice the width."""
    found = [-0.5, 0, 1.5, 1]
    v = 4 / np.pi**2 * (np.arctan(1) - np.arctan(2)) ** 2
    wanted = 0.5 + v * v / (0.5 + v)
    np.testing.assert_allclose(loss("diou", found, UNIT)[0], 0.5, atol=1e-6)
    np.testing.assert_allclose(loss("ciou", found, UNIT)[0], wanted, atol=1e-6)


def steps(name: str, box: Any, count: int = 200, rate: float = 0.5) -> list[float]:
    """Overlaps with the unit box on the way down the loss."""
    box = np.asarray(box, np.float64)
    seen: list[float] = []
    for number in range(count):
        seen.append(float(box_overlaps(box[None], np.array([UNIT]))[0]))
        box = box - rate * (1 - number / count) * loss(name, box, UNIT)[1]
    return seen


FAR = [3.0, 0.5, 4.0, 1.5]


def test_iou_does_not_see_a_box_apart() -> None:
    np.testing.assert_array_equal(loss("iou", FAR, UNIT)[1], np.zeros(4))


@pytest.mark.dear
@pytest.mark.drawn
@pytest.mark.parametrize(("name", "arrives"), [("giou", 160), ("diou", 123), ("ciou", 120)])
def test_boxes_apart_are_pulled_together_by_the_others(name: str, arrives: int) -> None:
    """Rezatofighi et al. 2019: IoU has no gradient where nothing overlaps. Zheng et al. 2020: GIoU
    grows the box until it overlaps, DIoU moves it, and arrives in fewer steps."""
    way = np.array(steps(name, FAR))
    assert way[-1] > 0.98
    assert int(np.argmax(way > 0.5)) == arrives


def test_a_box_inside_is_centred_by_diou_alone() -> None:
    """Section 3.2 of Zheng et al.: of boxes within each other GIoU is IoU, wherever they lie."""
    inside = [0.1, 0.25, 0.6, 0.75]
    assert loss("giou", inside, UNIT)[0] == pytest.approx(loss("iou", inside, UNIT)[0], abs=1e-6)
    across = {name: loss(name, inside, UNIT)[1][[0, 2]].sum() for name in ("giou", "diou")}
    assert across["giou"] == pytest.approx(0, abs=1e-6)
    assert across["diou"] < -0.1
