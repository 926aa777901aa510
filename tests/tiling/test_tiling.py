"""Tiles give what the network gives for the whole image, or are refused with the reason."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convdsl
from convdsl.diagnostics import Error, InputError
from convdsl.loading import parse
from convdsl.tiling.agreement import Along, agreement
from convdsl.tiling.network import TiledNetwork
from convdsl.tiling.plan import tiling
from convdsl.tiling.sizes import sized

MODEL = "model m {{\n    input x: f64[N, 3, H, W]\n    {}\n}}"


def network(body: str, tile: int) -> tuple[TiledNetwork, Any]:
    model = parse(MODEL.format(body))
    whole = convdsl.compile(model, "random:0", threads=1)
    return TiledNetwork(model, lambda found: whole, tile), whole


def by_name(executable: Any, image: Any) -> dict[str, Any]:
    made = executable(image)
    return made if isinstance(made, dict) else {next(iter(executable.outputs)): made}


def mirrored(plan: Any, image: Any) -> Any:
    """The image as the whole network would have to see it."""
    pads = [(0, 0), (0, 0)]
    for cut, extent in zip(plan.cuts, image.shape[2:], strict=True):
        after = cut.offsets[-1] + cut.tile - cut.before - extent
        pads.append((cut.before, max(0, after)))
    return np.pad(image, pads, "reflect")


def check(body: str, size: tuple[int, int], tile: int) -> Any:
    """The plan, after its result was compared with that of one run."""
    tiles, whole = network(body, tile)
    image = np.random.default_rng(0).standard_normal((2, 3, *size))
    plan = tiles.plan(*size)
    assert max(plan.tile) <= tile
    found = tiles.run(image)
    expected = by_name(whole, mirrored(plan, image))
    for name, array in found.items():
        wanted = expected[name]
        assert array.shape[:2] == wanted.shape[:2]
        if plan.cuts[0].before == 0:
            assert array.shape == wanted.shape
        wanted = wanted[tuple(slice(extent) for extent in array.shape)]
        np.testing.assert_allclose(array, wanted, rtol=1e-12, atol=1e-12)
    return plan


DOWN = "x -> conv(4, 3x3) -> maxpool(2)"


@pytest.mark.dear
@pytest.mark.parametrize(
    ("body", "size", "tile"),
    [
        ("x -> conv(4, 3x3) -> output y", (70, 93), 40),
        ("x -> conv(4, 3x3, stride = 2) -> relu -> conv(5, 3x3, dilation = 2) -> output y",
         (70, 93), 40),
        ("x -> conv(4, 3x3, pad = same, stride = 2) -> conv(4, 3x3, pad = same) -> output y",
         (70, 93), 40),
        (f"{DOWN} -> conv(4, 3x3) -> resize(scale = 2) -> conv(2, 3x3) -> output y",
         (80, 96), 40),
        (f"{DOWN} -> conv_transpose(4, 2x2, stride = 2) -> softmax(axis = 1) -> output y",
         (80, 96), 40),
        ("x -> conv_transpose(4, 3x3, stride = 2, pad = 1) -> conv(2, 3x3) -> output y",
         (70, 93), 40),
        ('x -> resize(scale = 2, mode = "linear") -> conv(2, 3x3) -> output y', (70, 93), 40),
        ("x -> avgpool(3x3, stride = 2, pad = 1, count_include_pad = false) -> output y",
         (70, 93), 40),
        ('x -> pad(2, mode = "reflect") -> conv(4, 5x5, pad = valid) -> output y', (70, 93), 40),
        ("x -> conv(12, 3x3) -> pixel_shuffle(2) -> conv(2, 3x3) -> output y", (70, 93), 40),
        ("x -> lrn -> bn -> conv(2, 3x3) -> output y", (70, 93), 40),
        ("x -> transpose([0, 1, 3, 2]) -> conv(2, 5x3) -> output y", (70, 93), 40),
        ("a = x -> conv(4, 3x3)\n    a -> output y\n    a -> conv(4, 5x5, stride = 4) -> output z",
         (90, 130), 60),
        ("x -> conv(4, 3x3) -> output y", (200, 30), 40),  # one axis needs no tiles
        ("x -> conv(4, 3x3) -> output y", (7, 9), 40),  # neither does
    ],
)  # fmt: skip
def test_equal_to_one_run(body: str, size: tuple[int, int], tile: int) -> None:
    assert check(body, size, tile).cuts[0].before == 0


@pytest.mark.parametrize(
    ("body", "size", "before"),
    [
        ("x -> conv(4, 3x3, pad = valid) -> conv(5, 5x5, pad = valid) -> output y", (70, 93), 3),
        ("x -> conv(4, 4x4, pad = valid) -> output y", (41, 39), 1),
        ("x -> conv(4, 31x31, pad = valid) -> output y", (20, 90), 15),  # mirrored twice over
        ("x -> conv(4, 3x3, pad = valid) -> output y", (1, 5), 1),
    ],
)
def test_valid_networks_see_mirrored_borders(body: str, size: tuple[int, int], before: int) -> None:
    """The result has an element for each pixel of the image."""
    plan = check(body, size, 40)
    assert plan.cuts[0].before == before
    assert [extent for _, extent, _ in (cut.outputs["y"] for cut in plan.cuts)] == list(size)


UNET = """convdsl 1
default conv(pad = valid)
block double(width) { conv(width, 3x3) -> relu -> conv(width, 3x3) -> relu }
block crop {
    input x, to
    let top = (x.height - to.height) // 2
    let left = (x.width - to.width) // 2
    x -> slice([2, 3], start = [top, left], stop = [top + to.height, left + to.width])
}
model unet(height = 60, width = 60) {
    input image: f64[N, 1, height, width]
    a = image -> double(3)
    assert a.height % 2 == 0 and a.width % 2 == 0, "cannot be halved"
    b = a -> maxpool(2x2) -> double(4)
    assert b.height % 2 == 0 and b.width % 2 == 0, "cannot be halved"
    x = b -> maxpool(2x2) -> double(5) -> conv_transpose(4, 2x2, stride = 2)
    x = concat(b -> crop(x), x) -> double(4) -> conv_transpose(3, 2x2, stride = 2)
    concat(a -> crop(x), x) -> double(3) -> conv(2, 1x1) -> output map
}
"""


@pytest.mark.dear
def test_u_net_as_published(tmp_path: Path) -> None:
    """Figure 2: valid convolutions, mirrored borders, an output as large as the image; sizes by
    parameters, of which only some are admitted."""
    (tmp_path / "unet.cnn").write_text(UNET)
    path = str(tmp_path / "unet.cnn")
    tiles = convdsl.tiled(path, "random:0", tile=75, threads=1)
    image = np.random.default_rng(0).standard_normal((1, 1, 90, 121))
    plan = tiles.plan(90, 121)
    assert plan.tile == (72, 72)
    assert plan.cuts[0].before == 20  # (72 - 32) / 2
    assert all(offset % 4 == 0 for cut in plan.cuts for offset in cut.offsets)
    seen = mirrored(plan, image)
    whole = convdsl.load(path, height=seen.shape[2], width=seen.shape[3])
    expected = convdsl.compile(whole, "random:0", threads=1)(seen)[:, :, :90, :121]
    np.testing.assert_allclose(tiles(image), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(InputError, match="admits no tiles of 20 .*\nhelp: give a larger --tile"):
        convdsl.tiled(path, "random:0", tile=20)(image)


# Drawn networks

LAYERS = [
    "conv(3, 3x3)", "conv(2, 5x5, stride = 2)", "conv(3, 3x3, pad = valid)", "relu",
    "conv(3, 3x3, dilation = 2)", "conv(2, 3x3, pad = same, stride = 3)", "maxpool(2)",
    "avgpool(3x3, stride = 2, pad = 1)", "resize(scale = 2)", "maxpool(3x3, stride = 1, pad = 1)",
    'resize(scale = 2, mode = "linear")', "conv_transpose(2, 4x4, stride = 2, pad = 1)",
    'pad(1, mode = "replicate")', "bn", "conv_transpose(2, 3x3, stride = 3)",
]  # fmt: skip


@pytest.mark.dear
@given(data=st.data())
@settings(max_examples=10)
def test_drawn_networks(data: st.DataObject) -> None:
    layers = data.draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=5))
    size = data.draw(st.integers(30, 120)), data.draw(st.integers(30, 120))
    body = f"x -> {' -> '.join(layers)} -> output y"
    with contextlib.suppress(InputError):  # no tiles are never wrong
        check(body, size, data.draw(st.integers(48, 64)))


@given(data=st.data())
@settings(max_examples=10)
def test_what_agrees_is_equal(data: st.DataObject) -> None:
    """For an offset that nothing is known of: where the comparison of two graphs says that a tile
    agrees, the numbers do; and they do nowhere else, but for chance."""
    layers = data.draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4))
    stride = data.draw(st.sampled_from([6, 12]))
    offset, rest = stride * data.draw(st.integers(0, 3)), stride * data.draw(st.integers(0, 3))
    model = parse(MODEL.format(f"x -> {' -> '.join(layers)} -> output y"))
    tile, image = 48, 48 + offset + rest
    if tile == image:
        return
    try:
        graphs = [sized(model).graph(extent, tile) for extent in (tile, image)]
    except Error:
        return
    along = Along("x", 2, tile, image, np.array([offset]))
    (output,) = graphs[0].outputs.values()
    track = agreement(graphs[0], graphs[1], along)[output]
    if track.axis is None or (offset * track.step).denominator != 1:
        return
    x = np.random.default_rng(1).standard_normal((1, 3, image, tile))
    run = convdsl.compile(model, "random:1", threads=1)
    whole, part = run(x), run(x[:, :, offset : offset + tile].copy())
    shift = int(offset * track.step)
    beside = whole[:, :, shift : shift + part.shape[2]]
    close = np.zeros(part.shape[2], bool)
    found = np.isclose(part[:, :, : beside.shape[2]], beside, rtol=1e-10, atol=1e-12)
    close[: beside.shape[2]] = found.all((0, 1, 3))
    assert not (track.agrees[0] & ~close).any()
    if "relu" not in layers:  # which makes much of what differs equal
        assert (close & ~track.agrees[0]).sum() <= 0.25 * len(close)


# What is refused


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("x -> avgpool(global) -> output y", r"avg_pool \(avgpool\) depends on the size"),
        ("b = x -> conv(4, 3x3)\n    b * (b -> avgpool(global) -> sigmoid) -> output y",
         "avg_pool .* depends on the size of the image or on all of it"),
        ("x -> instance_norm -> output y", "instance_norm"),
        ("x -> resize(size = 40x40) -> output y", "resize"),
        ("x -> argmax(axis = 2) -> output y", "argmax"),
        ("x -> softmax(axis = 3) -> output y", "softmax"),
        ("x -> conv(4, 41x41) -> output y", "a tile of 40 pixels is too small"),
        (f"x{' -> conv(4, 3x3, stride = 2)' * 6} -> output y",
         "multiples of the effective stride, 64 pixels, and the network admits none|too small"),
    ],
)  # fmt: skip
def test_what_tiles_cannot_give(body: str, match: str) -> None:
    tiles, _ = network(body, 40)
    with pytest.raises(InputError, match=match):
        tiles.plan(100, 100)


def test_networks_of_one_size() -> None:
    fixed = parse("model m { input x: f32[N, 3, 8, 8]\n x -> conv(2, 3x3) -> output y }")
    with pytest.raises(InputError, match="takes images of 8x8, .*\nhelp: leave the sizes open"):
        sized(fixed)
    with pytest.raises(InputError, match="0 inputs that are images"):
        sized(parse("model m { input x: f32[N, 3]\n x -> relu -> output y }"))
    odd = parse(
        "model m { input x: f32[N, 3, H, W] where H % 4 == 0 and W % 4 == 0\n"
        " x -> conv(2, 3x3) -> output y }"
    )
    with pytest.raises(InputError, match="does not take an image of 50x64"):
        tiling(sized(odd), (50, 64), 16)
    assert tiling(sized(odd), (64, 48), 17).tile == (16, 16)


def test_networks_with_state() -> None:
    model = parse(MODEL.format("x -> conv(2, 3x3) -> output y"))
    key, state = next(iter(model.graph.states.items()))
    model.graph.updates[key] = state.output
    with pytest.raises(InputError, match="changes its state with every call"):
        sized(model)


def test_images_that_are_none() -> None:
    tiles, _ = network("x -> conv(4, 3x3) -> output y", 40)
    with pytest.raises(InputError, match=r"takes images \[N, C, H, W\], not \[3, 4\]"):
        tiles(np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"not \[1, 3, 0, 4\]"):
        tiles(np.zeros((1, 3, 0, 4)))
    with pytest.raises(InputError, match="the model takes float64"):
        tiles(np.zeros((1, 3, 50, 50), np.float32))
