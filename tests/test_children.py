"""Nothing that lies in the folder one stands in is run, however its files are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from interop.mutations import small_onnx

import convdsl
from convdsl.children import running

ROOT = Path(convdsl.__file__).parents[1]
SHADOWS = ("onnx", "numpy", "google", "json", "lark", "networkx", "llvmlite", "convdsl", "site")


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder with a model, and with modules that leave a mark when they are imported."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("open('mark', 'w').close(); raise ImportError\n")
    (tmp_path / "net.onnx").write_bytes(small_onnx().SerializeToString())
    return tmp_path


@pytest.mark.dear
@pytest.mark.parametrize(
    "words",
    [("check", "net.onnx"), ("report", "net.onnx"), ("import", "net.onnx", "-o", "made.cnn")],
    ids=lambda words: words[0],
)
def test_commands_run_no_module_beside_a_model(stranger: Path, words: tuple[str, ...]) -> None:
    """The console script has the folder of its own on its path, as `-P` has none."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "convdsl", *words],
        cwd=stranger, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (stranger / "mark").exists()


def test_a_module_of_our_own_is_found_from_anywhere(stranger: Path) -> None:
    """From where this very package lies, with no help of the environment."""
    alone = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    command = running("convdsl", "explain", "E0501")
    done = subprocess.run(
        command, cwd=stranger, capture_output=True, text=True, check=False, env=alone
    )
    assert done.returncode == 0, done.stderr
    assert "E0501" in done.stdout
    assert not (stranger / "mark").exists()


def test_what_a_module_is_given_is_what_it_sees(tmp_path: Path) -> None:
    given = ["two words", "--set", "x=é", ""]
    (tmp_path / "said.py").write_text("import sys; print(sys.argv)\n")
    command = running("said", *given)
    command[command.index("said") - 1] = str(tmp_path)
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout == f"{[str(tmp_path / 'said.py'), *given]}\n"
