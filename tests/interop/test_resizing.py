"""Resizing by conventions that onnxruntime alone still computes, and of sizes said for all axes."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from op_cases.draw import Draw

import convdsl
from convdsl.exporting import export
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_onnxruntime

pytestmark = pytest.mark.drawn

F = TensorProto.FLOAT


def resizing(shape, out, weights, opset: int, **how) -> onnx.ModelProto:
    """One Resize; weights are its roi, scales and sizes, as far as there are."""
    given = {"roi": np.zeros(0, "f4"), "scales": np.zeros(0, "f4")} | weights
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", *given], ["y"], **how)],
        "net",
        [helper.make_tensor_value_info("x", F, shape)],
        [helper.make_tensor_value_info("y", F, out)],
        [numpy_helper.from_array(array, name) for name, array in given.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("seed", range(12))
def test_half_pixels_of_tensorflow(seed):
    """Scales are exact in binary, so that both round the same places."""
    draw = Draw(seed)
    rank, mode = 2, ("nearest", "linear")[seed % 2]
    x = draw.array((draw.integer(1, 2), draw.integer(1, 3), *draw.shape(rank, 1, 7)))
    scales = [draw.pick(0.5, 1.0, 1.5, 2.0, 4.0) for _ in range(rank)]
    sizes = [max(1, int(e * s)) for e, s in zip(x.shape[2:], scales, strict=True)]
    if seed % 3 and min(e * s for e, s in zip(x.shape[2:], scales, strict=True)) >= 1:
        weights = {"scales": np.float32([1, 1, *scales])}
    else:
        sizes = [e * draw.pick(1, 2, 4) for e in x.shape[2:]]
        weights = {"sizes": np.int64([*x.shape[:2], *sizes])}
    how = {
        "mode": mode,
        "coordinate_transformation_mode": "tf_half_pixel_for_nn",
        "nearest_mode": draw.pick("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
    }
    proto = resizing(x.shape, [*x.shape[:2], *sizes], weights, draw.pick(11, 12, 13, 18), **how)
    x = x.astype("f4")
    expected = run_onnxruntime(proto, {"x": x})["y"]
    model = model_of(proto, "net.onnx", {})
    found = convdsl.compile(model, threads=1)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    again = run_onnxruntime(export(model), {"x": x})["y"]
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-6)


SUMS = [  # mode, antialias, exclude_outside, sizes before and after
    ("cubic", 0, 0, (9, 12), (20, 17)),
    ("cubic", 0, 1, (14, 10), (9, 23)),
    ("cubic", 0, 0, (40, 33), (18, 15)),
    ("linear", 1, 0, (24, 20), (12, 12)),
    ("linear", 1, 0, (96, 110), (9, 11)),
    ("cubic", 1, 1, (64, 48), (13, 16)),
    ("cubic", 1, 0, (200, 90), (4, 7)),  # 200 taps
]


@pytest.mark.parametrize(("mode", "antialias", "exclude", "own", "size"), SUMS)
@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_met_by_its_neighbours_alone(
    mode, antialias, exclude, own, size, odd
):
    """As by onnxruntime: no element beyond those that it has a weight for becomes NaN."""
    proto = resizing(
        [1, 2, *own],
        [1, 2, *size],
        {"sizes": np.int64([1, 2, *size])},
        18,
        mode=mode,
        antialias=antialias,
        exclude_outside=exclude,
        coordinate_transformation_mode="half_pixel",
    )
    x = np.random.default_rng(5).standard_normal((1, 2, *own)).astype("f4")
    x[0, 0, own[0] // 3, own[1] // 2] = odd
    expected = run_onnxruntime(proto, {"x": x})["y"]
    found = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1)(x)
    assert 0 < np.count_nonzero(~np.isfinite(expected)) < expected[0, 0].size
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-4, atol=1e-5)


def test_the_language_has_the_word():
    text = "model m {\n    input x: f32[1, 1, 1, 4]\n    x -> resize(scale = [1, 2], "
    text += "coordinates = tf_half_pixel_for_nn) -> output y\n}\n"
    x = np.float32([1, 2, 3, 4]).reshape(1, 1, 1, 4)
    y = convdsl.compile(convdsl.parse(text), threads=1)(x)
    np.testing.assert_array_equal(y.reshape(-1), [1, 1, 2, 2, 3, 3, 4, 4])


WAYS = [  # mode, coordinates
    ("linear", "half_pixel"),
    ("linear", "align_corners"),
    ("linear", "asymmetric"),
    ("cubic", "half_pixel"),
    ("cubic", "pytorch_half_pixel"),
    ("nearest", "asymmetric"),
]


@pytest.mark.parametrize("seed", range(24))
def test_scales_that_were_ratios_of_sizes_give_these_sizes(seed):
    """23 times what single precision has for 9/23 lies below 9; ONNX's product is 9."""
    draw = Draw(seed)
    mode, coordinates = WAYS[seed % len(WAYS)]
    own, made = draw.shape(2, 3, 60), draw.shape(2, 2, 90)
    scales = np.float32([1, 1, *(made[axis] / own[axis] for axis in range(2))])
    whole = [float(np.float32(e) * s) for e, s in zip(own, scales[2:], strict=True)]
    how = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        how["nearest_mode"] = "round_prefer_floor"
    opset = draw.pick(11, 13, 18)
    proto = resizing((1, 2, *own), [1, 2, None, None], {"scales": scales}, opset, **how)
    x = draw.array((1, 2, *own)).astype("f4")
    found = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1)(x)
    expected = run_onnxruntime(proto, {"x": x})["y"]
    assert found.shape == expected.shape == (1, 2, *map(int, whole))
    if mode != "nearest" and all(w == int(w) for w in whole):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)
    else:  # of positions in the middle, rounding decides
        assert np.mean(found != expected) < 0.1 or mode != "nearest"


