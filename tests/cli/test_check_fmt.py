"""`convdsl check` and `convdsl fmt`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WRONG = """convdsl 1
model first {
    input x: f32[N, 3, 8, 8]
    x -> conv(4, kernl = 3x3) -> output y
}
model second {
    input x: f32[N, 3, 8, 8]
    x -> relv -> output y
}
"""
UGLY = "convdsl 1\nmodel m{\n input x:f32[N,3,8,8]\n x->relu->output y\n}\n"
TIDY = """convdsl 1
model m {
    input x: f32[N, 3, 8, 8]
    x -> relu -> output y
}
"""


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    (tmp_path / "wrong.cnn").write_text(WRONG)
    return tmp_path / "wrong.cnn"


def test_sound_files(convdsl, folder: Path) -> None:
    said = convdsl("check", *sorted(folder.glob("*.cnn")))
    assert said == (0, "", "note: 3 files checked, nothing found\n")
    assert convdsl("check", "resnet50", "lenet5").code == 0
    assert convdsl("check", folder / "small.cnn", "--format", "json") == (0, "[]\n", "")


def test_findings_of_every_model(convdsl, wrong: Path) -> None:
    said = convdsl("check", wrong)
    assert said.code == 1
    assert said.out.count("error[") == 2
    for text in (f"{wrong}:4:18", "did you mean `kernel`?", f"{wrong}:8:10", "`relu`?", "^^^^^"):
        assert text in said.out
    assert convdsl("check", wrong, "--exit-zero") == (0, said.out, said.err)
    assert "unknown name `relv`" in convdsl("check", f"{wrong}:second").out


def test_what_models_share_is_said_once(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "shared.cnn"
    block = "block b() {\n    in -> relv\n}\n"
    models = "".join(
        f"model {name} {{\n    input x: f32[N, 3]\n    x -> b() -> output y\n}}\n" for name in "pq"
    )
    path.write_text(f"convdsl 1\n{block}{models}")
    assert convdsl("check", path).out.count("error[") == 1


def test_json(convdsl, wrong: Path) -> None:
    said = convdsl("check", wrong, "--format", "json")
    found = json.loads(said.out)
    assert said.code == 1
    assert [(d["line"], d["column"], d["severity"]) for d in found] == [
        (4, 18, "error"),
        (8, 10, "error"),
    ]
    assert all(d["file"] == str(wrong) for d in found)


def test_github_annotations(convdsl, wrong: Path) -> None:
    lines = convdsl("check", wrong, "--format", "github").out.splitlines()
    assert lines[0].startswith(f"::error file={wrong},line=4,col=18,endLine=4,endColumn=23,title=")
    assert lines[0].endswith("%0Ahelp: did you mean `kernel`?")


def test_warnings(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "lost.cnn"
    path.write_text("model m {\n    input x: f32[N, 3]\n    y = x -> linear(4)\n    x -> relu\n}\n")
    said = convdsl("check", path)
    assert said.code == 1
    assert said.out.startswith("warning[W0201]: `y` is bound and never used\n")
    assert convdsl("check", path, "--exit-zero").code == 0
    (found,) = json.loads(convdsl("check", path, "--format", "json").out)
    assert (found["severity"], found["code"], found["line"]) == ("warning", "W0201", 3)
    assert convdsl("check", path, "--format", "github").out.startswith(f"::warning file={path},")
    assert convdsl("report", path).err == ""
    path.write_text("")
    assert "warning[W0601]" in convdsl("check", path).out


def test_syntax_errors_and_empty_files(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "x.cnn"
    path.write_text("convdsl 1\nmodel x {\n")
    said = convdsl("check", path)
    assert said.code == 1
    assert f"{path}:" in said.out
    path.write_text("convdsl 1\nblock b() {\n    in -> relu\n}\n")
    said = convdsl("check", path)
    assert said.code == 0
    path.write_text("convdsl 1\nblock b() {\n    in -> rellu\n}\n")
    said = convdsl("check", path)
    assert said.code == 1
    assert "did you mean `relu`?" in said.out


def test_parameters(convdsl, small: Path) -> None:
    assert convdsl("check", small, "--set", "classes=3").code == 0
    said = convdsl("check", small, "--set", "clases=3")
    assert said.code == 1
    assert "did you mean `classes`?" in said.out


def test_missing_and_special_files_are_failures(convdsl, tmp_path: Path) -> None:
    assert convdsl("check", tmp_path / "missing.cnn").code == 2
    assert convdsl("check", tmp_path).code == 2


# fmt


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    (tmp_path / "ugly.cnn").write_text(UGLY)
    return tmp_path / "ugly.cnn"


def test_fmt_rewrites_in_place(convdsl, ugly: Path) -> None:
    ugly.chmod(0o604)
    assert convdsl("fmt", ugly) == (0, "", f"note: formatted {ugly}\n")
    assert ugly.read_text() == TIDY
    assert ugly.stat().st_mode & 0o777 == 0o604
    assert convdsl("fmt", ugly) == (0, "", "note: nothing to change\n")


def test_fmt_follows_links(convdsl, ugly: Path, tmp_path: Path) -> None:
    (link := tmp_path / "link.cnn").symlink_to(ugly)
    assert convdsl("fmt", link).code == 0
    assert link.is_symlink()
    assert ugly.read_text() == TIDY


def test_fmt_check_and_diff_write_nothing(convdsl, ugly: Path, small: Path) -> None:
    where = f"note: {ugly}:2: should read `model m {{`; 3 lines would change\n"
    assert convdsl("fmt", "--check", ugly, small) == (1, f"{ugly}\n", where)
    assert convdsl("fmt", "--check", ugly, "--quiet") == (1, f"{ugly}\n", "")
    said = convdsl("fmt", "--diff", ugly)
    assert said.code == 1
    assert "-model m{" in said.out
    assert "+model m {" in said.out
    assert ugly.read_text() == UGLY
    assert convdsl("fmt", "--check", small) == (0, "", "")


def test_fmt_reads_stdin(convdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(UGLY))
    assert convdsl("fmt", "-", "--quiet") == (0, TIDY, "")


def test_fmt_of_broken_text_changes_nothing(convdsl, ugly: Path) -> None:
    ugly.write_text("convdsl 1\nmodel {{\n")
    said = convdsl("fmt", ugly)
    assert said.code == 2
    assert said.err.startswith("error[")
    assert ugly.read_text() == "convdsl 1\nmodel {{\n"
    assert convdsl("fmt", ugly.parent / "missing.cnn").code == 2


@pytest.mark.dear(share=4)
def test_check_and_load_need_no_compiler(small: Path) -> None:
    asked = ("networkx", "llvmlite", "rich", "convdsl.driver", "convdsl.lowering")
    code = (
        "import sys, convdsl; from convdsl.cli import main\n"
        f"assert main(['check', {str(small)!r}]) == 0\n"
        f"assert convdsl.load({str(small)!r}).outputs\n"
        f"print([name for name in {asked} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("data", [b"\xff\xfe\x00model", bytes(range(128, 256))])
def test_what_is_no_text_is_told_of_the_standard_input(data: bytes) -> None:
    command = [sys.executable, "-m", "convdsl", "fmt", "-"]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: the standard input is not UTF-8 text\n"


@pytest.mark.dear(share=4)
def test_the_standard_input_keeps_its_letters() -> None:
    body = "    input x: f32[N, 3]\n    x -> relu -> output y\n"
    text = f"# \u00c4pfel \u65e5\u672c\nmodel m {{\n{body}}}\n"
    command = [sys.executable, "-m", "convdsl", "fmt", "-"]
    lines = text.replace("\n", "\r\n").encode()
    for given in (text.encode(), lines):
        done = subprocess.run(
            command, input=given, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C"}
        )
        assert done.stdout.decode() == text


AUXILIARY = """model net(deep = true) {
    input x: f32[N, 4]
    x -> linear(3) -> output near
    if deep { x -> linear(3) -> output far }
}
train { loss = mse(near, t) + mse(far, u) }
"""


def test_settings_of_training(convdsl, tmp_path: Path) -> None:
    """They stand over the file's, as when it trains."""
    net = tmp_path / "net.cnn"
    net.write_text(AUXILIARY)
    said = convdsl("check", net, "--set", "deep=false")
    assert (said.code, "W0903" in said.out, "--set 'train.loss=mse(near" in said.out) == (
        1,
        True,
        True,
    )
    loss = ("--set", "deep=false", "--set", "train.loss=mse(near, t)")
    assert convdsl("check", net, *loss).code == 0
    assert convdsl("check", net, "--set", "train.epochs=3").code == 0
    assert "did you mean `epochs`?" in convdsl("check", net, "--set", "train.epoch=3").out
    assert convdsl("report", net, "--set", "deep=false").code == 0
    assert convdsl("report", net, "--training", "--batch", "2", *loss).code == 0
    said = convdsl("report", net, "--training", "--batch", "2", "--set", "deep=false")
    assert (said.code, "compares output far" in said.err) == (2, True)
