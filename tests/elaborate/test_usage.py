"""What `check` warns of, and what it must not: names nobody reads, layers that lead nowhere."""

from __future__ import annotations

import numpy as np
import pytest

import convdsl
from convdsl import zoo
from convdsl.diagnostics import SourceFile, WeightError
from convdsl.elaborate import check_definitions, elaborate, load_file
from convdsl.training.settings import complete
from elaborate.sources import build, model

TWO = "input x, w: f32[N, 8, 32, 32]"


def codes(text: str, before: str = "", declared: str = "input x: f32[N, 8, 32, 32]") -> list[str]:
    """Code and place of every warning of a model."""
    found = model(text, before, declared).warnings
    assert all(d.severity == "warning" and d.help for d in found)
    return [f"{d.code} {d.span.text if d.span else ''}" for d in found]


NESTED = """
for s in range(3) {
    for k in range(2) { y = y -> conv(8, 3x3) }
    ys = ys + [y -> avgpool(global)]
    y = y -> maxpool(2)
}
===
states = [x, x]
for t in range(3) {
    new = []
    h = x
    for l in range(2) {
        h = h + states[l] -> conv(8, 3x3)
        new = new + [h]
    }
    states = new
}
ys = ys + [h]
===
rows = [x, x]
for i in range(2) {
    left = x
    new = []
    for j in range(2) {
        h = rows[j] + left -> conv(8, 3x3)
        left = h -> relu
        new = new + [h -> tanh]
    }
    rows = new
}
ys = ys + [rows[1]]
===
levels = [x, x, x]
for j in range(1, 3) {
    new = []
    for i in range(3 - j) {
        new = new + [concat(levels[i], levels[i + 1]) -> conv(8, 3x3)]
    }
    levels = new
}
ys = levels
===
b = x
for i in range(2) {
    for j in range(2) {
        c = y + (b -> conv(8, 3x3))
        b = b + (y -> conv(8, 3x3))
        y = c
    }
}
ys = ys + [y]
===
for i in range(2) {
    all = for j in range(2) { y -> conv(8, 3x3) }
    for j in range(2) { all = for k in range(2) { all[k] + all[1 - k] -> conv(8, 1x1) } }
    y = all[0]
}
ys = ys + [y]
"""
"""Loops within loops, one after the other."""


@pytest.mark.parametrize("loops", NESTED.split("===\n"))
def test_loops_within_loops_leave_nothing_in_doubt(loops: str) -> None:
    found = codes(f"y = x\nys = []\n{loops}sum(ys) -> output z")
    assert not [warning for warning in found if warning.startswith("W0409")]


