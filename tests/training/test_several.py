"""Jobs of two processes, by MPI: the run of one; killed, interrupted, failing, resumed."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convdsl.cli import main, several
from convdsl.diagnostics import InputError
from convdsl.ranks import launching, mpi
from convdsl.training.checkpoint import read_checkpoint

pytest.importorskip("mpi4py")

NET = """
model small {
    input image: f32[N, 1, 8, 8]
    x = image -> conv(4, 3x3, bias = false) -> bn -> relu -> dropout(0.2)
    x -> flatten -> linear(96) -> relu -> linear(3) -> output logits
}
train {
    optimizer = sgd(momentum = 0.9, lr = 0.05)
    sync_batch_norm = true
    val_fraction = 0.0
    epochs = 4
    batch = 8
}
"""
SOON = 30.0
"""Seconds within which a job has ended whose rank was killed: on a machine with much else to do."""

# Runs `convdsl train` as two ranks, with a checkpoint after every step.
PROGRAM = """
import sys
from pathlib import Path
from convdsl.cli import main, several
from convdsl.ranks.launching import launch
from convdsl.ranks.started import started
from convdsl.training import loop
loop.EVERY = 0.0
if started():
    sys.exit(main(sys.argv[2:]))
sys.exit(several.code_of(launch([sys.executable, *sys.argv], 2), Path(sys.argv[1])))
"""
KILLS = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("several")
    (made / "net.cnn").write_text(NET)
    (made / "program.py").write_text(PROGRAM)
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 60)
    x = draw.integers(0, 120, (60, 8, 8), dtype=np.uint8)
    for number, kind in enumerate(y):
        x[number, 3 * kind : 3 * kind + 2] += 100
    np.savez(made / "data.npz", x=x, y=y)
    return made


def words(place: Path, out: str, *more: str) -> list[str]:
    named = [str(place / "net.cnn"), "--data", str(place / "data.npz"), "--out", str(place / out)]
    return ["train", *named, "--threads", "1", *more]


def convdsl(*given: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "convdsl", *given],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip


def state(folder: Path) -> dict[str, Any]:
    return dict(read_checkpoint(folder / "checkpoint").states)


@pytest.mark.dear
def test_two_processes_are_one(place: Path) -> None:
    """One line an epoch, one note; the same figures and weights as one process, to 1e-5."""
    measured = ("--epochs", "2", "--val-fraction", "0.3")
    assert main([*words(place, "one", *measured), "--quiet"]) == 0
    run = convdsl(*words(place, "two", "--nproc", "2", *measured))
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("epoch 1/2") == run.stderr.count("samples to train on") == 1
    kept = [read_checkpoint(place / name / "checkpoint") for name in ("one", "two")]
    for one, two in zip(*(each.progress.history for each in kept), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
        assert two["val_accuracy"] == one["val_accuracy"]
    for key, array in kept[0].states.items():
        np.testing.assert_allclose(kept[1].states[key], array, rtol=1e-4, atol=1e-5)


@pytest.mark.dear
def test_sums_and_messages(place: Path) -> None:
    """Of more than a message, of several types, several under way; what is said to all."""
    script = place / "sums.py"
    script.write_text("""
import numpy as np
from convdsl.ranks.mpi import open_ranks
ranks = open_ranks()
assert ranks.size == 3 and sorted(ranks.gather(ranks.rank)) == [0, 1, 2]
arrays = [np.arange(n, dtype=t) % 97 * (ranks.rank + 1)
          for n, t in ((1, "i8"), (3_000_001, "f4"), (0, "f4"), (5, "f8"), (700_000, "f8"))]
pending = [ranks.all_reduce(array) for array in arrays]
for one in pending:
    one.wait()
