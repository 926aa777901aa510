"""Files and names that nobody means: answered in lines that can be read, with exit code 2."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli.conftest import SMALL, Convdsl

from convdsl.diagnostics import Diagnostic, Label, SourceFile
from convdsl.runtime import whole_files

RAW = re.compile(r"\[Errno|a bug in convdsl|Traceback")


@pytest.mark.parametrize(
    "command", [("check",), ("fmt",), ("fmt", "--check"), ("report",), ("init",), ("info",)]
)
def test_links_in_a_circle(
    convdsl: Convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle.cnn").symlink_to("circle.cnn")
    said = convdsl(*command, "circle.cnn")
    assert said.code
    assert "circle.cnn" in said.err
    assert not RAW.search(said.err)


@pytest.mark.parametrize(
    "command",
    [
        ("check",),
        ("import",),
        ("info",),
        ("classify", "small.cnn", "--weights", "random:0"),
        ("run", "small.cnn", "--weights", "random:0", "--data"),
        ("train", "small.cnn", "--out", "out", "--data"),
        ("compile", "small.cnn", "--weights"),
    ],
    ids=" ".join,
)
def test_what_the_system_says_comes_in_words(
    convdsl: Convdsl, small: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(small.parent)
    said = convdsl(*command, "n" * 300)
    assert said.code
    assert not RAW.search(said.err)
    assert "File name too long" in said.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("report", "--batch", "2", "--set", "batch=3"), "the batch is called N here: --batch"),
        (("report", "--set", "B=3"), "the batch is called N here: --batch"),
        (("report", "--batch", "2", "--set", "N=3"), "--batch and --set N=... say the same size"),
        (("report", "--batch", "1,8"), "`report MODEL --set N=1,8` has a column for each"),
        (("compile", "-o"), "-o/--output: a value is missing: -o FILE"),
        (("train", "--data"), "--data: a value is missing: --data PATH"),
        (("report", "--set"), "--set: a value is missing: --set NAME=VALUE"),
    ],
)
def test_sizes_and_options_half_said(
    convdsl: Convdsl, small: Path, command: tuple[str, ...], words: str
) -> None:
    name, *options = command
    said = convdsl(name, str(small), *options)
    assert said.code == 2 or name == "report"
    assert words in said.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("explain", "conv"), "`convdsl ops conv` tells"),
        (("zoo", "resnet"), "there are resnet18, resnet34, resnet50, "),
        (("helpp",), "write `convdsl --help`"),
        (("export", "small.cnn", "--weights", "random:0", "-o", "net.tflite"), "end it with .onnx"),
        (("import", "small.cnn"), "a text of convdsl, which needs no import"),
        (("report", "small"), "did you mean small.cnn?"),
        (("report", "small.cnn", "--input", "1x16x16"), "to leave them open, write `input"),
        (
            ("train", "small.cnn", "--data", "data.npz", "--set", "train.lr=0.1,0.2"),
            "train.optimizer.lr takes one value, not 0.1,0.2",
        ),
        (("compile", "small.cnn", "--weights", "data.npz", "-o", "x.cdsl"), "x_train: another"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_was_meant_is_said(
    convdsl: Convdsl,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(small.parent)
    np.savez("data.npz", x_train=np.zeros(3))
    said = convdsl(*command)
    assert said.code == 2
    assert words in said.err
    assert not Path("net.tflite").exists()


@pytest.mark.parametrize("before", [0, 1, 79, 80, 81, 500, 100_000])
@pytest.mark.parametrize("after", [0, 1, 150, 100_000])
def test_carets_stand_under_the_word_of_a_long_line(before: int, after: int) -> None:
    source = SourceFile("long.cnn", f"first\n{'a' * before}{'WRONG'}{'b' * after}\n")
    start = 6 + before
    label = Label(source.span(start, start + 5), "here")
    rows = Diagnostic("E0201", "wrong", (label,)).render().split("\n")
    line, carets = next((r, rows[i + 1]) for i, r in enumerate(rows) if "WRONG" in r)
    assert max(map(len, rows)) < 260
    assert line.index("WRONG") == carets.index("^^^^^")  # far to the right the label is below
    assert any(row.endswith("here") and row.index("here") >= line.index("WRONG") for row in rows)
    if before + after < 200:
        assert line == f"2 | {'a' * before}WRONG{'b' * after}"


def test_a_long_line_is_marked_from_end_to_end_where_labels_are_far_apart() -> None:
    source = SourceFile("long.cnn", f"{'a' * 9}{' ' * 5_000}{'b' * 9_000}")
    labels = (Label(source.span(5_009, 14_009), "of this"), Label(source.span(0, 9), "by this"))
    rows = Diagnostic("E0201", "wrong", labels).render().split("\n")
    assert max(map(len, rows)) < 300
    assert any("^" in row for row in rows)
    assert any(row.endswith("of this") for row in rows)
    assert any("by this" in row for row in rows)


def test_fmt_shows_the_beginning_of_a_long_line(convdsl: Convdsl, tmp_path: Path) -> None:
    path = tmp_path / "long.cnn"
    path.write_text(SMALL.replace("# A small", f"#    {'long ' * 5_000}"))
    path.write_text(path.read_text() + f"let a=[{'1,' * 4_000}1]\n")
    said = convdsl("fmt", "--check", path)
    assert said.code == 1
    assert max(map(len, said.err.splitlines())) < 200 + len(str(path))


def test_a_block_of_one_layer_is_drawn(convdsl: Convdsl, small: Path, tmp_path: Path) -> None:
    for name in ("fc", "conv1"):
        said = convdsl("draw", small, "--block", name, "-o", tmp_path / "one.svg")
        assert said.code == 0, said.err
        assert f">{name}<" in (tmp_path / "one.svg").read_text()


@pytest.mark.dear
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(small: Path, closed: str) -> None:
    before = small.read_bytes()
    command = f'"{sys.executable}" -m convdsl report "{small}" {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not RAW.search(done.stderr)
    assert ("conv1" in done.stdout) == (" >&-" not in f" {closed}")
    assert small.read_bytes() == before


@pytest.mark.parametrize(
    ("command", "option"),
    [("compile", "--batch"), ("compile", "--input"), ("run", "--threads"), ("serve", "--port")],
)
@pytest.mark.parametrize("value", ["9" * 5_000, "word" * 2_000])
def test_values_that_nobody_reads_to_the_end(
    convdsl: Convdsl, small: Path, command: str, option: str, value: str
) -> None:
    said = convdsl(command, small, option, value)
    assert said.code == 2
    assert said.err.startswith(f"error: {option}: ")
    assert "<lambda>" not in said.err
    assert "invalid" not in said.err
    assert len(said.err) < 600


@pytest.mark.dear
@pytest.mark.parametrize(
    ("before", "name"),
    [
        (("compile", "small.cnn", "--weights", "random:0", "-o"), "data.npz"),
        (("compile", "small.cnn", "--emit", "graph", "-o"), "small.cnn"),
        (("compile", "small.cnn", "--weights", "random:0", "--emit", "library", "-o"), "small.cnn"),
        (("export", "small.cnn", "--weights", "random:0", "-o"), "small.cnn"),
        (("export", "small.cnn", "--to", "pytorch", "-o"), "small.onnx"),
        (("report", "small.cnn", "--html"), "small.cnn"),
        (("import", "small.onnx", "-o"), "small.onnx"),
        (("import", "small.onnx", "--weights"), "data.npz"),
    ],
    ids=str,
)
def test_what_is_called_otherwise_is_not_written_over(
    convdsl: Convdsl,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: tuple[str, ...],
    name: str,
) -> None:
    monkeypatch.chdir(small.parent)
    assert convdsl("export", small, "--weights", "random:0", "-o", "small.onnx").code == 0
    np.savez("data.npz", x=np.zeros(3))
    files = {path: path.read_bytes() for path in small.parent.iterdir() if path.is_file()}
    said = convdsl(*before, name)
    assert said.code == 2
    assert f"{name} is called like" in said.err
    assert {p: p.read_bytes() for p in small.parent.iterdir() if p.is_file()} == files


@pytest.mark.dear
def test_import_writes_all_its_files_or_none(
    convdsl: Convdsl, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    convdsl("export", small, "--weights", "random:0", "-o", "other.onnx")
    (small.parent / "folder").mkdir()
    for place in ("folder", "nowhere/w.safetensors", "names.txt/w.safetensors"):
        said = convdsl("import", "other.onnx", "--weights", place)
        assert said.code == 2
        assert place in said.err
        assert [path.name for path in small.parent.glob("other*")] == ["other.onnx"]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--layer", "conv1"), "--layer"),
        (("--weights", "random:0"), "--weights"),
        (("--of", "logits"), "--of"),
        (("--filters", "--weights", "random:0", "--depth", "2"), "--depth"),
        (("--maps", "conv1", "--weights", "random:0", "--data", "photo.png", "--of", "x"), "--of"),
    ],
    ids=" ".join,
)
def test_what_plays_no_part_in_a_drawing_is_said(
    convdsl: Convdsl,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    name: str,
) -> None:
    monkeypatch.chdir(small.parent)
    said = convdsl("draw", small, "-o", "drawn.svg", *options)
    assert said.code == 0, said.err
    assert f"{name} plays no part in drawing" in said.err


@pytest.mark.dear(share=4)
@pytest.mark.parametrize(
    "command",
    [
        ("draw", "small.cnn", "-o", "old.svg"),
        ("report", "small.cnn", "--html", "old.html"),
        ("import", "other.onnx", "-o", "old.cnn"),
        ("export", "small.cnn", "--weights", "random:0", "-o", "old.onnx"),
        ("compile", "small.cnn", "--weights", "random:0", "-o", "old.cdsl"),
    ],
    ids=lambda command: command[0],
)
def test_a_full_disk_leaves_what_was_there(
    convdsl: Convdsl, small: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(small.parent)
    convdsl("export", small, "--weights", "random:0", "-o", "other.onnx")
    old = small.parent / command[-1]
    old.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        said = convdsl(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert said.code == 2
    assert old.name in said.err
    assert "File too large" in said.err
    assert old.read_bytes() == b"old"
    assert not [path for path in small.parent.iterdir() if path.name.endswith(".part")]


FULL = "cannot write the output: No space left on device"


@pytest.mark.drawn(share=8)
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "command",
    ["--help", "--version", "check --help", "report {}", "zoo lenet5", "draw {} -o -",
     "fmt - < {}", "compile {} --emit object"],
)  # fmt: skip
def test_a_full_disk_behind_the_output(small: Path, command: str, buffered: bool) -> None:
    """Whether it is noticed while the command writes or once it has ended."""
    name = command.format(f'"{small}"')
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    said = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m convdsl {name} > /dev/full'],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (said.returncode, said.stderr.splitlines()[-1:]) == (2, [f"error: {FULL}"])
    assert not RAW.search(said.stderr)


@pytest.mark.dear
def test_a_full_disk_behind_the_notes(small: Path) -> None:
    """There is nobody to tell: the work goes on, and a mistake keeps its code."""
    run = f'run "{small}" --weights random:0 --data random:0'
    for command, code in ((run, 0), ("nothing", 2)):
        said = subprocess.run(
            ["sh", "-c", f'"{sys.executable}" -m convdsl {command} 2> /dev/full'],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert said.returncode == code
        assert ("logits" in said.stdout) == (code == 0)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("command", ["--help", "ops", "zoo resnet50", "explain E0501"])
def test_a_reader_that_is_gone(command: str) -> None:
    line = f'"{sys.executable}" -m convdsl {command}; echo "left with $?" >&2'
    said = subprocess.run(
        ["sh", "-c", f"( sleep 0.5; {line} ) | true"], capture_output=True, text=True, check=False
    )
    assert said.stderr == "left with 141\n"


@pytest.mark.parametrize("command", ["check", "report", "fmt", "compile"])
def test_a_folder_for_a_file(
    convdsl: Convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "nets").mkdir()
    for name in ("a", "b", "c", "d"):
        (tmp_path / "nets" / f"{name}.cnn").write_text(SMALL)
    assert convdsl(command, "empty") == (
        2, "", "error: empty is a folder; it holds no .cnn file\n"
    )  # fmt: skip
    names = "nets/a.cnn, nets/b.cnn, nets/c.cnn, ..."
    assert convdsl(command, "nets") == (
        2, "", f"error: nets is a folder; name a file: {names}\n"
    )  # fmt: skip


def test_a_closed_folder(convdsl: Convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name that was given, and that it is writing which fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.cnn").write_text(SMALL.replace("image -> conv", "image->conv"))
    monkeypatch.setattr(whole_files.os, "access", lambda *_: False)
    assert convdsl("fmt", "m.cnn") == (2, "", "error: cannot write m.cnn: Permission denied\n")


@pytest.mark.dear(share=4)
def test_weights_and_class_names_stand_beside_the_text(
    convdsl: Convdsl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert convdsl("export", "small.cnn", "--weights", "random:0", "-o", "net.onnx").code == 0
    (folder / "parts").mkdir()
    assert convdsl("import", "net.onnx", "-o", "parts/own.cnn").code == 0
    found = {path.name for path in (folder / "parts").iterdir()}
    assert {"own.cnn", "own.safetensors"} <= found
    said = convdsl("report", "small.cnn", "--html", "parts/")
    assert (said.code, said.err) == (2, "error: parts/ is a folder: name the file in it\n")


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "cache")


@pytest.mark.dear
def test_an_import_onto_links_in_a_circle(
    convdsl: Convdsl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links stay as they are, and nothing else is written."""
    monkeypatch.chdir(folder)
    assert convdsl("export", "sized.cnn", "--weights", "random:0", "-o", "net.onnx").code == 0
    (folder / "circle.cnn").symlink_to("circle.cnn")
    (folder / "circle.safetensors").symlink_to("circle.safetensors")
    before = files_in(folder)
    for options in (["-o", "circle.cnn"], ["--weights", "circle.safetensors"]):
        said = convdsl("import", "net.onnx", *options)
        assert said.code == 2
        assert "Too many levels of symbolic links" in said.err
        assert "error: cannot write circle." in said.err
        assert files_in(folder) == before


