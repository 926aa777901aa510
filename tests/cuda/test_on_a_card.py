"""benchmarks/on_a_card.sh from its first line to its last, each part, on a machine that has nothing
but what it asks for: a card that is not there, packages that are installed besides out of sight,
and pure-Python ones as wheels in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = ("lark", "pytest", "pluggy", "iniconfig", "packaging", "pygments", "pytest_xdist",
          "execnet")  # fmt: skip
BESIDES = ("numpy", "networkx", "llvmlite", "torch", "typing_extensions", "sympy", "mpmath",
           "filelock", "jinja2", "markupsafe", "fsspec", "torchgen", "functorch")  # fmt: skip
"""What there is, with what PyTorch asks for."""

CUPY = """
import sys
from cuda.fake_driver import Card, Fake, compile_source
from convdsl.backends.cuda import nvrtc
nvrtc.compile_source = compile_source
nvrtc.nvrtc_version = lambda: "NVRTC of nobody"
sys.modules["cupy"] = Fake(Card()).module()
"""

BARE = f"""
import importlib.machinery, sys

class Bare:
    def find_spec(self, name, path=None, target=None):
        if path is not None or name in {BESIDES}:
            return None
        here = [place for place in sys.path if "site-packages" not in place]
        others = [place for place in sys.path if "site-packages" in place]
        find = importlib.machinery.PathFinder.find_spec
        if find(name, others) and not find(name, here):
            raise ModuleNotFoundError(f"a bare machine has no {{name}}", name=name)
        return find(name, here) if find(name, others) else None

sys.meta_path.insert(0, Bare())
"""

SANITIZER = """#!/usr/bin/env bash
echo "========= COMPUTE-SANITIZER $*"
while [ "${1#--}" != "$1" ]; do
    case $1 in --target-processes | --tool | --error-exitcode) shift 2 ;; *) exit 1 ;; esac
