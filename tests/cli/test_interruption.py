"""Ctrl-C at drawn moments: one line, code 130, no half file; in Python, no lock held after it.

A few in CI, as many as `CONVDSL_INTERRUPTS` says otherwise.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convdsl.runtime.whole_files import PART, abandoned

COUNT = int(os.environ.get("CONVDSL_INTERRUPTS", "2"))
TEXT = """
model m {
    input x: f32[N, 3, 16, 16]
    x -> conv(8, 3x3) -> relu -> maxpool(2x2) -> conv(8, 3x3) -> relu -> output y
}
"""


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)}


def left_behind(folder: Path) -> list[Path]:
    """Parts of files that somebody gave up."""
    return [path for path in folder.rglob("*") if path.name.endswith(PART) or abandoned(path)]


def interrupted(command: list[str], folder: Path, after: float) -> tuple[int, str, str]:
    """What a command says that is interrupted after some seconds."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env=environment(folder),
    )  # fmt: skip
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=120)
    return process.returncode, said, complained


def starts(folder: Path) -> float:
    """Seconds until Python itself is there, and runs something of ours."""
    begin = time.monotonic()
    code = "import convdsl.cli.interruption as i; i.ends_the_process(); print(1)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(folder),
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return time.monotonic() - begin


@pytest.mark.dear
@pytest.mark.drawn(share=2)
@pytest.mark.parametrize("what", ["compile", "export"])
def test_a_command_ends_with_130_and_one_line(tmp_path: Path, what: str) -> None:
    """Or, where the signal came too late, as if it had not come; files are whole or not there."""
    (tmp_path / "m.cnn").write_text(TEXT)
    output = tmp_path / ("m.cdsl" if what == "compile" else "m.onnx")
    command = [sys.executable, "-m", "convdsl", what, "m.cnn", "-o", output.name]
    command += ["--weights", "random:0"]
    least = starts(tmp_path)
    begin = time.monotonic()
    subprocess.run(command, check=True, cwd=tmp_path, env=environment(tmp_path),
                   capture_output=True)  # fmt: skip
    whole, most = output.read_bytes(), time.monotonic() - begin
    draw, codes = random.Random(what), []
    for _ in range(COUNT):
        output.unlink(missing_ok=True)
        at = draw.uniform(least, 1.2 * most)
        code, said, complained = interrupted(command, tmp_path, at)
        codes.append(code)
        assert code in (0, 130), f"at {at:.3f} of {most:.3f} s: {code}, {complained}"
        assert "Traceback" not in said + complained
        assert code == 0 or complained.splitlines()[-1] == "interrupted", complained
        assert not output.exists() or len(output.read_bytes()) == len(whole)
        assert not left_behind(tmp_path)
    assert 130 in codes
    subprocess.run(command, check=True, cwd=tmp_path, env=environment(tmp_path),
                   capture_output=True)  # fmt: skip
    assert len(output.read_bytes()) == len(whole)


PROGRAM = """
import os, random, signal, sys, threading, time
import numpy as np
import convdsl
from convdsl import forking
from convdsl.runtime import whole_files
from convdsl.runtime.cpu.team import process

draw, count = random.Random(sys.argv[1]), int(sys.argv[2])
text = open("m.cnn").read()
x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), "f4")
wanted = convdsl.compile(convdsl.parse(text), "random:0", threads=2)(x)
torn = 0
for number in range(count):
    network = convdsl.compile(convdsl.parse(text), "random:0", threads=2)
    threading.Timer(draw.uniform(0, 0.08), os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            fresh = convdsl.compile(convdsl.parse(text), "random:0", threads=2)
            fresh(x)
            network(np.concatenate([x] * draw.randint(1, 9)))
            fresh.save("z.cdsl", N=1)
    except KeyboardInterrupt:
        torn += 1
    for one in (network, fresh):
        assert not one._lock.locked() and not one._making, one._making
    assert not process.helpers._lock.locked()
    assert not whole_files._written
    found = []
    other = threading.Thread(target=lambda: found.append(network(x)))  # nobody waits for ever
    other.start()
    other.join(60)
    assert len(found) == 1 and np.array_equal(found[0], wanted)
    child = threading.Thread(target=lambda: found.append(os.fork()))   # nor a fork elsewhere
    child.start()
    child.join(60)
    if found[1] == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(found[1], 0)[1]) == 0
    import gc
    assert gc.isenabled() and sys.getrecursionlimit() == 1000
print(torn)
"""


@pytest.mark.dear
def test_a_program_goes_on(tmp_path: Path) -> None:
    """Interrupted while it parses, compiles, runs or writes: all it has still works."""
    (tmp_path / "m.cnn").write_text(TEXT)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, "7", str(2 * COUNT)], timeout=170,
        capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > COUNT  # Python swallows those that fall into a finaliser
    assert not left_behind(tmp_path)