def test_what_each_round_leaves_to_no_purpose_is_told() -> None:
    """Only the last of them is used."""
    loops = "for i in range(2) { for j in range(2) { last = x -> conv(2, 1x1) } }"
    assert codes(f"{loops}\nlast -> output z") == ["W0409 conv(2, 1x1)"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # names
        ("y = x -> conv(4, 1x1)\nx -> relu", ["W0201 y"]),
        ("x -> conv(4, 1x1) -> output y\ndefault conv(bias = false)",
         ["W0201 conv(bias = false)"]),
        ("default conv(bias = false)\nx -> conv2d(4, 1x1)", []),
        ("default conv(bias = false)\nx -> relu", []),
        ("y = x -> conv(4, 1x1)\ndefault conv(bias = false)\ny -> conv2d(4, 1x1)", []),
        ("if x.rank == 4 { x -> bn -> output y\ndefault bn(eps = 0.1) }", ["W0201 bn(eps = 0.1)"]),
        ("_y = x -> conv(4, 1x1)\nx -> relu", []),
        ("let f = conv(4, 1x1)\nx -> relu", ["W0201 f"]),
        ("let a = 3\nlet b = a * 2\nx -> relu", ["W0201 b"]),
        ("a, b = x -> split(2)\na -> relu", ["W0201 b"]),
        ("a, _ = x -> split(2)\na -> relu", []),
        ("y = x -> relu\ny = x -> relu6\ny -> output z", ["W0201 y"]),
        ("y = x -> relu\ny = y -> relu6\ny -> output z", []),
        ("y = x\nfor i in range(2) { y = y -> conv(8, 1x1) }\ny -> output z", []),
        ("y = x\nfor i in [2, 3] { y = y -> conv(8, 1x1) }\ny -> output z", ["W0201 i"]),
        ("n, c, h, w = x.shape\nx -> conv(c, 1x1)", []),
        ("h, w = x.space\nx -> relu", ["W0201 h", "W0201 w"]),
        ("x -> for i in [1, 3] { conv(8, [i, i]) }", []),
        ("x -> for i in range(2) { conv(8, 1x1) as \"c{i}\" }", []),
        ("x -> for _ in range(2) { relu }", []),
        ("x -> for _i, k in enumerate([1, 3]) { conv(8, [k, k]) }", []),
        ("out = x -> relu", []),
        ("out = x -> relu\nx -> relu6 -> output y", ["W0201 out"]),
        # ways that meet again
        ("y = x\nif x.channels == 8 { y = y -> relu }\ny -> relu6", []),
        ("if x.channels == 8 { y = x -> relu } else { y = x -> relu6 }\ny -> output z", []),
        ("if x.channels == 8 { y = x -> relu } else { z = x }\nx -> relu", ["W0201 y", "W0201 z"]),
        ("y = x -> relu\nif x.channels == 7 { y -> output z }\nx -> output t", ["W0409 relu"]),
        ("k = x -> relu\nrepeat 2 { k = x -> relu6 }\nk -> output y",
         ["W0409 relu", "W0409 relu6"]),
        # a round reads what the round before bound
        ("y = x\nz = x\nrepeat 3 { z = y -> relu\ny = z -> relu6 }\nz -> output o", []),
        ("h = x\nfor i in [1, 3] { y = h -> conv(8, [i, i])\nh = y -> relu }\ny -> relu6", []),
        ("ys = for k in [1, 3] { x -> avgpool(k) }\nys[0] -> relu", ["W0409 avgpool(k)"]),
        # chains that are kept run later
        ("let w = 4\nlet f = conv(w, 1x1) -> repeat 2 { conv(w, 1x1) }\nx -> f", []),
        # layers
        ("ys = [x -> conv(2, 1x1), x -> conv(4, 1x1)]\nys[1] -> output y", ["W0409 conv(2, 1x1)"]),
        ("ys = [x -> relu as _probe, x -> relu6]\nys[1] -> output y", []),
        # windows
        ("x -> avgpool(1)", ["W0501 avgpool(1)"]),
        ("x -> maxpool(1, stride = 2)", []),
        ("let k = 1\nx -> avgpool(k)", []),
        ("x -> conv(2, 3x3, dilation = 31)", []),
        ("x -> conv(2, 3x3, dilation = 32)", ["W0501 conv(2, 3x3, dilation = 32)"]),
        ("x -> conv(2, 3x3, dilation = 32) as _wide", []),
        ("x -> conv(2, 63x63)", []),
        ("x -> conv(2, 65x65)", ["W0501 conv(2, 65x65)"]),
        ("x -> conv(2, 1x65)", ["W0501 conv(2, 1x65)"]),
        ("x -> conv(2, 32x32, pad = 0)", []),
        ("x -> maxpool(32) -> conv(2, 3x3)", []),
        ("x -> bn(momentum = 0.5)", []),
        ("x -> bn(momentum = 0.9) -> bn(momentum = 0.9)", ["W0501 bn(momentum = 0.9)"]),
        # linear and maps of space
        ("x -> linear(3)", ["W0501 linear(3)"]),
        ("x -> linear(3) as _mixed", []),
        ("x -> flatten -> linear(3)", []),
        ("x -> conv(4, 3x3) -> bn -> relu -> linear(3)", ["W0501 linear(3)"]),
        ("x -> maxpool(2) -> linear(3)", ["W0501 linear(3)"]),
        ("x -> conv_transpose(4, 2x2, stride = 2) -> linear(3)", ["W0501 linear(3)"]),
        ("x -> transpose([0, 2, 3, 1]) -> linear(3) -> relu -> linear(4)", []),
        ("x -> reshape([N, 64, 128]) -> linear(3)", []),
        ("x -> conv(4, 3x3) -> transpose([0, 2, 3, 1]) -> layer_norm -> linear(3)", []),
    ],
)  # fmt: skip
def test_warnings(body: str, expected: list[str]) -> None:
    assert codes(body) == expected