assert all((a == np.arange(a.size, dtype=a.dtype) % 97 * 6).all() for a in arrays)
noise = np.random.default_rng(ranks.rank).standard_normal(100_000).astype("f4")
ranks.all_reduce(noise).wait()
assert len({n.tobytes() for n in ranks.gather(noise)}) == 1
assert ranks.broadcast({"rank": ranks.rank}) == {"rank": 0}
ranks.barrier()
""")
    assert launching.launch([sys.executable, str(script)], 3).code == 0


@pytest.fixture(scope="module")
def uninterrupted(place: Path) -> str:
    """What the program ends in when it is left alone."""
    subprocess.run(command(place, "whole"), check=True, capture_output=True, timeout=120)
    return digest(place / "whole")


def command(place: Path, out: str, *more: str) -> list[str]:
    return [sys.executable, str(place / "program.py"), str(place / out), *words(place, out, *more)]


def digest(folder: Path) -> str:
    files = (folder / "weights.safetensors", folder / "checkpoint/state.safetensors")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def ranks_of(out: Path) -> dict[int, int]:
    """Processes of a job by their ranks."""
    found: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            said = (entry / "environ").read_bytes().split(b"\0")
            names = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [v for v in said if v.startswith(b"PMI_RANK=")]
        if rank and str(out).encode() in names:
            found[int(rank[0].split(b"=")[1])] = int(entry.name)
    return found


@pytest.mark.dear
@pytest.mark.drawn(share=KILLS)
@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_rank_ends_the_job_and_nothing_is_lost(
    place: Path, uninterrupted: str, number: int
) -> None:
    """At any moment of a run: while ranks start, compile, step, write. Resumed, it ends in the bits
    of a run that nobody killed."""
    draw, out = random.Random(number), f"killed{number}"
    job = subprocess.Popen(command(place, out), stderr=subprocess.PIPE, text=True)
    kept = place / out / "checkpoint/state.safetensors"
    while number % 5 and not kept.exists():  # every fifth before there is anything to lose
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.3))
    there: dict[int, int] = {}
    while len(there) < 2 and job.poll() is None:
        there = ranks_of(place / out)
    if job.poll() is None:
        os.kill(there[draw.randrange(2)], signal.SIGKILL)
    begun = time.monotonic()
    _, said = job.communicate(timeout=120)
    if job.returncode:  # it had not ended by itself a moment before
        assert time.monotonic() - begun < SOON
        assert job.returncode == 2
        assert said.count("error:") == 1
        assert "was killed (Killed)" in said
        assert "Traceback" not in said
        assert "BAD TERMINATION" not in said
        assert ("--resume" if kept.exists() else "no checkpoint") in said
    more = ["--resume"] if kept.exists() else ["--overwrite"]
    if kept.exists():
        read_checkpoint(place / out / "checkpoint")
    subprocess.run(command(place, out, *more), check=True, capture_output=True, timeout=120)
    assert digest(place / out) == uninterrupted
    assert not ranks_of(place / out)


@pytest.mark.dear
@pytest.mark.parametrize(
    "number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))]
)
def test_a_killed_parent_leaves_nobody_behind(place: Path, uninterrupted: str, number: int) -> None:
    """The ranks of a job whose starter is killed stop, with a checkpoint that goes on to the bits
    of a run that nobody killed."""
    draw, out = random.Random(number), f"orphan{number}"
    job = subprocess.Popen(command(place, out), stderr=subprocess.DEVNULL)
    kept = place / out / "checkpoint/state.safetensors"
    while number % 3 < 2 and not kept.exists() and job.poll() is None:
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.2))
    job.kill()
    job.wait()
    begun = time.monotonic()
    while ranks_of(place / out):
        assert time.monotonic() - begun < SOON
        time.sleep(0.05)
    if kept.exists():
        read_checkpoint(place / out / "checkpoint")
    more = ["--resume"] if kept.exists() else ["--overwrite"]
    subprocess.run(command(place, out, *more), check=True, capture_output=True, timeout=120)
    assert digest(place / out) == uninterrupted


@pytest.mark.dear
def test_ctrl_c_stops_all_after_one_step(place: Path, uninterrupted: str) -> None:
    out = place / "stopped"
    job = subprocess.Popen(command(place, "stopped"), stderr=subprocess.PIPE, text=True)
    while not (out / "checkpoint/state.safetensors").exists():
        time.sleep(0.005)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    if job.returncode:
        assert job.returncode == 130
        assert said.count("stopped; `--resume` goes on from") == 1
        assert "Traceback" not in said
        subprocess.run(command(place, "stopped", "--resume"), check=True, capture_output=True)
    assert digest(out) == uninterrupted


@pytest.mark.dear(share=4)
def test_a_bad_file_is_one_message(place: Path) -> None:
    """Whichever rank reads it."""
    folder = place / "images"
    for kind in ("a", "b"):
        (folder / kind).mkdir(parents=True)
        for number in range(12):
            Image.new("L", (8, 8), number).save(folder / kind / f"{number}.png")
    (folder / "b" / "7.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    given = ["train", str(place / "net.cnn"), "--data", str(folder), "--out", str(place / "bad")]
    run = convdsl(*given, "--nproc", "2", "--threads", "1", "--val-fraction", "0")
    assert run.returncode == 2
    assert run.stderr.count("error:") == 1, run.stderr
    assert "7.png" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_failing_rank_is_heard_by_rank_0(place: Path) -> None:
    script = place / "fails.py"
    script.write_text("""
