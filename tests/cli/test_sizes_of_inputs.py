"""`--input` says open sizes where a model is sound with numbers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import convdsl
from convdsl.cli import main, sizing
from convdsl.diagnostics import CompileError

BEST = """model best {
    input x: f32[N, 6, 2 * H, W]
    input more: f32[N, 6, 2 * H, W]
    best, _places = x + more -> flatten(2) -> top_k(3, axis = 2)
    output best
}
"""
ONE = BEST.replace("    input more: f32[N, 6, 2 * H, W]\n", "").replace("x + more", "x")


def file_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / "net.cnn"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "command",
    [
        ("check", []),
        ("report", []),
        ("passes", []),
        ("run", ["--weights", "random:0", "--data", "random:0", "--batch", "2"]),
        ("compile", ["--weights", "random:0", "--emit", "loops"]),
    ],
    ids=lambda command: command[0],
)
def test_every_command_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, list[str]]
) -> None:
    name, more = command
    path = file_of(tmp_path, ONE)
    assert main([name, path, *more]) != 0
    assert "(--input, or --set H=... --set W=...)" in "".join(capsys.readouterr())
    assert main([name, path, *more, "--input", "6x8x4"]) == 0, capsys.readouterr()


@pytest.mark.parametrize("shape", ["5x8x4", "6x7x4", "6x8", "y=6x8x4", "6x0x4"])
def test_sizes_that_do_not_fit_leave_the_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str
) -> None:
    try:
        code = main(["report", file_of(tmp_path, ONE), "--input", shape])
    except SystemExit as stopped:  # no sizes at all
        assert "6x0x4" in shape
        code = int(str(stopped.code))
    assert code != 0
    assert "bug" not in "".join(capsys.readouterr())


def test_the_batch_stays_open(tmp_path: Path) -> None:
    path = file_of(tmp_path, BEST)
    model = sizing.load_for(path, {"x": (6, 8, 4)})
    assert [str(type) for type in model.inputs.values()] == ["f32[N, 6, 8, 4]"] * 2
    assert str(model.outputs["best"]) == "f32[N, 6, 3]"
    with pytest.raises(CompileError):
        sizing.load_for(path, None)


def test_a_model_that_stands_keeps_its_sizes_open(tmp_path: Path) -> None:
    path = file_of(tmp_path, "model m {\n    input x: f32[N, 3, H, W]\n    x -> relu\n}\n")
    assert str(sizing.load_for(path, (3, 8, 8)).inputs["x"]) == "f32[N, 3, H, W]"


def test_another_mistake_is_told_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path, ONE.replace("output best", "output bset"))
    assert main(["check", path, "--input", "6x8x4"]) != 0
    said = capsys.readouterr().out
    assert "E0201" in said
    assert "top_k needs" not in said


def test_sizes_of_what_is_written_for_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`export --input`: fixed in the file, the batch open; others than the text has are refused."""
    text = "model m {\n    input x: f32[N, 3, H, W]\n    x -> relu -> output y\n}\n"
    path, made = file_of(tmp_path, text), tmp_path / "m.onnx"
    for options, expected in (
        ([], "f32[N, 3, H, W]"),
        (["--input", "3x8x6"], "f32[N, 3, 8, 6]"),
        (["--input", "x=3x5x7"], "f32[N, 3, 5, 7]"),
    ):
        assert main(["export", path, *options, "-o", str(made)]) == 0
        assert str(convdsl.load(made).outputs["y"]) == expected
    capsys.readouterr()
    assert main(["export", path, "--input", "4x8x6", "-o", str(made)]) == 2
    assert "expected f32[N, 3, H, W]" in capsys.readouterr().err