@pytest.mark.dear(share=4)
def test_an_import_for_which_the_disk_has_room_in_part(
    convdsl: Convdsl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert convdsl("export", "small.cnn", "--weights", "random:0", "-o", "net.onnx").code == 0
    before = files_in(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fill = whole_files._fill

    def later(part: Path, *arguments: object, **manner: bool) -> None:
        if ".cnn." in part.name:  # the last one
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        fill(part, *arguments, **manner)

    monkeypatch.setattr(whole_files, "_fill", later)
    try:
        said = convdsl("import", "net.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert said.code == 2
    assert "error: cannot write net.cnn: File too large" in said.err
    assert files_in(folder) == before


def test_what_random_data_cannot_be_is_told_with_a_way(convdsl: Convdsl, tmp_path: Path) -> None:
    net = tmp_path / "two.cnn"
    net.write_text(
        "model one { input x: f32[N, 4]\n input k: i64[N]\n x + (k -> cast(f32) -> unsqueeze([1]))"
        " -> output y }\nmodel two { input x: f32[N, 4]\n x -> relu -> output y }\n"
    )
    said = convdsl("run", f"{net}:one", "--batch", "2", "--data", "random:1")
    assert said.code == 2
    assert "cannot guess sensible i64 values for k" in said.err
    assert "np.savez('data.npz', k=...) writes them, of [2], with the other inputs" in said.err
    said = convdsl("check", str(net))
    assert said.code == 0  # looks at both
    said = convdsl("report", str(net))
    assert said.code == 2
    assert f"choose one: {net}:one, {net}:two" in said.err.replace("\n", " ")
