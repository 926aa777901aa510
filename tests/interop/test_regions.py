"""Regions of maps beside onnxruntime, at the sizes of detectors, and by their definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import convdsl
from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_onnxruntime

ALIGN = """
model m {{
    input x: f32[N, 3, {h}, {w}]
    input regions: f32[R, 4]
    input images: i64[R]
    x -> {layer} -> output y
}}
"""

Array = np.ndarray[Any, Any]


def network(layer: str, x: Array) -> Any:
    h, w = x.shape[2:]
    return convdsl.compile(convdsl.parse(ALIGN.format(layer=layer, h=h, w=w)), threads=1)


def drawn(seed: int, reach: float = 1.0) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((2, 3, 25, 38), np.float32)
    middle = random.uniform(0, 1, (20, 2)) * [38, 25]
    half = random.uniform(0.1, 15, (20, 2)) * reach
    regions = np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)
    return x, regions, random.integers(0, 2, 20)


def node(kind: str, arrays: dict[str, Array], **attributes: Any) -> onnx.ModelProto:
    types = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in arrays.items()}
    graph = helper.make_graph(
        [helper.make_node(kind, list(arrays), ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info(n, types[n], a.shape) for n, a in arrays.items()],
        [helper.make_tensor_value_info("y", types["x"], None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("reach", [1.0, 40.0])
@pytest.mark.parametrize("samples", [0, 1, 2, 5])
@pytest.mark.parametrize("mode", ["half_pixel", "output_half_pixel"])
def test_align_is_onnxruntimes(samples: int, mode: str, reach: float) -> None:
    """Far beyond the map too, where an adaptive cell has hundreds of samples."""
    x, regions, images = drawn(samples, reach)
    arrays = {"x": x, "r": regions, "i": images}
    how = {"output_height": 7, "output_width": 5, "sampling_ratio": samples, "spatial_scale": 0.9}
    proto = node("RoiAlign", arrays, coordinate_transformation_mode=mode, **how)
    (wanted,) = run_onnxruntime(proto, arrays).values()
    found = convdsl.compile(model_of(proto, "g", {}), threads=1)(*arrays.values())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("reach", [1.0, 40.0])
def test_pool_is_onnxruntimes(reach: float) -> None:
    x, regions, images = drawn(7, reach)
    rows = np.concatenate([images[:, None], regions], axis=1).astype(np.float32)
    proto = node("MaxRoiPool", {"x": x, "r": rows}, pooled_shape=[6, 7], spatial_scale=0.7)
    (wanted,) = run_onnxruntime(proto, {"x": x, "r": rows}).values()
    found = convdsl.compile(model_of(proto, "g", {}), threads=1)(x, rows)
    np.testing.assert_array_equal(found, wanted)


def test_halves_are_rounded_away_from_zero() -> None:
    """As C rounds: 0.5 and 1.5 become 1 and 2, and what is just below a half becomes 0."""
    x = np.arange(2 * 3 * 9 * 9, dtype=np.float32).reshape(2, 3, 9, 9)
    below = np.nextafter(np.float32(0.5), np.float32(0))
    edges = [0.5, 1.5, 2.5, -0.5, -1.5, float(below), 3.5, 0.49]
    regions = np.float32([[a, b, a + 4, b + 4] for a in edges for b in edges])
    rows = np.concatenate([np.zeros((len(regions), 1)), regions], axis=1).astype(np.float32)
    proto = node("MaxRoiPool", {"x": x, "r": rows}, pooled_shape=[2, 2])
    (wanted,) = run_onnxruntime(proto, {"x": x, "r": rows}).values()
    pool = network("roi_pool(regions, images, 2)", x)
    found = pool(x, regions, np.zeros(len(regions), np.int64))
    np.testing.assert_array_equal(found, wanted)


def test_a_region_is_adaptive_pooling_of_what_it_holds() -> None:
    """The definition of Fast R-CNN, section 2.1: windows of h/H x w/W of the region alone."""
    x, _, _ = drawn(3)
    regions = np.float32([[2, 3, 15, 20], [0, 0, 37, 24], [10, 10, 10, 10], [5, 1, 8, 24]])
    found = network("roi_pool(regions, images, 3x4)", x)(x, regions, np.array([0, 1, 1, 0]))
    for region, image, y in zip(regions.astype(int), (0, 1, 1, 0), found, strict=True):
        left, top, right, bottom = region
        part = x[image : image + 1, :, top : bottom + 1, left : right + 1]
        text = "input x: f32[1, 3, {}, {}]\nx -> adaptive_max_pool(3x4) -> output y"
        model = convdsl.parse(f"model m {{\n{text.format(*part.shape[2:])}\n}}\n")
        np.testing.assert_array_equal(y, convdsl.compile(model, threads=1)(part)[0])


@pytest.mark.parametrize("samples", [1, 2])
def test_a_linear_map_is_met_in_the_middle_of_each_cell(samples: int) -> None:
    """Means of samples of a plane are the plane at the cell's middle."""
    rows, columns = np.mgrid[:30, :40].astype(np.float32)
    x = np.stack([rows, columns, 2 * rows - columns])[None]
    regions = np.float32([[4.25, 6.5, 30.75, 21.0]])
    align = network(f"roi_align(regions, images, 3x4, samples = {samples})", x)
    (y,) = align(x, regions, np.zeros(1, np.int64))
    down = 6.5 + (np.arange(3) + 0.5) * (21.0 - 6.5) / 3
    across = 4.25 + (np.arange(4) + 0.5) * (30.75 - 4.25) / 4
    wanted = np.stack(np.broadcast_arrays(down[:, None], across))
    np.testing.assert_allclose(y[:2], wanted, rtol=1e-5)
    np.testing.assert_allclose(y[2], 2 * wanted[0] - wanted[1], rtol=1e-4)


@pytest.mark.dear
@pytest.mark.parametrize("layer", ["roi_align(regions, images, 2, samples = 2)",
                                   "roi_align(regions, images, 2)",
                                   "roi_pool(regions, images, 2)"])  # fmt: skip
def test_regions_that_are_no_numbers_read_nothing_outside(layer: str) -> None:
    """NaN, infinities, huge numbers and images that are not there: no crash, the others right."""
    x, regions, images = drawn(5)
    odd = [[np.nan] * 4, [-np.inf, 0, np.inf, 5], [1e30, 1e30, 2e30, 2e30], [-3e38, -3e38, 3e38, 1]]
    given = np.concatenate([regions, np.float32(odd)])
    which = np.concatenate([images, [0, 1, 7, -9]])
    compiled = network(layer, x)
    found = compiled(x, given, which)
    assert found.shape == (24, 3, 2, 2)
    np.testing.assert_array_equal(found[:20], compiled(x, regions, images))
    assert np.all(found[22] == 0)


@pytest.mark.dear
@pytest.mark.parametrize("layer", ["roi_align(regions, images, 2x3, samples = 2)",
                                   "roi_align(regions, images, 2x3, aligned = true)",
                                   "roi_pool(regions, images, 2x3, scale = 0.5)"])  # fmt: skip
def test_there_and_back(layer: str, tmp_path: Any) -> None:
    x, regions, images = drawn(11)
    model = convdsl.parse(ALIGN.format(layer=layer, h=25, w=38))
    path = tmp_path / "m.onnx"
    convdsl.export(model, path=path)
    back = convdsl.load(str(path))
    found = [convdsl.compile(m, threads=1)(x, regions, images) for m in (model, back)]
    np.testing.assert_array_equal(*found)
