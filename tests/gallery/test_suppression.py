"""Suppression of a known number beside onnxruntime's; average precision by its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from interop.runtimes import run_onnxruntime
from onnx import helper

import convdsl
from convdsl.training.metrics.detection import AveragePrecision

Array = np.ndarray[Any, Any]


def suppressed(boxes: Array, scores: Array, most: int, limit: float, least: float) -> Array:
    """Rows (image, class, place) by onnxruntime, of scores [N, classes, A]."""
    settings = {"m": ([most], 7), "i": ([limit], 1), "l": ([least], 1)}
    node = helper.make_node("NonMaxSuppression", ["b", "s", *settings], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, 1, None) for n in "bs"],
        [helper.make_tensor_value_info("y", 7, None)],
        [helper.make_tensor(n, kind, [1], v) for n, (v, kind) in settings.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return run_onnxruntime(proto, {"b": boxes, "s": scores})["y"]


def crowded(seed: int, count: int = 200) -> tuple[Array, Array]:
    """Boxes around a few middles, and scores."""
    random = np.random.default_rng(seed)
    about = random.uniform(0, 100, (8, 2))[random.integers(0, 8, (2, count))]
    middle = about + random.normal(0, 4, (2, count, 2))
    half = random.uniform(5, 15, (2, count, 2))
    boxes = np.concatenate([middle - half, middle + half], axis=2).astype("f4")
    return boxes, random.permutation(2 * count).reshape(2, count).astype("f4") / (2 * count)


@pytest.mark.dear
@pytest.mark.parametrize("limit", [0.2, 0.5, 0.8])
def test_what_is_left_is_what_onnxruntime_leaves(limit: float) -> None:
    """Until the candidates are used up."""
    boxes, scores = crowded(int(10 * limit))
    model = convdsl.load("suppression", limit=limit)
    found = convdsl.compile(model, threads=1)(boxes=boxes, scores=scores)
    rows = suppressed(boxes, scores[:, None], 20, limit, 0.05)
    for image in (0, 1):
        order = np.argsort(-scores[image], kind="stable")[:60]
        wanted = [place for place in rows[rows[:, 0] == image][:, 2] if place in order]
        count = int((found["score"][image] > 0).sum())
        assert found["place"][image][:count].tolist() == wanted[:20]
        np.testing.assert_array_equal(found["kept"][image][:count], boxes[image][wanted])
        np.testing.assert_array_equal(found["score"][image][:count], scores[image][wanted])


def test_rounds_decide_one_box_each_at_least() -> None:
    """A chain of boxes, each over the next: every other one is left, after as many rounds."""
    places = 60
    begin = np.arange(places) * 0.4
    boxes = np.stack([begin, 0 * begin, begin + 1, 0 * begin + 1], axis=1)[None].astype("f4")
    scores = np.linspace(1, 0.5, places)[None].astype("f4")
    model = convdsl.load("suppression", places=places, limit=0.3, most=40)
    found = convdsl.compile(model, threads=1)(boxes=boxes, scores=scores)
    assert found["place"][0][found["score"][0] > 0].tolist() == list(range(0, places, 2))


@pytest.mark.dear(share=4)
def test_classes_do_not_compete() -> None:
    boxes, scores = crowded(3)
    classes = np.random.default_rng(4).integers(0, 3, scores.shape)
    model = convdsl.load("suppression_by_class", candidates=200, most=60)
    given = {"boxes": boxes, "scores": scores, "classes": classes}
    found = convdsl.compile(model, threads=1)(**given)
    each = np.where(classes[:, None] == np.arange(3)[:, None], scores[:, None], 0)
    rows = suppressed(boxes, each.astype("f4"), 200, 0.5, 0.05)
    for image in (0, 1):
        own = [(kind, scores[image, place]) for i, kind, place in rows.tolist() if i == image]
        wanted = {*sorted(own, key=lambda pair: -pair[1])[:60]}
        count = int((found["score"][image] > 0).sum())
        pairs = zip(found["kind"][image][:count], found["score"][image][:count], strict=True)
        assert {(int(kind), score) for kind, score in pairs} == wanted


# Average precision


def by_definition(found: Array, truth: Array, overlap: float) -> float:
    """Box by box, as VOC's development kit does since 2010, of one class."""
    ranked = sorted(
        ((box[4], image, box[:4]) for image, boxes in enumerate(found) for box in boxes if box[4]),
        key=lambda row: -row[0],
    )
    left = {i: [t[:4] for t in boxes if t[2] > t[0]] for i, boxes in enumerate(truth)}
    total, hits = sum(map(len, left.values())), []
    for _, image, box in ranked:
        best, which = 0.0, -1
        for number, true in enumerate(left[image]):
            w = min(box[2], true[2]) - max(box[0], true[0])
            h = min(box[3], true[3]) - max(box[1], true[1])
            both = max(w, 0) * max(h, 0)
            area = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, true)]
            if both / (sum(area) - both) > best:
                best, which = both / (sum(area) - both), number
        hits.append(best >= overlap)
        if hits[-1]:
            del left[image][which]
    points = [(sum(hits[: n + 1]) / total, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    area, before = 0.0, 0.0
    for number, (recall, _) in enumerate(points):
        area += (recall - before) * max(p for _, p in points[number:])
        before = recall
    return area


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_its_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    begin = random.uniform(0, 30, (10, 3, 2))
    truth = np.concatenate([begin, begin + random.uniform(5, 20, begin.shape)], 2)
    truth[random.random((10, 3)) < 0.3] = 0
    noisy = truth[:, random.permutation(3)] + random.normal(0, 1.5, truth.shape)
    found = np.concatenate([noisy, random.random((10, 3, 1)), np.zeros((10, 3, 1))], 2)
    found[random.random((10, 3)) < 0.2] = 0
    truth = np.concatenate([truth, np.zeros((10, 3, 1))], 2)
    found[found[..., 2] <= found[..., 0]] = 0
    measure = AveragePrecision(0.5)
    for part in (slice(0, 4), slice(4, 10)):
        measure.add(found[part], truth[part])
    wanted = by_definition(found, truth, 0.5)
    assert measure.value()["average_precision"] == pytest.approx(wanted, abs=1e-12)


def test_what_was_never_there_does_not_count() -> None:
    measure = AveragePrecision()
    measure.add(
        np.array([[[0, 0, 2, 2, 0.9, 0], [5, 5, 9, 9, 0.8, 2]]]), np.array([[[0, 0, 2, 2, 0]]])
    )
    said = measure.value()
    assert said["average_precision"] == 1
    assert said["average_precision_by_class"] == [1, None, None]
    assert np.isnan(AveragePrecision().value()["average_precision"])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(convdsl.InputError, match=r"found and true boxes are"):
        AveragePrecision().add(np.zeros((1, 2, 5)), np.zeros((1, 2, 5)))