import sys
import numpy as np
from convdsl.diagnostics import InputError
from convdsl.ranks.job import take_part
from convdsl.ranks.mpi import open_ranks
ranks = open_ranks()
def work():
    if ranks.rank == 1:
        raise ValueError("nobody expects this")
    ranks.barrier()
    return 0
try:
    sys.exit(take_part(ranks, work))
except Exception as error:
    print(f"rank {ranks.rank} says: {error}", file=sys.stderr)
    sys.exit(2)
""")
    starts = (
        "import sys; from convdsl.ranks.launching import launch; "
        "sys.exit(launch([sys.executable, sys.argv[1]], 2).code)"
    )
    started = [sys.executable, "-c", starts, str(script)]
    run = subprocess.run(started, capture_output=True, text=True, timeout=60)
    said = "rank 0 says: rank 1: a bug in convdsl: ValueError: nobody expects this\n"
    assert (run.returncode, run.stderr) == (2, said)


def test_a_line_that_was_cut_off_ends_all_the_same() -> None:
    """A rank writes a line's end on its own, and mpiexec may kill it before."""
    heard, target = launching._Heard(), io.StringIO()
    heard.hand_on(io.StringIO("one\n\ntwo"), target)
    assert target.getvalue() == "one\n\ntwo\n"


def test_without_the_extra(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(launching, "find_spec", lambda name: None)
        assert main(words(place, "none", "--nproc", "2")) == 2
        assert "pip install 'convdsl[mpi]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(InputError, match=r"pip install 'convdsl\[mpi\]'"):
        mpi.open_ranks()


@pytest.mark.dear
def test_what_does_not_go_together(place: Path) -> None:
    foreign = convdsl(*words(place, "odd"), OMPI_COMM_WORLD_SIZE="4")
    assert foreign.returncode == 2
    assert "4 processes were started by an mpiexec of another MPI" in foreign.stderr
    look = convdsl(*words(place, "odd", "--nproc", "2", "--find-lr"))
    assert (look.returncode, look.stderr.count("error:")) == (2, 1)
    assert "--find-lr and --overfit look at one process" in look.stderr
    few = convdsl(*words(place, "odd", "--nproc", "2", "--batch", "1"))
    assert few.returncode == 2
    assert few.stderr.count("a batch of 1 has no sample for each of 2 processes") == 1
    assert not (place / "odd").exists()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(place: Path) -> Iterator[None]:
    yield
    time.sleep(0.05)
    left = [pid for path in place.iterdir() for pid in ranks_of(path).values()]
    assert not left


def test_a_batch_is_for_so_many_before_any_is_started(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hundreds of processes, each with a package loaded, are memory that others need."""
    started: list[int] = []
    monkeypatch.setattr(several, "launch", lambda _, count: started.append(count))
    assert main(words(place, "none", "--nproc", "500", "--batch", "16")) == 2
    assert "a batch of 16 has no sample for each of 500 processes" in capsys.readouterr().err
    assert not started