@pytest.mark.parametrize(("scale", "own"), [(0.7, 10), (1.3, 20), (0.1, 40), (9 / 23, 46)])
def test_scales_of_free_sizes_are_the_decimals_that_they_stand_for(scale, own):
    scales = np.float32([1, 1, scale, 2])
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    proto = resizing(["N", 2, "H", "W"], ["N", 2, None, None], {"scales": scales}, 13, **how)
    x = np.random.default_rng(3).standard_normal((2, 2, own, 5)).astype("f4")
    found = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1)(x)
    expected = run_onnxruntime(proto, {"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("own", "made"), [(23, 29), (41, 84), (6, 9)])
def test_scales_of_upsample(own, made):
    graph = helper.make_graph(
        [helper.make_node("Upsample", ["x", "scales"], ["y"], mode="nearest")],
        "net",
        [helper.make_tensor_value_info("x", F, (1, 1, own, 3))],
        [helper.make_tensor_value_info("y", F, None)],
        [numpy_helper.from_array(np.float32([1, 1, made / own, 1]), "scales")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=8)
    x = np.arange(own * 3, dtype="f4").reshape(1, 1, own, 3)
    found = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1)(x)
    np.testing.assert_array_equal(found, run_onnxruntime(proto, {"x": x})["y"])


@pytest.mark.parametrize(
    "how", [{"coordinate_transformation_mode": "middle"}, {"nearest_mode": "down"}]
)
def test_other_words_are_refused(how):
    proto = resizing([1, 1, 2, 2], [1, 1, 4, 4], {"scales": np.float32([1, 1, 2, 2])}, 13, **how)
    with pytest.raises(convdsl.InputError, match=r"there are no coordinates.*(middle|down)"):
        model_of(proto, "net.onnx", {})


def test_sizes_that_say_the_batch_wait_for_it():
    sizes = {"sizes": np.int64([2, 3, 8, 6])}
    proto = resizing(["N", 3, 4, "W"], [2, 3, 8, 6], sizes, 13, mode="nearest")
    executable = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1)
    for width in (3, 4):
        x = np.random.default_rng(width).standard_normal((2, 3, 4, width), "f4")
        expected = run_onnxruntime(proto, {"x": x})["y"]
        np.testing.assert_array_equal(executable(x), expected)
    with pytest.raises(convdsl.InputError, match="batch and channels cannot be resized"):
        executable(np.zeros((1, 3, 4, 3), "f4"))


ASPECTS = [  # policy, sizes before, sizes asked for, sizes made
    ("not_larger", (6, 7), (12, 10), (9, 10)),
    ("not_smaller", (13, 9), (4, 5), (7, 5)),
    ("not_larger", (4, 20), (5, 21), (4, 21)),  # a size that stays, at a scale that is not 1
    ("not_smaller", (6, 9), (12, 10), (12, 18)),
]


@pytest.mark.parametrize(("policy", "own", "size", "made"), ASPECTS)
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_axes_that_keep_their_ratio_have_one_scale(policy, own, size, made, coordinates, mode):
    """Rounded sizes are no other scale, by onnxruntime and, where corners are not aligned, by
    ONNX's own evaluator, which aligns them at sizes that are not rounded."""
    how = {"coordinate_transformation_mode": coordinates, "keep_aspect_ratio_policy": policy}
    sizes = {"sizes": np.int64(size)}
    proto = resizing(["N", 2, *own], ["N", 2, *made], sizes, 19, mode=mode, axes=[2, 3], **how)
    proto.ir_version = 9
    x = np.random.default_rng(7).standard_normal((2, 2, *own)).astype("f4")
    expected = run_onnxruntime(proto, {"x": x})["y"]
    if coordinates != "align_corners":
        (known,) = ReferenceEvaluator(proto).run(None, {"x": x})
        np.testing.assert_allclose(known, expected, rtol=1e-4, atol=2e-5)
    model = model_of(proto, "net.onnx", {})
    found = convdsl.compile(model, threads=1)(x)
    assert found.shape == (2, 2, *made)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)
    again = run_onnxruntime(export(model), {"x": x})["y"]
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=2e-5)


