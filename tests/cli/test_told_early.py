"""What cannot come to anything is told before the work, and by the name of what is in the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl import driver, exporting, library, loading
from convdsl.diagnostics import InputError
from convdsl.reporting import page
from convdsl.runtime import whole_files

TEXT = (
    "model m { input image: f32[N, 1, 4, 4]\n image -> flatten -> linear(2) -> output y }\n"
    "train { epochs = 3\n batch = 4 }"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.cnn"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("place", ["none/x", "m.cnn/x", "folder"])
@pytest.mark.parametrize("command", [("export",), ("report",), ("import",)])
def test_other_files_that_cannot_be_written(
    model: Path, convdsl: Any, monkeypatch: pytest.MonkeyPatch, command: tuple[str], place: str
) -> None:
    """Nothing is read, drawn or put together for them."""
    called: list[str] = []
    monkeypatch.setattr(exporting, "export", lambda *_, **__: called.append("export"))
    monkeypatch.setattr(loading, "load_onnx", lambda *_, **__: called.append("import"))
    monkeypatch.setattr(page, "html_page", lambda *_, **__: called.append("report"))
    (model.parent / "folder").mkdir()
    where = model.parent / place
    option = "--html" if command == ("report",) else "-o"
    found = convdsl(*command, model, option, where)
    assert (found.code, called) == (2, [])
    assert str(where) in found.err


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


@pytest.mark.parametrize("command", ["compile", "import", "export", "report", "library"])
@pytest.mark.parametrize("end", ["txt", "json", "png", "zip", "ipynb", "CSV"])
def test_names_that_promise_another_kind(model: Path, convdsl: Any, command: str, end: str) -> None:
    where = model.parent / f"x.{end}"
    words = {
        "compile": ("compile", model, "--weights", "random:0", "-o"),
        "library": ("compile", model, "--weights", "random:0", "--emit", "library", "-o"),
        "import": ("import", model.parent / "m.onnx", "-o"),
        "export": ("export", model, "--weights", "random:0", "-o"),
        "report": ("report", model, "--html"),
    }
    (model.parent / "m.onnx").touch()
    found = convdsl(*words[command], where)
    assert found.code == 2
    assert f"x.{end} is called like " in found.err
    assert "would be written; end it with ." in found.err
    assert not where.exists()


@pytest.mark.parametrize("name", ["x", "x.bin", "x.v2", "x.cdsl", "x.2024-01-01"])
def test_names_that_promise_nothing(model: Path, convdsl: Any, name: str) -> None:
    where = model.parent / name
    assert convdsl("compile", model, "--weights", "random:0", "-o", where).code == 0
    assert where.exists()


@pytest.mark.parametrize("name", ["x.txt", "x.md", "x.py", "x"])
def test_stages_go_into_texts_of_any_name(model: Path, convdsl: Any, name: str) -> None:
    where = model.parent / name
    assert convdsl("compile", model, "--emit", "graph", "-o", where).code == 0
    assert "linear" in where.read_text()


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_precisions_are_named_with_what_they_are(model: Path, target: str) -> None:
    said = r"`low`; products are of highest \(float32\), high \(TF32\), medium \(bf16\)$"
    with pytest.raises(InputError, match=said):
        convdsl.compile(model, "random:0", target=target, precision="low")


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


@pytest.mark.dear(share=4)
def test_a_run_that_is_over_already(model: Path, convdsl: Any) -> None:
    np.savez(model.parent / "d.npz", x=np.zeros((8, 4, 4), "u1"), y=np.arange(8) % 2)
    how = ("train", model, "--data", model.parent / "d.npz", "--out", model.parent / "run")
    assert convdsl(*how).code == 0
    for epochs in (2, 3):
        found = convdsl(*how, "--resume", "--epochs", epochs)
        assert found.code == 0
        assert f"has 3 epochs behind it, and {epochs} are asked for: nothing is left" in found.err
    other = convdsl(*how, "--resume", "--lr", 0.5)
    assert (other.code, "of another run" in other.err, "nothing is left" in other.err) == (
        2,
        True,
        False,
    )
    assert "nothing is left" not in convdsl(*how, "--resume", "--epochs", 4).err


@pytest.mark.parametrize("depth", [0, -1, 1.5, True])
def test_depths_that_are_none(model: Path, depth: Any) -> None:
    with pytest.raises(InputError, match="depth"):
        convdsl.draw(model, depth=depth)


def test_stages_are_written_whole_or_not_at_all(
    model: Path, convdsl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves what was there; a device is written to as it is."""
    where = model.parent / "g.txt"
    where.write_text("before")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(whole_files, "_fill", full)
    found = convdsl("compile", model, "--emit", "graph", "-o", where)
    assert (found.code, where.read_text()) == (2, "before")
    assert "g.txt: No space left on device" in found.err
    assert convdsl("compile", model, "--emit", "graph", "-o", "/dev/full").code == 2
    assert convdsl("compile", model, "--emit", "graph", "-o", "/dev/null").code == 0