@pytest.mark.parametrize(
    ("before", "body", "expected"),
    [
        ("block b(w, k) { conv(w, 1x1) }", "x -> b(4, 2)", ["W0201 k"]),
        ("block b(w, _k = 1) { conv(w, 1x1) }", "x -> b(4)", []),
        ("block b(w, v = w * 2) { conv(v, 1x1) }", "x -> b(4)", []),
        ("block b(w) { w = 3\nconv(8, 1x1) }", "x -> b(4)", ["W0201 w", "W0201 w"]),
        ("block b { y = in -> relu\nin -> relu6 }", "x -> b", ["W0201 y"]),
        ("block b { input p, q\np -> relu }", "b(x, x)", ["W0201 q"]),
        ("block b { input p\nin -> relu }", "x -> b", []),
        ("block b { in -> relu -> output a\nin -> relu6 -> output _b }", "b(x).a -> relu", []),
        ("block b { in -> relu -> output a\noutput _b = in -> relu6 }", "b(x).a -> relu", []),
        ("block b { in -> relu -> output a\nin -> tanh -> output c }", "b(x).a -> relu",
         ["W0409 tanh"]),
        ("block b { input p: f32[N, C, H, W]\np -> conv(C, 1x1) }", "x -> b", []),
        ("block never(w) { y = in -> relu\nin -> relu6 }", "x -> relu", ["W0201 w", "W0201 y"]),
        ("let w = 3\nlet v = 4", "x -> conv(v, 1x1)", ["W0201 w"]),
        ("let w = 3\ndefault conv(bias = w > 2)", "x -> conv(4, 1x1)", []),
        ("let k = 2\ntrain { epochs = k }", "x -> relu -> output y", []),
        ("block b { conv(2, 1x1) }", "y = x -> b\n_z = x -> b\nx -> relu", ["W0201 y"]),
        ("block b { conv(2, 1x1) }", "ys = [x, x -> b]\nys[0] -> relu", ["W0409 b"]),
        ("model other(w = 2) { input y: f32[N, 2]\ny -> relu }", "x -> relu", ["W0201 w"]),
    ],
)  # fmt: skip
def test_warnings_of_definitions(before: str, body: str, expected: list[str]) -> None:
    text = f"{before}\nmodel m {{\ninput x: f32[N, 8, 32, 32]\n{body}\n}}\n"
    found = elaborate(SourceFile("test.cnn", text), model="m").warnings
    assert [f"{d.code} {d.span.text if d.span else ''}" for d in found] == expected


@pytest.mark.parametrize(
    ("body", "declared", "expected"),
    [
        ("x -> relu", TWO, ["W0202 w"]),
        ("x -> relu", TWO.replace(" w", " _w"), []),
        ("x -> resize(size = w.space)", TWO, []),
        ("y = w -> relu\nx -> relu", TWO, ["W0201 y"]),
    ],
)
def test_inputs(body: str, declared: str, expected: list[str]) -> None:
    assert codes(body, declared=declared) == expected


@pytest.mark.parametrize(
    ("layer", "expected"),
    [("resize(64)", ["W0501"]), ("resize(scale = 64)", []), ("upsample(scale=64)", [])],
)
def test_what_is_said_by_its_name_is_meant(layer: str, expected: list[str]) -> None:
    assert [d.code for d in model(f"x -> {layer} -> output y").warnings] == expected


def test_errors_bring_no_warnings_with_them() -> None:
    with pytest.raises(convdsl.CompileError) as caught:
        model("features = x -> relu\nfeatres -> relu")
    assert [d.code for d in caught.value.diagnostics] == ["E0201"]


def test_a_library_may_hold_what_others_use() -> None:
    text = "let w = 3\nblock b { conv(4, 1x1) }\n"
    assert check_definitions(SourceFile("blocks.cnn", text)) == ()
    (found,) = check_definitions(SourceFile("blocks.cnn", "block b(w) { relu }\n"))
    assert found.code == "W0201"


@pytest.mark.dear
@pytest.mark.parametrize("name", zoo.names())
def test_the_zoo_is_silent(name: str) -> None:
    entry = zoo.names()[name]
    found = load_file(entry.path, model=entry.model, zoo=zoo.folder()).warnings
    assert not found, "\n\n".join(d.render() for d in found)