done
exec "$@"
"""

TINY = """
model tiny {
    input image: f32[N, 1, 6, 6]
    image -> conv(4, 3x3) -> relu -> flatten -> linear(3) -> output logits
}
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels and programs of a machine with a card."""
    place = tmp_path_factory.mktemp("machine")
    (place / "wheels").mkdir()
    (place / "bin").mkdir()
    for name in WHEELS:
        made = distribution(name)
        with zipfile.ZipFile(place / "wheels" / f"{name}-{made.version}-any.whl", "w") as wheel:
            for file in made.files or ():
                if ".." not in file.parts and "__pycache__" not in file.parts:
                    wheel.write(str(file.locate()), str(file))
    with zipfile.ZipFile(place / "wheels" / "card.whl", "w") as card:
        card.writestr("cupy/__init__.py", CUPY)
        card.writestr("sitecustomize.py", BARE)
    for name, text in (("nvidia-smi", "#!/bin/sh\n"), ("compute-sanitizer", SANITIZER)):
        (place / "bin" / name).write_text(text)
        (place / "bin" / name).chmod(0o755)
    (place / "tiny.cnn").write_text(TINY)
    return place


def environment(machine: Path, out: Path, **env: str) -> dict[str, str]:
    """Of a machine with a card."""
    around = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}  # of xdist
    given = {**around, "PYTHON": sys.executable, "OUT": str(out), **env}
    given["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # of plugins that are out of sight
    given["PATH"] = f"{machine / 'bin'}:{given['PATH']}"
    return given


def run(machine: Path, out: Path, part: str, *more: str, code: int = 0, **env: str) -> Any:
    """What the part leaves as JSON."""
    given = environment(machine, out, **env)
    script = [str(ROOT / "benchmarks" / "on_a_card.sh"), "--part", part]
    command = [*script, "--wheels", str(machine / "wheels"), "--", *more]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert sorted(file.name for file in out.iterdir()) == [f"{part}.json", f"{part}.log"]
    assert done.returncode == code, done.stdout + done.stderr
    told = json.loads((out / f"{part}.json").read_text())
    assert (told["part"], told["exit"]) == (part, code)
    return told


sometimes = pytest.mark.ladder(share=3)  # seconds each


@pytest.mark.dear
@sometimes
def test_the_suite(machine: Path, tmp_path: Path) -> None:
    told = run(machine, tmp_path, "tests", "-k", "test_forward and relu6")
    assert told["tests"] == {"passed": 1, "failed": [], "skipped": [], "not run": []}


@pytest.mark.dear
@sometimes
def test_what_there_was_no_time_for(machine: Path, tmp_path: Path) -> None:
    for limit in (6, 12, 24, 48):  # the first one in which tests are collected, whoever else works
        told = run(machine, tmp_path, "tests", "-k", "test_forward", code=124, LIMIT=str(limit))
        if "tests" in told:
            break
    assert told["tests"]["not run"]
    assert not told["tests"]["failed"]


@pytest.mark.dear
@sometimes
def test_the_sanitizer(machine: Path, tmp_path: Path) -> None:
    told = run(machine, tmp_path, "sanitizer", "-k", "test_forward and relu6")
    for kind in ("plain", "memcheck", "racecheck", "initcheck"):
        assert told[kind] == {"passed": 1, "failed": [], "skipped": [], "not run": []}
    log = (tmp_path / "sanitizer.log").read_text()
    assert log.count("COMPUTE-SANITIZER") == 3


@pytest.mark.dear
@sometimes
@pytest.mark.parametrize("part", ["speed", "training"])
def test_the_benchmarks(machine: Path, tmp_path: Path, part: str) -> None:
    """Our own peer; the others say why they cannot."""
    small = ("--models", str(machine / "tiny.cnn"), "--batches", "2", "--precisions", "highest")
    told = run(machine, tmp_path, part, *small, "--seconds", "0")
    (row,) = told["rows"]
    assert row["training"] == (part == "training")
    assert row["peers"]["convdsl"]["min ms"] > 0
    assert {"torch", "torch compiled"} <= row["cannot"].keys()
    assert told["left out"] == []


@pytest.mark.dear
@sometimes
def test_what_has_been_seen_is_told_while_a_part_runs(machine: Path, tmp_path: Path) -> None:
    """Whoever ends it, however, has what was done until then."""
    script = ["bash", str(ROOT / "benchmarks" / "on_a_card.sh"), "--part", "tests"]
    command = [*script, "--wheels", str(machine / "wheels"), "--", "-k", "test_forward"]
    place = tmp_path / "tests.json"
    with subprocess.Popen(
        command, env=environment(machine, tmp_path), stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:  # fmt: skip
        try:
            while "tests" not in (told := json.loads(place.read_text()) if place.exists() else {}):
                assert running.poll() is None, "it ended before it told anything"
                time.sleep(0.2)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
    assert (told["part"], told["exit"]) == ("tests", None)
    assert told["tests"]["not run"]


@pytest.mark.dear
@sometimes
def test_all_parts(machine: Path, tmp_path: Path) -> None:
    """The first of each, one after the other, within the time that there is for all of them."""
    command = ["bash", str(ROOT / "benchmarks" / "on_a_card.sh"), "--part", "all"]
    wheels = ["--wheels", str(machine / "wheels")]
    env = environment(machine, tmp_path, LIMIT="8")
    subprocess.run([*command, *wheels], env=env, capture_output=True, text=True, check=False)
    for part in ("tests", "speed", "training", "sanitizer"):
        told = json.loads((tmp_path / f"{part}.json").read_text())
        assert told["part"] == part
        assert isinstance(told["exit"], int)
        assert (tmp_path / f"{part}.log").exists()


def test_unknown_parts(machine: Path, tmp_path: Path) -> None:
    script = ["bash", str(ROOT / "benchmarks" / "on_a_card.sh")]
    of_all = ["--part", "all", "--", "-k", "relu"]
    for wrong in (["--part", "nonesuch"], ["--speed"], ["--part"], of_all):
        done = subprocess.run([*script, *wrong], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: ")
