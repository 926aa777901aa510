"""What cannot come to anything is told before the work, and by the name of what is in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl import driver, library
from convdsl.diagnostics import InputError

TEXT = (
    "model m { input image: f32[N, 1, 4, 4]\n image -> flatten -> linear(2) -> output y }\n"
    "train { epochs = 3\n batch = 4 }"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.cnn"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("kind", [[], ["--emit", "library"]])
@pytest.mark.parametrize("place", ["none/x", "m.cnn/x", "folder"])
def test_where_nothing_can_be_written(
    model: Path, convdsl: Any, monkeypatch: pytest.MonkeyPatch, kind: list[str], place: str
) -> None:
    """Nothing is compiled for it."""
    called: list[str] = []
    monkeypatch.setattr(driver, "compile", lambda *_, **__: called.append("compile"))
    monkeypatch.setattr(library, "build_library", lambda *_, **__: called.append("library"))
    (model.parent / "folder").mkdir()
    where = model.parent / place
    weights = ("--weights", "random:0")
    found = convdsl("compile", model, *weights, *kind, "-o", where)
    assert found.code == 2
    assert str(where) in found.err
    assert not called


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("/bin/false", r"the C compiler /bin/false \(CC\) failed with 1 and said nothing"),
        ("/bin/true", r"the C compiler /bin/true \(CC\) made no library and said nothing"),
        ("no-such-compiler", r"cannot run the C compiler no-such-compiler \(CC\): No such file"),
        ("sh -c 'echo oh dear >&2; exit 3'", r"failed with 3:\noh dear"),
    ],
)
def test_c_compilers_that_fail(
    model: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, said: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(InputError, match=said):
        library.build_library(model, "random:0", model.parent / "libm.so")
    assert not (model.parent / "libm.so").exists()


def test_a_run_that_is_over_already(model: Path, convdsl: Any) -> None:
    np.savez(model.parent / "d.npz", x=np.zeros((8, 4, 4), "u1"), y=np.arange(8) % 2)
    how = ("train", model, "--data", model.parent / "d.npz", "--out", model.parent / "run")
    assert convdsl(*how).code == 0
    for epochs in (2, 3):
        found = convdsl(*how, "--resume", "--epochs", epochs)
        assert found.code == 0
        assert f"has 3 epochs behind it, and {epochs} are asked for: nothing is left" in found.err
    assert "nothing is left" not in convdsl(*how, "--resume", "--epochs", 4).err


@pytest.mark.parametrize("depth", [0, -1, 1.5, True])
def test_depths_that_are_none(model: Path, depth: Any) -> None:
    with pytest.raises(InputError, match="depth"):
        convdsl.draw(model, depth=depth)