def test_weights_of_layers_that_lead_nowhere_are_not_demanded() -> None:
    text = """model m {
        input x: f32[N, 2, 4, 4]
        y = x -> conv(3, 1x1) as left
        x -> conv(1, 1x1, bias = false) as right -> output z
    }"""
    made = build(text)
    kept = {"right.weight": np.ones((1, 2, 1, 1), np.float32)}
    net = convdsl.compile(made, kept, cache=False)
    assert np.array_equal(net(np.ones((1, 2, 4, 4), np.float32)), np.full((1, 1, 4, 4), 2.0))
    spare = {"left.weight": np.zeros((3, 2, 1, 1)), "left.bias": np.zeros(3)}
    convdsl.compile(made, kept | spare, cache=False)  # but they may be there
    with pytest.raises(WeightError, match=r"right\.weight"):
        convdsl.compile(made, spare, cache=False)


@pytest.mark.dear(share=4)
def test_training_of_layers_that_lead_nowhere() -> None:
    text = """model m {
        input x: f32[N, 4]
        y = x -> linear(3) as left
        x -> linear(2) as right -> output z
    }
    train { loss = mse(z, target) }"""
    made = build(text)
    batch = {"x": np.eye(4, dtype=np.float32), "target": np.ones((4, 2), np.float32)}
    right = {"right.weight": np.ones((2, 4)), "right.bias": np.ones(2)}
    for weights in ("random:0", right):
        session = convdsl.Session(made, complete(made), weights, cache=False)
        before = session.weights()
        session.step(batch, 0.1)
        after = session.weights()
        assert before.keys() == after.keys()
        moved = [key for key in before if not np.array_equal(before[key], after[key])]
        assert moved == ["right.weight", "right.bias"]


def test_a_named_layer_may_be_applied_again() -> None:
    """As in a loop that shares its weights."""
    for layer in ("conv(8, 3x3) as step", "(conv(8, 3x3) -> relu) as step"):
        made = model(
            f"let step = {layer}\nh = x\nfor _t in range(3) {{ h = h -> step }}\nh -> tanh"
        )
        names = {node.name.partition(".")[0] for node in made.graph.op_nodes()}
        assert names == {"step", "step_2", "step_3", "tanh"}
        assert {key.partition(".")[0] for key in made.graph.states} == {"step"}
        assert not made.warnings


@pytest.mark.parametrize(
    ("stage", "help"),
    [
        ("x -> resize(16x16)", "size = 16x16"),
        ("x -> resize(scale = 16x16)", ""),
        ("x -> resize(size = w)", "w.space"),
        ("resize(x, w)", "size = y.space"),
    ],
)
def test_sizes_are_lists(stage: str, help: str) -> None:
    with pytest.raises(convdsl.CompileError) as caught:
        convdsl.parse(f"model m {{\n{TWO}\n{stage} -> output y\n}}")
    told = caught.value.diagnostics
    assert len(told) == 1
    assert any(help in text for text in told[0].help) or not help


@pytest.mark.parametrize(
    ("stage", "warned"),
    [
        ("resize(224)", True), ("upsample([64, 64])", True), ("resize(32)", False),
        ("resize(size = [224, 224])", False), ("resize(2.5)", False), ("resize(0.5)", False),
        ("resize(64) as _far", False),
    ],
)  # fmt: skip
def test_a_scale_is_no_size(stage: str, warned: bool) -> None:
    found = model(f"x -> {stage} -> output y", declared="input x: f32[N, 8, 32, 32]").warnings
    assert [d.code for d in found] == ["W0501"] * warned
    if warned:
        assert "resize(size = [" in found[0].help[0]


def test_what_is_put_out_may_be_bound() -> None:
    """`y = ... -> output z` binds the tensor, in a loop with a name for each round, too."""
    loops = 'for i in [1, 2] { y = x -> conv(2, 1x1) -> output "o{i}"\ny -> relu -> output "r{i}" }'
    assert list(model(loops).outputs) == ["o1", "r1", "o2", "r2"]
    assert not model("y = x -> relu -> output z").warnings
    assert not model("y = x -> relu ->\noutput y").warnings
