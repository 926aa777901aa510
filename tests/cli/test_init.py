"""`convdsl init`: what it writes is checked, tested and trained as its user would."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convdsl.cli.init import TEMPLATES


def command(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("template", TEMPLATES)
def test_nothing_is_wrong_with_it(
    convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.chdir(tmp_path)
    convdsl("init", "--name", "net", "--template", template)
    assert convdsl("check") == (0, "", "note: 1 file checked, nothing found\n")
    assert convdsl("fmt", "--check") == (0, "", "")
    # the budget is near what there is: half of it is too little
    budget = Path("convdsl.toml").read_text()
    for name, unit in (("params", "K"), ("macs", "M")):
        found = re.search(rf'{name} = "(\d+){unit}"', budget)
        assert found is not None
        half = f'{name} = "{int(found[1]) // 2}{unit}"'
        Path("convdsl.toml").write_text(budget.replace(found[0], half))
        assert convdsl("check").code == 1


@pytest.mark.dear
@pytest.mark.parametrize(
    "template",
    [t if t == "classifier" else pytest.param(t, marks=pytest.mark.slow) for t in TEMPLATES],
)
def test_the_project_does_what_its_readme_says(
    convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    folder = tmp_path / "my first-net"
    said = convdsl("init", folder, "--template", template)
    assert said.code == 0
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == {
        "my_first_net.cnn", "convdsl.toml", "data.py", "test_my_first_net.py", "README.md",
        ".gitignore", ".pre-commit-config.yaml", ".github/workflows/convdsl.yml",
    }  # fmt: skip
    assert {Path(line).relative_to(folder).as_posix() for line in said.out.splitlines()} == written
    assert said.err.startswith(f"note: next: cd {shlex.quote(str(folder))} && python data.py")
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not any("@" in text.replace("checkout@", "").replace("python@", "") for text in texts)
    assert not any("template" in text for text in texts)

    def done(*words: str) -> str:
        said = convdsl(*words)
        assert said.code == 0, said.err
        return said.out + said.err

    monkeypatch.chdir(folder)
    command(folder, "data.py")
    assert "nothing found" in done("check")
    done("fmt", "--check")
    net = "my_first_net.cnn"
    done("train", net, "--data", "data.npz", "--out", "run", "--epochs", "1", "-q")
    weights = ("--weights", "run/weights.safetensors")
    assert "loss" in done("eval", net, *weights, "--data", "data.npz")
    done("compile", net, *weights, "-o", "my_first_net.cdsl")
    assert "whole" in done("check", "my_first_net.cdsl")
    assert "3 passed" in command(folder, "-m", "pytest", "-q", "-p", "no:asyncio", "--rootdir=.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "metric", "least"),
    [("classifier", "accuracy", 0.95), ("segmentation", "intersection_over_union", 0.8)],
)
def test_it_learns(
    convdsl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    template: str,
    metric: str,
    least: float,
) -> None:
    monkeypatch.chdir(tmp_path)
    convdsl("init", "--name", "net", "--template", template)
    command(tmp_path, "data.py")
    assert convdsl("train", "net.cnn", "--data", "data.npz", "--out", "run").code == 0
    lines = Path("run/log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])[f"val_{metric}"] >= least


@pytest.mark.parametrize("name", ["data", "image", "logits", "classes", "width", "x", "range"])
def test_names_of_what_is_inside_will_do(
    convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert convdsl("init", "--name", name).code == 0
    assert convdsl("check").out == ""


def test_nothing_is_written_over(convdsl, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "convdsl.toml").symlink_to("nowhere")
    said = convdsl("init", tmp_path, "--name", "net")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        f"error: {tmp_path} has convdsl.toml, README.md already; nothing was written\n"
    )
    assert (tmp_path / "README.md").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "convdsl.toml"]


def test_a_folder_with_other_files_will_do(
    convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert convdsl("init", "--name", "net").code == 0
    assert Path("net.cnn").exists()
    assert convdsl("init", "--name", "other").code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--name", "1st"), "--name 1st: a network is called by letters, digits and `_`"),
        (("--name", "a-b"), "letters, digits"),
        (("--name", "../x"), "letters, digits"),
        (("--name", "model"), "model means something else in the language; say another --name"),
        (("--name", "N"), "N means something else"),
        (("relu",), "relu means something else"),
        (("x/123",), "say --name NAME"),
        (("--template", "clasifier"), "did you mean classifier?"),
        (("file.txt",), "file.txt"),
    ],
)
def test_mistakes(
    convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("")
    said = convdsl("init", *arguments)
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_file_is_no_folder(convdsl, tmp_path: Path) -> None:
    (tmp_path / "net.cnn").write_text("mine")
    said = convdsl("init", tmp_path / "net.cnn", "--name", "net")
    assert (said.code, said.out) == (2, "")
    assert said.err == f"error: {tmp_path}/net.cnn is a file; a project is begun in a folder\n"


@pytest.mark.parametrize("room", [100, 700, 1500])
def test_a_full_disk_leaves_nothing_of_a_project(
    convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """The first file, or a later and longer one, does not fit."""
    monkeypatch.chdir(tmp_path)
    Path("old.txt").write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        new = convdsl("init", "deep/er/net")
        here = convdsl("init", "--name", "net")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    for said in (new, here):
        assert said.code == 2
        assert re.search(
            r"error: cannot write \S*(net\.cnn|\.toml|\.py|\.md|\.yml): File", said.err
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["old.txt"]


@pytest.mark.dear
def test_ctrl_c_waits_for_a_project_that_is_being_written(tmp_path: Path) -> None:
    """Asked for after any of the files, it comes once all are there."""
    script = (
        "import os, signal, sys; from convdsl import cli\n"
        "from convdsl.cli import console, init, interruption\n"
        "interruption.ends_the_process()\n"
        "put, count = init._put, int(sys.argv[1])\n"
        "def interrupted(place, text):\n"
        "    global count\n"
        "    put(place, text)\n"
        "    count -= 1\n"
        "    count or os.kill(os.getpid(), signal.SIGINT)\n"
        "init._put = interrupted\n"
        "cli.main(['init', sys.argv[2]])\n"
    )
    for count in (1, 4):
        folder = tmp_path / f"net{count}"
        done = subprocess.run(
            [sys.executable, "-c", script, str(count), str(folder)], capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
        assert len([path for path in folder.rglob("*") if path.is_file()]) == 8
