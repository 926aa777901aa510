"""Whole runs: resumed ones end as uninterrupted ones do, whatever stopped them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import convdsl
from convdsl.diagnostics import InputError
from convdsl.training.checkpoint import read_checkpoint, write_arrays
from convdsl.training.fit import Trained, prepare, train
from convdsl.training.loop import Watch

Array = np.ndarray[Any, Any]

SMALL = """
model small {
    input image: f32[N, 1, 8, 8]
    image -> conv(4, 3x3) -> bn -> relu -> dropout(0.2) -> flatten -> linear(3) -> output logits
}
train {
    loss = cross_entropy(logits, label)
    optimizer = adamw(lr = 0.01)
    augment = [random_crop(8, pad = 1), horizontal_flip]
    epochs = 3
    batch = 8
}
"""
KILLS = int(os.environ.get("CONVDSL_KILLS", "3"))


def samples(count: int = 50, seed: int = 0) -> dict[str, Array]:
    """A bright band at the top, in the middle or at the bottom, in noise."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, count)
    x = draw.integers(0, 120, (count, 8, 8), dtype=np.uint8)
    for number, kind in enumerate(y):
        x[number, 3 * kind : 3 * kind + 2] += 100
    return {"x": x, "y": y}


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights and of the checkpoint."""
    files = ("weights.safetensors", "checkpoint/state.safetensors")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def run(out: Path | None, watch: Watch | None = None, **options: Any) -> Trained:
    data = options.pop("data", samples())
    return train(convdsl.parse(SMALL), data, out=out, threads=1, watch=watch, **options)


class Stopping(Watch):
    """Asks the process to stop, as Ctrl-C does, after some steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, progress: Any, loss: float, rate: float) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.dear
def test_it_learns_and_says_so(tmp_path: Path) -> None:
    trained = run(tmp_path / "run", epochs=8, val_fraction=0.3, data=samples(120))
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert {"train_loss", "val_loss", "val_accuracy", "seconds"} <= lines[0].keys()
    assert max(line["val_accuracy"] for line in lines) > 0.8
    assert lines[-1]["train_loss"] < 0.5 * lines[0]["train_loss"]
    best = max(trained.history, key=lambda record: record["val_accuracy"])
    logits = trained.network(np.zeros((1, 1, 8, 8), "f4"))
    assert logits.shape == (1, 3)
    assert best["val_accuracy"] == max(line["val_accuracy"] for line in lines)


@pytest.mark.dear
@pytest.mark.parametrize("after", [1, 5, 6, 11])
def test_interrupted_and_resumed_as_if_nothing_had_been(tmp_path: Path, after: int) -> None:
    """In the middle of an epoch, at its last batch, in a later one."""
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", Stopping(after))
    kept = read_checkpoint(tmp_path / "parts/checkpoint").progress
    assert kept.epoch * 5 + kept.batch == after
    run(tmp_path / "parts", resume=True)
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")


PROGRAM = """
import sys
import numpy as np
from convdsl.loading import load
from convdsl.training import loop
from convdsl.training.fit import train
loop.EVERY = 0.0  # a checkpoint after every step: as many writes to be killed in as there can be
resume = "resume" in sys.argv
train(load(sys.argv[1]), sys.argv[2], out=sys.argv[3], threads=1, resume=resume, epochs=4)
"""


@pytest.fixture(scope="module")
def to_kill(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    """A command that trains into the folder named behind it, and what it ends in when it is left
    alone."""
    place = tmp_path_factory.mktemp("killed")
    (place / "small.cnn").write_text(SMALL)
    np.savez(place / "data.npz", **samples())
    command = [sys.executable, "-c", PROGRAM, str(place / "small.cnn"), str(place / "data.npz")]
    subprocess.run([*command, str(place / "whole")], check=True, timeout=300)
    return command, hashes(place / "whole")


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_moment(
    tmp_path: Path, to_kill: tuple[list[str], dict[str, str]], seed: int
) -> None:
    """SIGKILL: the checkpoint on disk is whole, and the resumed run ends in the same bytes."""
    command, whole = to_kill
    state = tmp_path / "parts/checkpoint/state.safetensors"
    process = subprocess.Popen([*command, str(tmp_path / "parts")])
    while not state.exists() and process.poll() is None:
        time.sleep(0.001)
    time.sleep(random.Random(seed).uniform(0, 0.4))
    process.kill()
    process.wait()
    read_checkpoint(tmp_path / "parts/checkpoint")
    subprocess.run([*command, str(tmp_path / "parts"), "resume"], check=True, timeout=300)
    assert hashes(tmp_path / "parts") == whole


@pytest.mark.dear
def test_a_run_is_not_lost_by_mistake(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=1)
    before = hashes(tmp_path / "run")
    with pytest.raises(InputError, match="holds a run already"):
        run(tmp_path / "run", epochs=1)
    with pytest.raises(InputError, match="batch was 8, is 4"):
        run(tmp_path / "run", epochs=2, batch=4, resume=True)
    with pytest.raises(InputError, match="there is no checkpoint"):
        run(tmp_path / "other", resume=True)
    assert hashes(tmp_path / "run") == before
    run(tmp_path / "run", epochs=1, overwrite=True)


def test_a_damaged_checkpoint_is_said(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=1)
    state = tmp_path / "run/checkpoint/state.safetensors"
    whole = state.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole.replace(b'"version', b'"verston')):
        state.write_bytes(damaged)
        with pytest.raises(InputError, match="not a sound"):
            run(tmp_path / "run", epochs=2, resume=True)


