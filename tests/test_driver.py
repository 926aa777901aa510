"""The stages strung together: sources, sizes, weights, and the text of every level."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import CALCULATOR, RESIDUAL, images

import convdsl
from convdsl import CompileError, InputError, WeightError, driver, exporting, sizes
from convdsl.backends.llvm import objects, pieces
from convdsl.kernel.target import Target
from convdsl.passes import PASSES
from convdsl.runtime.cache import ObjectCache

ROOT = Path(__file__).parent.parent
ONE = "model one(width = 2) {\n input x: f32[N, 1, 4, 4]\n x -> conv(width, 3x3) -> output y\n}\n"
TWO = "model two {\n input x: f32[N, 7]\n x -> linear(3) -> output y\n}\n"
X86 = {"cpu": "x86-64-v3"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Loading


def test_a_path(folder: Path) -> None:
    (folder / "one.cnn").write_text(ONE)
    for source in ("one.cnn", folder / "one.cnn", str(folder / "one.cnn")):
        assert convdsl.load(source).name == "one"


def test_a_model_of_several(folder: Path) -> None:
    (folder / "both.cnn").write_text(ONE + TWO)
    assert convdsl.load("both.cnn:two").name == "two"
    assert convdsl.load("both.cnn:one").name == "one"
    with pytest.raises(CompileError, match="one.*two"):
        convdsl.load("both.cnn")
    with pytest.raises(CompileError, match="three"):
        convdsl.load("both.cnn:three")


def test_a_name_of_the_zoo(folder: Path) -> None:
    assert convdsl.load("lenet5").name == "lenet5"
    assert list(folder.iterdir()) == []


def test_a_file_comes_before_the_zoo(folder: Path) -> None:
    (folder / "lenet5").write_text(ONE)
    assert convdsl.load("lenet5").name == "one"


def test_a_path_comes_before_path_and_model(folder: Path) -> None:
    (folder / "both.cnn").write_text(ONE + TWO)
    (folder / "both.cnn:one").write_text(TWO)
    assert convdsl.load("both.cnn:one").name == "two"


def test_parameters_and_symbols(folder: Path) -> None:
    (folder / "one.cnn").write_text(ONE)
    for model in (convdsl.load("one.cnn", width=5), convdsl.parse(ONE, width=5)):
        assert str(model.outputs["y"]) == "f32[N, 5, 4, 4]"
    assert str(convdsl.parse(ONE, N=3).outputs["y"]) == "f32[3, 2, 4, 4]"
    with pytest.raises(CompileError, match="widht"):
        convdsl.parse(ONE, widht=5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("model m {\n input x: f32[N, 4] -> output y\n}", "is no file: convdsl.parse takes text"),
        ("x -> conv(3)", r"`x -> conv\(3\) \.\.\.` is no file"),
        ("lenet", "neither a file nor a model of the zoo; did you mean lenet5"),
        ("entirely_else", "neither a file nor a model of the zoo; `convdsl zoo` lists"),
        ("oen.cnn", "there is no file oen.cnn; did you mean one.cnn"),
        ("nowhere/one.cnn", "there is no file nowhere/one.cnn"),
        (".", r"\. is a folder"),
        ("", "neither a file nor"),
        ("nul\0", "neither a file nor"),
        ("x" * 5000, "neither a file nor"),
    ],
)
def test_no_such_source(folder: Path, source: str, message: str) -> None:
    (folder / "one.cnn").write_text(ONE)
    with pytest.raises(InputError, match=message):
        convdsl.load(source)


def test_a_wrong_text_is_a_compile_error() -> None:
    """All that is wrong with it, at once."""
    with pytest.raises(CompileError) as caught:
        convdsl.parse(ONE.replace("conv(width, 3x3)", "conv(width) -> cnov(2, 3x3)"))
    first, second = caught.value.diagnostics
    assert "`conv` needs `kernel`" in first.render()
    assert "did you mean `conv`" in second.render()


# Sizes


def bound(text: str, **said: Any) -> dict[str, int]:
    return sizes.bind(convdsl.parse(text), **said)


def test_sizes_from_shapes_batch_and_names() -> None:
    assert bound(RESIDUAL) == {}
    assert bound(RESIDUAL, inputs=(3, 12, 16)) == {"N": 1, "H": 12, "W": 16}
    assert bound(RESIDUAL, inputs=(2, 3, 12, 16)) == {"N": 2, "H": 12, "W": 16}
    assert bound(RESIDUAL, inputs=(3, 12, 16), batch=4) == {"N": 4, "H": 12, "W": 16}
    assert bound(RESIDUAL, batch=4) == {"N": 4}
    assert bound(RESIDUAL, symbols={"H": 8}) == {"H": 8}
    assert bound(CALCULATOR, inputs={"a": (4, 6)}) == {"N": 1}
    assert bound(CALCULATOR, inputs={"a": (3, 4, 6), "b": (3, 4, 6)}) == {"N": 3}


@pytest.mark.parametrize(
    ("text", "said", "message"),
    [
        (RESIDUAL, {"inputs": (2, 3, 12, 16), "batch": 3}, "the batch is 3, but .* say 2"),
        (RESIDUAL, {"inputs": (12, 16)}, "has shape"),
        (RESIDUAL, {"inputs": (3, 13, 16)}, "H = 13, but H % 4 == 0"),
        (RESIDUAL, {"inputs": {"picture": (3, 12, 16)}}, "no input `picture`; .* image"),
        (RESIDUAL, {"symbols": {"Q": 3}}, "no free size is called Q; there are N, H, W"),
        (RESIDUAL, {"symbols": {"W": 5}}, "W = 5, but it must be at least 6"),
        (RESIDUAL, {"inputs": (3, 12, 16), "symbols": {"H": 16}}, "H = 16, but .* say 12"),
        (CALCULATOR, {"inputs": (4, 6)}, r"several inputs \(a, b\): give a shape for each name"),
        (CALCULATOR, {"inputs": {"a": (2, 4, 6), "b": (3, 4, 6)}}, "input `b` has shape"),
    ],
)
def test_sizes_that_do_not_fit(text: str, said: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bound(text, **said)


# Compiling


def test_weights_must_be_given() -> None:
    with pytest.raises(
        WeightError, match=r"residual has 14 weights \(conv.weight, .*name a weight file"
    ):
        convdsl.compile(convdsl.parse(RESIDUAL))


def test_a_model_without_weights_needs_none() -> None:
    a = np.ones((1, 4, 6), "f4")
    run = convdsl.compile(convdsl.parse(CALCULATOR), cache=False)
    assert run.notes == ()
    np.testing.assert_array_equal(run(a, a)["total"], 2 * a)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tpu"}, "unknown target `tpu`; there are cpu, cuda"),
        ({"cpu": "pentium-9"}, "unknown processor `pentium-9`"),
        ({"threads": 0}, "0 threads: at least one"),
        ({"inputs": (3, 13, 16)}, "H = 13, but"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        convdsl.compile(convdsl.parse(RESIDUAL), "random:0", cache=False, **options)


def test_a_source_compiles_as_its_model_does(folder: Path) -> None:
    (folder / "r.cnn").write_text(RESIDUAL)
    x = images()
    by_source, by_model = (
        convdsl.compile(m, "random:1", cache=False)(x) for m in ("r.cnn", convdsl.parse(RESIDUAL))
    )
    np.testing.assert_array_equal(by_source, by_model)


@pytest.mark.dear
def test_passes_change_no_numbers() -> None:
    model, x = convdsl.parse(RESIDUAL), images(2, 16)
    plain, full = (
        convdsl.compile(model, "random:1", passes=passes, verify=True, cache=False)(x)
        for passes in ((), PASSES)
    )
    np.testing.assert_allclose(full, plain, rtol=1e-4, atol=1e-5)
    for left_out in PASSES:
        kept = tuple(p for p in PASSES if p is not left_out)
        found = convdsl.compile(model, "random:1", passes=kept, cache=False)(x)
        np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5, err_msg=left_out.name)


@pytest.mark.dear(share=4)
def test_machine_code_is_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same text and processor hit, bit for bit; another shape or processor does not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[str] = []
    emit = objects.emit_object

    def counted(ir: str, target: Target) -> bytes:
        made.append(ir)
        return emit(ir, target)

    monkeypatch.setattr(pieces, "emit_object", counted)
    monkeypatch.setattr(pieces, "emit_for_another", counted)
    model = convdsl.parse(RESIDUAL)

    def compiled(**options: Any) -> Any:
        return convdsl.compile(model, "random:1", inputs=(3, 12, 12), **options)

    first = compiled()
    modules = len(made)
    again = compiled()
    assert len(made) == modules > 0
    np.testing.assert_array_equal(first(images()), again(images()))
    assert len(ObjectCache().entries()) == 1
    for other in ({"cpu": "x86-64-v2"}, {"batch": 2}, {"cache": False}):
        before = len(made)
        compiled(**other)
        assert len(made) > before
    assert len(ObjectCache().entries()) == 3


def test_a_plan_too_large_is_refused_before_anything_is_made() -> None:
    text = "model m {\n input x: f32[N, 3, H, W]\n x -> relu -> conv(64, 3x3) -> output y\n}\n"
    model = convdsl.parse(text)
    with pytest.raises(InputError, match="the program plans for [0-9,]+ bytes, more than"):
        convdsl.compile(model, "random:0", inputs=(64, 3, 30000, 30000), cache=False)


# Looking


@pytest.mark.dear
def test_every_level_is_text_or_bytes() -> None:
    model = convdsl.parse(RESIDUAL)
    for level in driver.LEVELS:
        made_for = {} if level in ("cuda", "ptx", "cubin", "sass") else X86
        shown = convdsl.emit(model, level, inputs=(3, 12, 12), **made_for)
        assert isinstance(shown, bytes if level in ("object", "cubin") else str)
        assert shown
    with pytest.raises(InputError, match="no level is called assembly; there are graph, gradient"):
        convdsl.emit(model, "assembly")


def test_upper_levels_keep_symbols_and_lower_ones_need_sizes() -> None:
    model = convdsl.parse(RESIDUAL)
    assert "[N, 8, H, W]" in str(convdsl.emit(model, "graph"))
    assert "H" in str(convdsl.emit(model, "expr"))
    with pytest.raises(InputError, match="sizes not given: H, W"):
        convdsl.emit(model, "loops")


CONV_RELU = """
model conv_relu {
    input x: f32[N, 8, 6]
    x -> conv(8, 3) as conv -> relu as act -> output y
}
"""


@pytest.mark.parametrize("level", ["graph", "gradient", "expr", "loops"])
def test_levels_of_one_convolution(golden: Any, level: str) -> None:
    """The example of docs/architecture.md."""
    model = convdsl.parse(CONV_RELU)
    golden(f"levels/conv_relu.{level}.txt", str(convdsl.emit(model, level, **X86)) + "\n")


def test_the_example_in_the_documentation_is_what_is_printed() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert CONV_RELU.strip() in text
    model = convdsl.parse(CONV_RELU)
    for level in ("graph", "gradient", "expr", "loops"):
        assert str(convdsl.emit(model, level, **X86)) in text


@pytest.mark.dear
def test_every_level_is_deterministic() -> None:
    """Two processes with different hash seeds print the same: all that is ours. NVRTC orders
    instructions and allots registers otherwise from run to run."""
    script = f"""
