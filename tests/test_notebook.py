"""Networks in cells of a notebook, by a shell that stands for IPython's; tests/around has the real
one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.diagnostics import CompileError, Error, InputError
from convdsl.notebook import models_in
from convdsl.training import watching
from convdsl.training.checkpoint import Progress
from convdsl.training.loop import Watch

NET = """model net(classes = 10, width = 4) {
    input image: f32[N, 3, 8, 8]
    image -> conv(width, 3x3) -> avgpool(global) -> flatten -> linear(classes) -> output logits
}
"""


class Shell:
    """What the extension asks of IPython."""

    def __init__(self) -> None:
        self.user_ns: dict[str, Any] = {"In": ["", "%load_ext convdsl", "%%cnn"]}
        self.magics: dict[str, Any] = {}

    def register_magic_function(self, made: Any, magic_kind: str, magic_name: str) -> None:
        self.magics[f"{magic_kind} {magic_name}"] = made

    def push(self, names: dict[str, Any]) -> None:
        self.user_ns |= names


@pytest.fixture
def shell() -> Shell:
    made = Shell()
    convdsl.load_ipython_extension(made)
    return made


def test_a_cell_names_its_model(shell: Shell) -> None:
    shown = shell.magics["cell cnn"]("--set width=6 --set classes=3", NET)
    assert shell.user_ns["net"] is shown
    assert str(shown.outputs["logits"]) == "f32[N, 3]"
    assert shown.parameters["width"] == 6
    assert "%%cnn" in shell.magics["cell cnn"].__doc__


def test_a_cell_of_several_models(shell: Shell) -> None:
    two = NET + NET.replace("model net", "model other")
    assert shell.magics["cell cnn"]("", two).name == "other"
    assert shell.user_ns["net"].name == "net"
    assert list(models_in("--model net", two, "cell 1")) == ["net"]


def test_a_cell_of_blocks_is_checked(shell: Shell) -> None:
    assert shell.magics["cell cnn"]("", "block b(width) { conv(width, 3x3) }\n") is None
    with pytest.raises(CompileError):
        models_in("", "block b(width) { conv(wdith, 3x3) }\n", "cell 1")


def test_what_is_wrong_is_at_its_line_of_the_cell(shell: Shell) -> None:
    with pytest.raises(CompileError) as caught:
        shell.magics["cell cnn"]("", NET.replace("width, 3x3", "widht, 3x3"))
    (finding,) = caught.value.diagnostics
    assert finding.span is not None
    assert finding.span.location == "cell 2:4"  # the magic has the first line
    lines = caught.value._render_traceback_()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert plain == finding.render().split("\n")
    assert any("\x1b[1;31m^" in line for line in lines)


def test_files_beside_the_notebook_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("blocks.cnn").write_text("block b(width) { conv(width, 3x3) -> relu }\n")
    text = 'use "blocks.cnn": b\nmodel m {\n    input x: f32[N, 3, 8, 8]\n    x -> b(4)\n}\n'
    (model,) = models_in("", text, "cell 7").values()
    assert len(model.graph.op_nodes()) == 2
    with pytest.raises(CompileError, match="leads outside"):
        models_in("", text.replace("blocks.cnn", "../blocks.cnn"), "cell 7")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--set width", "'width' is not NAME=VALUE"),
        ("--sett width=3", "unrecognized arguments"),
        ("--set 'width=3", "No closing quotation"),
        ("--model", "expected one argument"),
    ],
)
def test_a_wrong_line_is_told_and_ends_nothing(line: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        models_in(line, NET, "cell 1")
    with pytest.raises(Error):
        models_in("--set depth=3", NET, "cell 1")


def test_errors_show_the_caller_s_lines_and_no_others() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "convdsl": convdsl}
    with pytest.raises(InputError) as caught:
        exec("def f():\n    return convdsl.load('nonsense')\n\nf()", names)
    *lines, said = caught.value._render_traceback_()
    assert [line for line in lines if line.startswith("line ")] == ["line 4", "line 2"]
    assert not any("loading.py" in line for line in lines)
    assert said.startswith("\x1b[1;31merror\x1b[0m")
    assert "nonsense is neither a file" in said


# Progress


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notebook shows, state after state."""
    found: list[str] = []

    def display(thing: Any, display_id: bool) -> Any:
        assert display_id
        found.append(thing._repr_html_())
        return SimpleNamespace(update=lambda again: found.append(again._repr_html_()))

    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return found


def test_training_shows_a_bar(displays: list[str]) -> None:
    model = convdsl.parse(NET)
    x = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype("f4")
    trained = convdsl.train(model, (x, np.arange(40) % 10), epochs=2, batch=4, threads=1)
    assert "epoch 1/2  compiling" in displays[0]
    assert '<progress value="0" max="' in displays[0]
    assert displays[-1].count("train_loss") == len(trained.history) == 2
    assert "progress" not in displays[-1]


def test_a_run_that_is_stopped_says_so(displays: list[str]) -> None:
    bar = watching.usual()
    bar.begin(3, 10, Progress())
    bar.step(Progress(batch=1, samples=4), 2.5, 0.1)
    bar.end()
    assert "stopped in epoch 1/3" in displays[-1]
    assert repr(bar) == "stopped in epoch 1/3"


def test_a_run_that_never_began_shows_nothing(displays: list[str]) -> None:
    watching.usual().end()
    assert displays == []


def test_nothing_is_said_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert type(watching.usual()) is Watch
    terminal = ModuleType("IPython")
    terminal.get_ipython = lambda: SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert type(watching.usual()) is Watch
