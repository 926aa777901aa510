"""Checkpoints: everything that a run needs to go on bit for bit, in one file.

The file is a safetensors file of all states (weights, running statistics, the optimiser's slots,
the counter), whose metadata says how far the run had come. Order of the data and augmentation
follow from counters, so that there is no other random state. It is written whole (runtime.
whole_files): at every moment the one on disk is wholly the old or wholly the new one.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError, WeightError
from convdsl.runtime.whole_files import write_whole
from convdsl.weights.safetensors_file import SafetensorsFile
from convdsl.weights.trained import Trained

Array = npt.NDArray[Any]

FILE = "state.safetensors"
"""The checkpoint in its folder."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    epoch, batch: the next batch to be trained on, both from 0. loss, samples: the sum of the losses
    of this epoch's samples so far, and their number. best: the best measure of validation; stale:
    for how many epochs it has been that. plateau: what a schedule that waits for progress has seen.
    history: a record for every finished epoch.
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    samples: int = 0
    best: float | None = None
    stale: int = 0
    plateau: Mapping[str, float] = field(default_factory=dict[str, float])
    history: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Begun:
    """How a run was begun: what was said over the text's `train` block, texts by setting, and the
    model with its parameters. Who goes on with it need not say it again."""

    said: Mapping[str, str] = field(default_factory=dict[str, str])
    model: Trained = field(default_factory=Trained)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """States by key, how far the run had come, what run it is of (settings by name, as text), and
    how it was begun."""

    states: Mapping[str, Array]
    progress: Progress
    run: Mapping[str, str]
    begun: Begun = field(default_factory=Begun)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in a folder, which is made where there is none. InputError where the
    file cannot be written: what was there before stays."""
    facts = {
        "version": _VERSION,
        "progress": asdict(checkpoint.progress),
        "run": dict(checkpoint.run),
        "said": dict(sorted(checkpoint.begun.said.items())),
        "model": checkpoint.begun.model.to_text(),
    }
    write_arrays(folder / FILE, checkpoint.states, {"convdsl": json.dumps(facts)})


def write_arrays(
    path: Path, arrays: Mapping[str, Array], facts: Mapping[str, str] | None = None
) -> None:
    """A safetensors file, whole or not at all. InputError where it cannot be written."""
    from safetensors.numpy import save as to_safetensors  # loaded where there is a file to write

    if "\0" in str(path):
        raise InputError("a path cannot hold a NUL byte")
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, [to_safetensors(whole, None if facts is None else dict(facts))])
    except OSError as error:
        raise InputError(_unwritten(path, error)) from error


def _unwritten(path: Path, error: OSError) -> str:
    kept = f"; {path.name} is still what it was" if path.exists() else ""
    help = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        help = "\nhelp: make room on the disk, then go on with --resume"
    return f"cannot write {path}: {error.strerror or error}{kept}{help}"


def read_begun(folder: Path) -> Begun:
    """How the run of a checkpoint was begun; nothing of one that does not say it. InputError as
    read_checkpoint."""
    return _read(folder, with_states=False).begun


def epochs_of(folder: Path) -> int:
    """Whole epochs that the run of a checkpoint has behind it. InputError as read_checkpoint."""
    return _read(folder, with_states=False).progress.epoch


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in a folder. InputError where there is none, or none that is whole."""
    return _read(folder, with_states=True)


def _read(folder: Path, *, with_states: bool) -> Checkpoint:
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"there is no checkpoint {path} to resume from\n"
            "help: begin without --resume, or name the run's folder with --out"
        )
    try:
        store = SafetensorsFile(path)
        facts = json.loads(store.metadata["convdsl"])
        if facts["version"] != _VERSION:
            raise InputError(f"{path} was written by another version of convdsl")
        kept: dict[str, Any] = facts["progress"]
        kept["history"] = tuple(kept["history"])
        progress = Progress(**kept)
        states = {name: store.read(name) for name in (store.entries if with_states else ())}
        run, said = ({str(k): str(v) for k, v in facts.get(n, {}).items()} for n in ("run", "said"))
        return Checkpoint(states, progress, run, Begun(said, Trained.from_text(facts.get("model"))))
    except (WeightError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a sound checkpoint: {error}") from None


def _apart(was: str, now: str) -> tuple[str, str]:
    """Of one technique twice, the arguments that differ: `sgd(lr = 0.1)`, `sgd(lr = 0.2)`."""
    calls = [_CALL.fullmatch(text) for text in (was, now)]
    if calls[0] is None or calls[1] is None or calls[0][1] != calls[1][1]:
        return was, now
    said = [_ARGUMENT.split(call[2]) for call in calls if call is not None]
    own = [[a for a in said[i] if a not in said[1 - i]] for i in (0, 1)]
    if not all(own):
        return was, now
    return f"{calls[0][1]}({', '.join(own[0])})", f"{calls[0][1]}({', '.join(own[1])})"


_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_ARGUMENT = re.compile(r", (?=\w+ = )")


def check_same_run(path: Path, kept: Mapping[str, str], given: Mapping[str, str]) -> None:
    """InputError where a checkpoint is of another run than the one that is asked for, with every
    setting that differs."""
    pairs = {
        name: (kept.get(name, "not set"), given.get(name, "not set"))
        for name in dict.fromkeys((*kept, *given))
        if kept.get(name) != given.get(name)
    }
    lines = ["{} was {}, is {}".format(name, *_apart(*pair)) for name, pair in pairs.items()]
    if lines:
        head = f"{path} is a checkpoint of another run:"
        help = "help: go on with the settings it was begun with, or begin anew elsewhere"
        raise InputError("\n  ".join((head, *lines)) + f"\n{help}")
