"""Completion as a shell does it: bash runs the script that we print."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from convdsl import zoo
from convdsl.cli.app import COMMANDS, parser_of
from convdsl.cli.completion import KINDS, SHELLS, script
from convdsl.explanations import every
from convdsl.ops import OPERATORS
from convdsl.passes import PASSES

PRESS_TAB = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function compopt { :; }
_shtab_convdsl "$1" "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "convdsl"
    path.write_text(script(parser_of(COMMANDS), "bash"))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    for name in ("net.cnn", "my net.cnn", "net.cdsl", "net.onnx", "note.txt", "convdsl.toml"):
        (tmp_path / name).write_text("")
    return tmp_path


def offered(script: Path, folder: Path, *words: str) -> set[str]:
    """What bash offers when Tab is pressed behind the last word."""
    done = subprocess.run(
        ["bash", "--norc", "-c", PRESS_TAB, "bash", str(script), "convdsl", *words],
        capture_output=True, text=True, cwd=folder, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return {word.strip() for word in done.stdout.splitlines() if word.strip()}


FILES = {"parts", "net.cnn", "my net.cnn", "net.onnx"}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["ex"], {"explain", "export"}),
        (["zzz"], set()),
        (["report", "--for"], {"--format"}),
        (["report", "--format", ""], {"table", "json", "md", "csv"}),
        (["check", "--format", "s"], {"sarif"}),
        (["report", "resnet1"], {"resnet18", "resnet101", "resnet152"}),
        (["report", "net"], {"net.cnn", "net.onnx", "net.cdsl"}),
        (["check", "net"], {"net.cnn", "net.cdsl"}),
        (["check", "convdsl"], {"convdsl.toml"}),
        (["fmt", "n"], {"net.cnn"}),
        (["fmt", ""], {"net.cnn", "my net.cnn", "parts"}),
        (["info", "n"], {"net.cdsl"}),
        (["import", "n"], {"net.onnx"}),
        (["draw", "lenet5", "-o", "note"], {"note.txt"}),
        (["explain", "E0501"], {"E0501"}),
        (["completion", "b"], {"bash"}),
        (["report", "lenet5", "--machine", "a10"], {"a10", "a100"}),
        (["bench", "lenet5", "--precision", "h"], {"highest", "high"}),
    ],
)
def test_tab(bash: Path, folder: Path, words: list[str], wanted: set[str]) -> None:
    found = offered(bash, folder, *words)
    if words == ["report", "resnet1"]:
        assert wanted <= found
        assert all(name.startswith("resnet1") for name in found)
    else:
        assert found == wanted


def test_every_command_and_name_is_offered(bash: Path, folder: Path) -> None:
    assert set(COMMANDS) <= offered(bash, folder, "")
    assert set(zoo.names()) | FILES | {"net.cdsl"} <= offered(bash, folder, "report", "")
    assert set(zoo.names()) <= offered(bash, folder, "zoo", "")
    assert {op.name for op in OPERATORS} <= offered(bash, folder, "ops", "")
    assert set(every()) <= offered(bash, folder, "explain", "")
    names = {one.name for one in PASSES}
    assert names <= offered(bash, folder, "bench", "lenet5", "--disable", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(convdsl, shell: str) -> None:
    said = convdsl("completion", shell)
    assert (said.code, said.err) == (0, "")
    assert said.out == convdsl("--print-completion", shell).out
    for word in (*COMMANDS, "print-after", "torchvision"):
        assert word in said.out
    if shell != "tcsh":  # which takes words or files, not both
        assert all(name in said.out for name in zoo.names())
        assert all(f"_convdsl_{kind}" in said.out for kind in KINDS)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=said.out, text=True, check=True)


def test_the_shell_is_the_one_in_use(convdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert convdsl("completion").out == convdsl("completion", "zsh").out
    monkeypatch.setenv("SHELL", "")
    assert convdsl("completion") == (2, "", f"error: name a shell: {', '.join(SHELLS)}\n")
    said = convdsl("completion", "fisch")
    assert said == (2, "", "error: no completion for fisch; did you mean fish?\n")
