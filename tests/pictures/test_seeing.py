"""Fields, filters, maps and classes over an image, held to arithmetic of our own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import evaluate_graph, random_arrays
from PIL import Image
from random_graphs import random_graph, smooth_graph

import convdsl
from convdsl.autodiff import pulled_back
from convdsl.diagnostics import InputError
from convdsl.ir.model import Model
from convdsl.pictures import draw_class, draw_curves, draw_field, draw_filters, draw_maps
from convdsl.pictures.fields import effective, theoretical, unit_of
from convdsl.pictures.looking import sight
from convdsl.pictures.maps import class_map
from convdsl.tensor import DType

NET = """
model net {
    input image: f32[N, 3, 16, 16]
    preprocess image: resize(16x16) -> rescale(1 / 255)
                      -> normalize(mean = [0.4, 0.5, 0.6], std = [0.2, 0.3, 0.4])
    body = image -> conv(6, 3x3, stride = 2) as first -> relu as act
                 -> conv(5, 3x3) as second -> relu as last
    body -> avgpool(global) -> flatten -> linear(3) as fc -> output scores
}
"""


@pytest.fixture
def net() -> Model:
    return replace(convdsl.parse(NET), labels=("cat", "dog, hound", "fish"))


@pytest.fixture
def weights(net: Model) -> dict[str, np.ndarray]:
    random = np.random.default_rng(4)
    return {
        name: random.standard_normal([int(n) for n in node.type.shape]).astype("f4")
        for name, node in net.graph.states.items()
    }


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(5).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int) -> np.ndarray:
    """[C, H, W] with [K, C, 3, 3], padded by 1, in double precision."""
    wide = np.pad(x.astype("f8"), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (1, 2))[:, ::stride, ::stride]
    return np.einsum("chwrs,kcrs->khw", windows, w.astype("f8")) + b[:, None, None]


def test_photos_are_what_they_were(net: Model, image: Path) -> None:
    seen = sight(net, image)
    assert np.array_equal(seen.photo, np.asarray(Image.open(image)))


def test_maps_are_the_layer_s_values(net: Model, weights: Any, image: Path) -> None:
    seen = sight(net, image)
    first = correlate(seen.array[0], weights["first.weight"], weights["first.bias"], 2)
    found = seen.shown(["first", "act"], weights)
    assert np.allclose(found["first"][0], first, atol=1e-4)
    assert np.allclose(found["act"][0], np.maximum(first, 0), atol=1e-4)
    picture = draw_maps(net, "act", image, weights, most=4)
    assert picture.svg.count("<image") == 5
    assert "the first 4 of 6" in picture.svg


def test_grad_cam_is_cam_before_a_global_mean(net: Model, weights: Any, image: Path) -> None:
    """Selvaraju et al., section 3.1: of such networks the maps are weighed by the last layer's
    weights, over the number of positions."""
    seen = sight(net, image)
    x = np.maximum(correlate(seen.array[0], weights["first.weight"], weights["first.bias"], 2), 0)
    x = np.maximum(correlate(x, weights["second.weight"], weights["second.bias"], 1), 0)
    scores = weights["fc.weight"] @ x.mean((1, 2)) + weights["fc.bias"]
    likeliest = class_map(seen, weights)
    assert (likeliest.index, likeliest.layer) == (scores.argmax(), "last")
    for said, index in (("2", 2), ("dog", 1), ("dog, hound", 1), ("cat", 0)):
        found = class_map(seen, weights, said)
        cam = np.maximum(np.tensordot(weights["fc.weight"][index], x, 1), 0) / x[0].size
        assert found.index == index
        assert found.score == pytest.approx(scores[index], rel=1e-4)
        assert np.allclose(found.map, cam, rtol=1e-4, atol=1e-5 * np.abs(cam).max())
    picture = draw_class(net, image, weights, "fish", layer="first")
    assert "Grad-CAM at first, 8 x 8 positions" in picture.svg
    for said in ("3", "hen"):
        with pytest.raises(InputError, match=f"no class {said}: there are 0 to 2"):
            class_map(seen, weights, said)


@pytest.mark.dear
@pytest.mark.parametrize("seed", range(20))
def test_pulled_back_is_the_gradient(seed: int) -> None:
    """Of values inside of smooth random graphs, by differences in double precision."""
    graph = smooth_graph(seed, DType.F64)
    model = Model("drawn", graph)
    random = np.random.default_rng(seed)
    inner = [n.outputs[0] for n in graph.op_nodes() if n.outputs[0].type.dtype is DType.F64]
    (y,) = random.choice(np.array(inner[len(inner) // 2 :], object), 1)
    made = pulled_back(model, y.name, ["x"]).graph
    arrays = random_arrays(graph, seed)
    weighing = random.standard_normal(y.type.shape)
    found = evaluate_graph(made, {**arrays, f"d{y.name}": weighing})["dx"]
    graph.outputs = {"y": y}
    step = 1e-6 * random.standard_normal(arrays["x"].shape)
    ends = [evaluate_graph(graph, {**arrays, "x": arrays["x"] + s * step})["y"] for s in (1, -1)]
    slope = ((ends[0] - ends[1]) * weighing).sum() / 2
    assert (found * step).sum() == pytest.approx(slope, rel=1e-5, abs=1e-12)


def test_pulled_back_says_what_is_missing(net: Model) -> None:
    with pytest.raises(InputError, match="net has no value nose"):
        pulled_back(net, "nose", ["image"])
    with pytest.raises(InputError, match="net has no value nose"):
        pulled_back(net, "act", ["nose"])


@pytest.mark.drawn(share=5)
@pytest.mark.parametrize("seed", range(15))
def test_gradients_stay_in_the_theoretical_field(seed: int) -> None:
    graph = random_graph(seed, rank=2, batch=1)
    model = Model("drawn", graph)
    random = np.random.default_rng(seed)
    seen = sight(model, random.standard_normal([int(n) for n in graph.inputs["x"].type.shape[1:]]))
    values = [n.outputs[0] for n in graph.op_nodes() if n.outputs[0].type.rank == 4]
    for value in values[:: max(1, len(values) // 4)]:
        unit = unit_of(seen, value.name)
        frame = theoretical(seen, unit)
        if frame is None:
            continue
        rows, columns = effective(seen, unit, "random:3").gradient.nonzero()
        assert (rows >= frame.top).all()
        assert (rows < frame.bottom).all()
        assert (columns >= frame.left).all()
        assert (columns < frame.right).all()


def stack(layers: int, size: int = 41) -> Model:
    convs = " -> ".join(["conv(1, 3x3, bias = false)"] * layers)
    return convdsl.parse(
        f"model m {{\n    input x: f32[N, 1, {size}, {size}]\n    x -> {convs} -> output y\n}}"
    )


@pytest.mark.parametrize("layers", [1, 4, 9])
def test_equal_weights_give_the_sum_of_uniform_steps(layers: int) -> None:
    """Luo et al., section 2.2: the gradient is the weights convolved with themselves."""
    model = stack(layers)
    ones = {name: np.full((1, 1, 3, 3), 1 / 9, "f4") for name in model.graph.states}
    seen = sight(model, np.zeros((1, 41, 41), "f4"))
    unit = unit_of(seen, model.graph.op_nodes()[-1].name)
    frame = theoretical(seen, unit)
    assert frame is not None
    assert (frame.left, frame.right) == (20 - layers, 21 + layers)
    line = np.ones(1)
    for _ in range(layers):
        line = np.convolve(line, np.ones(3) / 3)
    found = effective(seen, unit, ones)
    inside = found.gradient[int(frame.top) : int(frame.bottom), int(frame.left) : int(frame.right)]
    assert np.allclose(inside, np.outer(line, line), rtol=1e-4)
    assert found.gradient.sum() == pytest.approx(inside.sum())
    assert found.size == np.sqrt((np.outer(line, line) > 0.0455 * line.max() ** 2).sum())


def test_a_field_over_a_photo(net: Model, weights: Any, image: Path, tmp_path: Path) -> None:
    alone = draw_field(net, "second[0, 7]", image)
    assert "theoretical: 7 x 7 pixels of 16 x 16" in alone.svg
    both = draw_field(net, "second[0, 7]", image, weights)
    assert "effective: " in both.svg
    with Image.open(both.save(tmp_path / "f.png")) as written:
        assert written.size == both.sheet.pixels().shape[1::-1]
    with pytest.raises(InputError, match="first has 8 x 8 positions"):
        draw_field(net, "first[8, 0]", image)
    with pytest.raises(InputError, match="no layer frist\nhelp: did you mean first"):
        draw_field(net, "frist", image)
    with pytest.raises(InputError, match=r"units with a place are of \[N, C, H, W\]"):
        draw_field(net, "fc", image)


def test_filters(net: Model, weights: Any) -> None:
    sheet = draw_filters(net, weights).sheet
    assert sheet is not None
    assert len(sheet.tiles) == 6
    most = np.abs(weights["first.weight"]).max()
    for tile, one in zip(sheet.tiles, weights["first.weight"], strict=True):
        expected = (one.transpose(1, 2, 0) / most + 1) * 127.5
        assert np.abs(tile.pixels - expected).max() <= 0.51
    others = draw_filters(net, weights, "second", most=7).sheet
    assert others is not None
    assert [tile.caption for tile in others.tiles] == [f"{n // 6}.{n % 6}" for n in range(7)]
    with pytest.raises(InputError, match="no filters in fc; there are those of first, second"):
        draw_filters(net, weights, "fc")


def test_images_that_do_not_go(net: Model, weights: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"an image is an array \[C, H, W\]"):
        sight(net, np.zeros((2, 3, 16, 16)))
    inputs = "".join(f"    input {name}: f32[N, 1, 4, 4]\n" for name in "ab")
    two = convdsl.parse(f"model m {{\n{inputs}    output c = a + b\n}}")
    with pytest.raises(InputError, match="its inputs: a: "):
        sight(two, np.zeros((1, 4, 4)))
    with pytest.raises(InputError, match="does not declare how images become inputs"):
        sight(stack(1), tmp_path / "x.png")
    assert sight(stack(1), "random:3").array.std() == pytest.approx(1, abs=0.1)
    np.save(tmp_path / "x.npy", np.full((1, 41, 41), np.nan))
    assert (sight(stack(1), tmp_path / "x.npy").photo == 128).all()


def test_curves(tmp_path: Path) -> None:
    runs = {"one": [3.0, 2.0, 1.0], "two": [2.5, float("nan")]}
    picture = draw_curves(runs, "Losses", level=("chance", 2.3), log=True)
    assert all(f">{said}<" in picture.svg for said in ("one", "two", "chance", "Losses", "step"))
    assert picture.save(tmp_path / "c.svg").exists()
    with pytest.raises(InputError, match="there are no curves"):
        draw_curves({}, "Losses")
