"""Deformable convolution against torchvision's, onnxruntime's, and plain convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from gallery.deformed import CASES, GOLDEN, operands, settings
from interop.runtimes import run_onnxruntime

import convdsl
from convdsl import exporting
from convdsl.analysis.report import analyse
from convdsl.interop.onnx_load import model_of
from convdsl.training.settings import complete

Array = np.ndarray[Any, Any]


def close(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * max(1.0, np.abs(wanted).max()))


def layer(name: str) -> str:
    case = settings(name)
    mask = "mask, " if case["modulated"] else ""
    words = ", ".join(f"{key} = {case[key]}" for key in ("stride", "dilation", "pad", "groups"))
    return f"deform_conv(x, offset, {mask}{case['made']}, 3x3, {words}) as d"


def declared(arrays: dict[str, Array], form: str) -> str:
    return "\n".join(
        form.format(name=name, shape=", ".join(map(str, arrays[name].shape)))
        for name in ("x", "offset", "mask")
        if name in arrays
    )


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("name", CASES)
def test_torchvision(name: str) -> None:
    arrays = operands(name)
    inputs = declared(arrays, "input {name}: f32[{shape}]")
    model = convdsl.parse(f"model m {{\n{inputs}\n{layer(name)} -> output y\n}}\n")
    weights = {f"d.{key}": arrays[key] for key in ("weight", "bias")}
    given = {key: arrays[key] for key in model.inputs}
    with np.load(GOLDEN) as recorded:
        close(convdsl.compile(model, weights, cache=False)(**given), recorded[f"{name}.y"])


@pytest.mark.dear
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_torchvisions(name: str) -> None:
    """A step of gradient descent at rate 1 on mse, whose target makes the outputs' gradient dy."""
    arrays = operands(name)
    dy = arrays.pop("dy")
    made = declared(arrays, "{name} = parameter([{shape}], bare = true) as {name}")
    shape = ", ".join(map(str, dy.shape))
    text = (
        f"model m {{\ninput z: f32[{shape}]\n{made}\ny = {layer(name)}\ny + z -> output total\n}}\n"
    )
    model = convdsl.parse(text)
    said = {"loss": "mse(total, t)", "optimizer": "sgd(lr = 1)", "schedule": "constant"}
    keys = {key: f"d.{key}" if key in ("weight", "bias") else key for key in arrays}
    start = {keys[key]: array for key, array in arrays.items()}
    session = convdsl.Session(model, complete(model, said), start, cache=False)
    with np.load(GOLDEN) as recorded:
        target = (recorded[f"{name}.y"] - dy * (dy.size / 2)).astype("f4")
        session.step({"z": np.zeros_like(dy), "t": target}, rate=1.0)
        after = session.weights()
        for key, array in arrays.items():
            close(array - after[keys[key]], recorded[f"{name}.d{key}"])


@pytest.mark.dear(share=4)
def test_without_offsets_it_is_a_convolution() -> None:
    """And a mask of halves halves it."""
    text = """
    model m {
        input x: f32[N, 6, 9, 7]
        input offset: f32[N, 30, 9, 7]
        input mask: f32[N, 15, 9, 7]
        deform_conv(x, offset, 4, 3x5, groups = 2, bias = false) as a -> output plain
        deform_conv(x, offset, mask, 4, 3x5, groups = 2, bias = false) as b -> output half
        x -> conv(4, 3x5, groups = 2, bias = false) as c -> output exact
    }
    """
    random = np.random.default_rng(0)
    weight = random.standard_normal((4, 3, 3, 5)).astype("f4")
    x = random.standard_normal((2, 6, 9, 7)).astype("f4")
    net = convdsl.compile(
        convdsl.parse(text), {f"{name}.weight": weight for name in "abc"}, cache=False
    )
    y = net(x, np.zeros((2, 30, 9, 7), "f4"), np.full((2, 15, 9, 7), 0.5, "f4"))
    close(y["plain"], y["exact"])
    close(2 * y["half"], y["exact"])