@pytest.mark.dear(share=4)
def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    """And leaves the checkpoint of before alone."""
    data = samples()
    run(tmp_path / "run", epochs=1, data=data)
    before = hashes(tmp_path / "run")
    spoilt = {**data, "x": np.full((50, 8, 8), np.nan, np.float32)}
    with pytest.raises(InputError, match=r"nan at epoch 2, batch 1, .*\n.*in `image` that"):
        run(tmp_path / "run", epochs=2, data=spoilt, resume=True)
    assert hashes(tmp_path / "run") == before
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at .*\n.*--lr"):
        run(None, epochs=9, data=data, lr=1e30)


class Equal:
    """A measure to which all epochs are the same."""

    def __call__(self, session: Any) -> dict[str, float]:
        return {"val_loss": 1.0}

    def score(self, record: Any) -> float:
        return 1.0


def test_of_equal_epochs_the_last_is_kept(tmp_path: Path) -> None:
    """And patience wears off all the same."""
    job = prepare(convdsl.parse(SMALL), samples(), out=tmp_path / "run", threads=1)
    made = replace(job.run, measure=Equal(), epochs=6, patience=2)
    assert made.fit().epoch == 3
    kept, last = load_file(tmp_path / "run/weights.safetensors"), made.session.weights()
    assert kept.keys() == last.keys()
    for key, array in kept.items():
        np.testing.assert_array_equal(array, last[key], err_msg=key)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Is found before the first step."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write into .*\nhelp: --out"):
        run(tmp_path / "file" / "run", epochs=1, watch=Stopping(1))


def test_a_resumed_run_says_what_differs_in_words(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=1)
    with pytest.raises(InputError, match=r"optimizer was \w+\(lr = .*, is \w+\(lr = 0\.5\b"):
        run(tmp_path / "run", epochs=2, lr=0.5, resume=True)


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from convdsl.training.checkpoint import write_arrays
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
write_arrays(Path(sys.argv[1]), {"a": np.ones(9999)})
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """What was there stays, and the message says what to do."""
    path = tmp_path / "weights.safetensors"
    write_arrays(path, {"a": np.ones(3, "f4")})
    before = path.read_bytes()
    command = [sys.executable, "-c", FULL, str(path)]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert f"cannot write {path}" in found.stderr
    assert "is still what it was" in found.stderr
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": samples()["x"]}, "the loss compares with `label`"),
        (
            {"x": samples()["x"], "y": np.eye(3, dtype="f4")[[0] * len(samples()["x"])]},
            "help: give the number of each class: of one-hot rows the argmax",
        ),
        ({**samples(), "y": samples()["y"] + 1}, "label"),
        ({**samples(), "y": samples()["y"][:-1]}, "49"),
        ({"x": samples()["x"][:0], "y": samples()["y"][:0]}, "no samples"),
    ],
    ids=["without labels", "one-hot", "a class too many", "one label short", "empty"],
)
def test_data_that_do_not_do(data: dict[str, Array], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(None, data=data)


def test_early_stopping() -> None:
    """It ends once nothing was better for so many epochs."""
    trained = run(None, epochs=60, patience=2, val_fraction=0.3)
    scores = [record["val_accuracy"] for record in trained.history]
    assert len(scores) < 60
    assert len(scores) - 1 - scores.index(max(scores)) == 2


def test_small_data_make_a_small_batch() -> None:
    job = prepare(convdsl.parse(SMALL), samples(6), said={"batch": 64, "val_fraction": 0})
    assert job.training.batch == 6
    assert job.data.validation is None
    assert len(job.go().history) == 3