def test_a_policy_that_does_not_exist_is_refused():
    sizes = {"sizes": np.int64([3, 3])}
    how = {"axes": [2, 3], "keep_aspect_ratio_policy": "shorter"}
    with pytest.raises(convdsl.InputError, match="no policy shorter"):
        model_of(resizing([1, 1, 2, 2], [1, 1, 3, 3], sizes, 18, **how), "net.onnx", {})


@pytest.mark.parametrize(
    "weights",
    [{"scales": np.float32([1, 1, 1.5, 2])}, {"scales": np.float32([1, 1, 0.5, 1])}],
)
def test_open_batches_are_resampled(weights):
    proto = resizing(["N", 2, 6, 5], ["N", 2, None, None], weights, 13, mode="cubic")
    executable = convdsl.compile(model_of(proto, "net.onnx", {}), threads=1)
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 2, 6, 5)).astype("f4")
        expected = run_onnxruntime(proto, {"x": x})["y"]
        np.testing.assert_allclose(executable(x), expected, rtol=1e-4, atol=1e-5)


# Scales of single precision: 10 x f32(2.6) is 25.999999, and 26 once it is rounded itself.

SCALES = (2.6, 2.1, 1.3, 1 / 3, 0.7, 2.0)
EXTENTS = (2, 5, 7, 10, 13, 20, 30, 50, 100)
COORDINATES = (
    "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric",
)  # fmt: skip
MODES = [
    {"mode": "nearest", "nearest_mode": rounding}
    for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
] + [{"mode": "linear"}, {"mode": "cubic"}, {"mode": "linear", "antialias": 1}]


def scaled(coordinates: str, how, free: bool) -> onnx.ModelProto:
    """A Resize of every extent by every scale: inputs x2, x5, ..., outputs y2_0, y2_1, ..."""
    nodes, outputs = [], []
    for extent in EXTENTS:
        for number, scale in enumerate(SCALES):
            if extent * scale < 1:
                continue
            name = f"y{extent}_{number}"
            nodes.append(
                helper.make_node("Resize", [f"x{extent}", "", f"s{number}"], [name],
                                 coordinate_transformation_mode=coordinates, **how)
            )  # fmt: skip
            outputs.append(helper.make_tensor_value_info(name, F, [1, 1, None]))
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info(f"x{e}", F, [1, 1, f"W{e}" if free else e])
            for e in EXTENTS
        ],
        outputs,
        [numpy_helper.from_array(np.float32([1, 1, s]), f"s{i}") for i, s in enumerate(SCALES)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.dear
@pytest.mark.parametrize("how", MODES, ids=lambda how: "-".join(map(str, how.values())))
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_scales_are_numbers_of_single_precision(how, coordinates):
    """54 sizes as onnxruntime and ONNX's shape inference have them: products of single precision;
    what is free until it is called is of the fraction that the scale stands for.

    Values are those of onnxruntime, which rounds places to single precision too, or of the
    reference evaluator, which computes in doubles and aligns corners of sizes that are no whole
    numbers: one of the two, and the neighbour's where a place is a tie. Left out: a place in the
    very middle, which the evaluator rounds to either side, and what it takes for the length of one
    position, and the far end of sizes that single precision alone makes whole."""
    random = np.random.default_rng(0)
    arrays = {f"x{e}": random.standard_normal((1, 1, e)).astype("f4") for e in EXTENTS}
    proto = scaled(coordinates, how, free=False)
    names = [output.name for output in proto.graph.output]
    truths = [dict(zip(names, ReferenceEvaluator(proto).run(None, arrays), strict=True))]
    if how["mode"] != "cubic" and not how.get("antialias"):  # which it has of planes alone
        truths.append(run_onnxruntime(proto, arrays))
        assert truths[1]["y10_0"].shape[2] == 26
    for free in (False, True):
        model = model_of(scaled(coordinates, how, free), "net.onnx", {})
        found = convdsl.compile(model, threads=1)(**arrays)
        for name in names:
            got, wanted = found[name][0, 0], [truth[name][0, 0] for truth in truths]
            assert got.shape[0] in made(name, free)
            told = np.ones(len(got), bool)
            if coordinates == "half_pixel_symmetric":
                told = np.arange(len(got)) * 2 + 1 != len(got)
            if coordinates == "pytorch_half_pixel" and len(got) == 1:
                continue
            near = [np.isclose(got, w, 1e-4, 1e-4) for w in wanted if w.shape == got.shape]
            if near:
                others = np.count_nonzero(~np.any(near, axis=0)[told])
                ties = 2 if coordinates == "half_pixel_symmetric" else 10
                assert others <= (len(got) // ties if how["mode"] == "nearest" else 0), name


def made(name: str, free: bool) -> set[int]:
    """What an output of `scaled` may have as its size; of a free one, also that of the fraction."""
    extent, number = map(int, name[1:].split("_"))
    size = int(np.float32(extent) * np.float32(SCALES[number]))
    fraction = Fraction(SCALES[number]).limit_denominator(100)
    return {size, floor(extent * fraction)} if free else {size}