def test_whole_offsets_move_the_taps() -> None:
    """One down and two to the left for all taps: what a convolution sees of the map moved so."""
    text = """
    model m {
        input x: f32[N, 2, 8, 8]
        input offset: f32[N, 18, 8, 8]
        deform_conv(x, offset, 3, 3x3) as d -> output y
        x -> slice([2, 3], start = [1, 0], stop = [8, 6]) -> pad([[0, 1], [2, 0]]) as moved
          -> conv(3, 3x3) as c -> slice([2, 3], start = [1, 3], stop = [6, 7]) -> output exact
    }
    """
    random = np.random.default_rng(1)
    weight = random.standard_normal((3, 2, 3, 3)).astype("f4")
    bias = random.standard_normal(3).astype("f4")
    weights = {f"{n}.{k}": a for n in "dc" for k, a in (("weight", weight), ("bias", bias))}
    net = convdsl.compile(convdsl.parse(text), weights, cache=False)
    offset = np.tile(np.float32([1, -2]), 9).reshape(1, 18, 1, 1) * np.ones((1, 1, 8, 8), "f4")
    y = net(random.standard_normal((1, 2, 8, 8)).astype("f4"), offset)
    close(y["y"][:, :, 1:6, 3:7], y["exact"])


@pytest.mark.dear
@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name: str) -> None:
    """To ONNX, as onnxruntime runs it, and from there."""
    arrays = operands(name)
    inputs = declared(arrays, "input {name}: f32[{shape}]")
    model = convdsl.parse(f"model m {{\n{inputs}\n{layer(name)} -> output y\n}}\n")
    weights = {f"d.{key}": arrays[key] for key in ("weight", "bias")}
    given = {key: arrays[key] for key in model.inputs}
    exported = exporting.export(model, weights)
    wanted = convdsl.compile(model, weights, cache=False)(**given)
    (theirs,) = run_onnxruntime(exported, given).values()
    close(wanted, theirs)
    back = model_of(onnx.load_from_string(exported), "m", {})
    assert [node.op.name for node in back.graph.op_nodes()] == ["deform_conv"]
    np.testing.assert_array_equal(convdsl.compile(back, cache=False)(**given), wanted)


def test_strange_positions_are_outside() -> None:
    """Infinite and huge offsets read zeros, and nothing beyond the map; NaN stays where it is."""
    text = (
        "model m { input x: f32[1, 1, 4, 4]\ninput offset: f32[1, 2, 4, 4]\n"
        "deform_conv(x, offset, 1, 1x1, bias = false) as d -> output y }"
    )
    net = convdsl.compile(
        convdsl.parse(text), {"d.weight": np.ones((1, 1, 1, 1), "f4")}, cache=False
    )
    x = np.arange(1, 17, dtype="f4").reshape(1, 1, 4, 4)
    offset = np.zeros((1, 2, 4, 4), "f4")
    offset[0, 0, 0] = [np.inf, -np.inf, 3e38, -1e20]
    offset[0, 1, 1] = [9, -9, 0.5, 0]
    wanted = x.copy()
    wanted[0, 0, 0] = 0
    wanted[0, 0, 1] = [0, 0, 7.5, 8]
    close(net(x, offset), wanted)


@pytest.mark.parametrize("modulated", [False, True])
def test_what_it_costs(modulated: bool) -> None:
    """The convolution's multiply-accumulates and its offsets': 2 x 9 more channels, 3 x 9 with a
    mask; it may see the whole map."""
    report = analyse(convdsl.load("deformable_convolution", modulated=modulated), "all", {"N": 1})
    per_position = 9 * 16 * (16 + (27 if modulated else 18))
    assert report.totals["macs"] == 14 * 14 * per_position


@pytest.mark.dear(share=4)
def test_zero_offsets_begin_it() -> None:
    """Section 2.1: offsets begin at zero, with zero weights, where it is the plain convolution."""
    model = convdsl.load("deformable_convolution")
    random = np.random.default_rng(5)
    weights = {
        key: np.zeros(s.type.sizes, "f4")
        if "offset" in key
        else random.standard_normal(s.type.sizes).astype("f4")
        for key, s in model.graph.states.items()
    }
    plain = convdsl.parse(
        "model m { input x: f32[N, 16, 14, 14]\nx -> conv(16, 3x3) as c -> output y }"
    )
    same = {f"c.{part}": weights[f"deform.conv.{part}"] for part in ("weight", "bias")}
    x = random.standard_normal((2, 16, 14, 14)).astype("f4")
    close(
        convdsl.compile(model, weights, cache=False)(x),
        convdsl.compile(plain, same, cache=False)(x),
    )
