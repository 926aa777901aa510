"""Detectors: digits placed at random; the parameters and names of YOLOv8; regions of maps."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from interop.runtimes import assert_close, draw_inputs, run_convdsl, run_onnxruntime
from training.test_walkthroughs import figure, walk

import convdsl
from convdsl import exporting
from convdsl.analysis.report import analyse
from convdsl.bound import bind_weights_of
from convdsl.interop.onnx_load import model_of


@pytest.mark.slow
def test_digits_are_found(tmp_path: Path) -> None:
    """A tenth of the steps: mean average precision 0.30 of new digits, where chance has none."""
    said = walk("detector", tmp_path, "--images", "700", "--epochs", "5")
    assert figure(said) > 0.15


@pytest.mark.slow
def test_digits_are_found_in_the_long_run(tmp_path: Path) -> None:
    """Seen: 0.877."""
    assert figure(walk("detector", tmp_path)) > 0.8


@pytest.mark.dear
@pytest.mark.parametrize(
    ("name", "params", "gflops"),
    [
        ("yolov8n", 3_157_184, 8.7),
        ("yolov8s", 11_166_544, 28.6),
        ("yolov8m", 25_902_624, 78.9),
        ("yolov8l", 43_691_504, 165.1),
        ("yolov8x", 68_229_632, 257.8),
    ],
)
def test_yolo_has_the_published_parameters(name: str, params: int, gflops: float) -> None:
    """What Ultralytics's summaries say is trained. Their GFLOPs at 640 x 640 are these and those of
    normalisation, up to half a percent more."""
    totals = analyse(convdsl.load(name), "torchvision", {"N": 1}).totals
    assert totals["params"] == params
    assert round(totals["flops"] / 1e9, 1) == gflops


def test_the_distances_of_yolo_are_fixed() -> None:
    states = convdsl.load("yolov8n").graph.states
    fixed = states["model.22.dfl.conv.weight"]
    assert np.asarray(fixed.data).ravel().tolist() == list(range(16))
    assert fixed.type.shape == (1, 16, 1, 1)


def test_yolo_is_called_as_its_weights_are() -> None:
    states = convdsl.load("yolov8n").graph.states
    keys = {key for key in states if key.startswith("model.") and ".grid" not in key}
    assert len([key for key in keys if key.endswith("running_mean")]) == 57
    kinds = (
        r"model\.\d+\.(conv\.weight|bn\.\w+)",
        r"model\.\d+\.cv[12]\.(conv\.weight|bn\.\w+)",
        r"model\.\d+\.m\.\d\.cv[12]\.(conv\.weight|bn\.\w+)",
        r"model\.22\.cv[23]\.[012]\.([01]\.(conv\.weight|bn\.\w+)|2\.(weight|bias))",
        r"model\.22\.dfl\.conv\.weight",
    )
    assert [key for key in keys if not any(re.fullmatch(kind, key) for kind in kinds)] == []


@pytest.mark.dear
def test_yolo_suppressed_is_what_is_left_of_all_places() -> None:
    weights, small = "random:5", {"side": 64, "width": 1 / 16, "classes": 3}
    given = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    plain = convdsl.compile(convdsl.load("yolov8n", **small), weights, threads=1)(given)[0]
    model = convdsl.load("yolov8n_suppressed", **small, candidates=20, most=4)
    (found,) = convdsl.compile(model, weights, threads=1)(given)
    middle, size, scores = plain[:2], plain[2:4], plain[4:]
    assert (size > 0).all()
    best = int(scores.max(0).argmax())
    assert scores.max() > 0.25
    corners = [*(middle - size / 2)[:, best], *(middle + size / 2)[:, best]]
    np.testing.assert_allclose(found[0, :4], corners, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found[0, 4], scores.max(), rtol=1e-5)
    assert int(found[0, 5]) == int(scores[:, best].argmax())


@pytest.mark.slow
def test_yolo_to_onnx_and_back() -> None:
    """Both forms at 64 x 64."""
    for name in ("yolov8n", "yolov8n_suppressed"):
        model = convdsl.load(name, side=64, N=1)
        weights = bind_weights_of(model, "random:0")
        arrays = draw_inputs(model, seed=3)
        exported = exporting.export(model, weights)
        ours = run_convdsl(model, arrays, weights)
        assert_close(ours, run_onnxruntime(exported, arrays), 1e-4)
        again = model_of(onnx.load_from_string(exported), name, {})
        assert_close(run_convdsl(again, arrays), ours, 1e-4)


def test_aligned_regions_follow_and_pooled_ones_jump() -> None:
    """Section 3 of Mask R-CNN: a region moved by parts of an element. On a ramp what is aligned
    moves by as much; what is pooled is rounded, and off by half an element and more."""
    ramp = np.broadcast_to(np.arange(30, dtype=np.float32), (1, 4, 20, 30)).copy()
    moves = np.arange(8, dtype=np.float32) / 4  # in pixels, of which an element has two
    regions = np.float32([10, 8, 38, 36]) + moves[:, None] * np.float32([1, 0, 1, 0])
    given = {"map": ramp, "regions": regions, "images": np.zeros(8, np.int64)}
    found = convdsl.compile("regions", threads=1)(**given)
    wanted = found["aligned"][:1, 0, 0] + 0.5 * moves[:, None]
    np.testing.assert_allclose(found["aligned"][:, 0, 0], wanted, atol=1e-5)
    off = np.abs(found["pooled"][:, 0, 0] - found["pooled"][:1, 0, 0] - 0.5 * moves[:, None])
    assert 0.3 < off.max() < 1.01