import sys, hashlib, convdsl.driver
model = convdsl.parse({RESIDUAL!r})
for level in convdsl.driver.LEVELS:
    if level in ("ptx", "cubin", "sass"):
        continue
    made_for = {{}} if level == "cuda" else {{"cpu": "x86-64-v3"}}
    shown = convdsl.emit(model, level, inputs=(3, 12, 12), **made_for)
    data = shown if isinstance(shown, bytes) else shown.encode()
    print(level, hashlib.sha256(data).hexdigest())
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0].count("\n") == len(driver.LEVELS) - 3
    assert said[0] == said[1]


def test_figures_keep_symbols_that_nothing_is_said_of() -> None:
    report = convdsl.report(convdsl.parse(RESIDUAL), inputs={"image": (3, 12, 12)})
    assert report.to_json()["total"]["params"] == 885
    free = convdsl.report(convdsl.parse(RESIDUAL)).to_json()["total"]["macs"]
    assert isinstance(free, str)
    assert "H*W" in free


@pytest.mark.parametrize(
    "leave",
    [
        lambda model: convdsl.export(model, "random:1"),
        lambda model: convdsl.export(model, to="pytorch"),
        exporting.translate,
    ],
    ids=["onnx", "pytorch", "cnn"],
)
def test_a_network_that_changes_its_states_stays_here(leave) -> None:
    model = convdsl.parse(ONE)
    key, state = next(iter(model.graph.states.items()))
    model.graph.updates[key] = state.output
    with pytest.raises(InputError, match=f"replaces its state {key} with every call"):
        leave(model)
