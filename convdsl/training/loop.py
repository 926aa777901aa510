"""The loop of training: epochs of steps, a measurement after each, and checkpoints.

    every step      the rate of the schedule, one update; a loss that is no number ends the run
    every epoch     validation, the schedule that waits for progress, best weights, log, checkpoint
    every minutes   a checkpoint in the middle of an epoch
    Ctrl-C          the step that is at work is finished, a checkpoint written, and the run ends

Of several ranks all go through the same steps, and see the same losses and figures. One of them
that is asked to stop stops all, after the same step; only rank 0 has a folder, and writes.

Files in the run's folder: `weights.safetensors` (the best by validation; without validation the
last), `checkpoint/` (the last state), `log.jsonl` (one object an epoch). Best weights and log are
written before the checkpoint that counts them: a run that is killed between the two goes back to
the checkpoint of before, and writes both again as they were.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.ranks import Ranks
from convdsl.runtime.whole_files import write_whole
from convdsl.training.checkpoint import (
    Begun,
    Checkpoint,
    Progress,
    check_same_run,
    read_checkpoint,
    write_checkpoint,
)
from convdsl.training.interrupt import Interrupt
from convdsl.training.judging import LOSS
from convdsl.training.session import Session

Array = npt.NDArray[Any]
Record = Mapping[str, Any]

WEIGHTS, CHECKPOINT, LOG = "weights.safetensors", "checkpoint", "log.jsonl"
EVERY = 300.0
"""Seconds between two checkpoints in the middle of an epoch."""


class Batches(Protocol):
    """What feeds an epoch: the same batches for the same number, however often it is asked."""

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Mapping[str, Array]]:
        """Batches of an epoch from one of them on."""
        ...


class Measure(Protocol):
    """What measures a network after an epoch."""

    def __call__(self, session: Session) -> Record:
        """Figures by name."""
        ...

    def score(self, record: Record) -> float:
        """What decides which epoch was best, the greater the better."""
        ...


class Schedule(Protocol):
    """The rate of learning."""

    def __call__(self, step: int, seen: Mapping[str, float]) -> float:
        """At a step of the run, from 0; `seen` is what was made of the records so far."""
        ...

    def after(self, seen: Mapping[str, float], record: Record) -> Mapping[str, float]:
        """What is to be remembered after an epoch."""
        ...


class Watch:
    """What is told of a run while it goes on. This one is silent."""

    def begin(self, epochs: int, batches: int, progress: Progress) -> None:
        """The run starts, or goes on from `progress`."""

    def step(self, progress: Progress, loss: float, rate: float) -> None:
        """A batch was trained on."""

    def epoch(self, record: Record) -> None:
        """An epoch is over."""

    def end(self) -> None:
        """The run is over, however it ended."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run is made of.

    settings: what the run is, for its checkpoint; begun: how it was begun. folder: where its files
    go; None keeps none. classes: their names, which go with the weights. whole: samples in a batch
    of all ranks; None where there is one.
    """

    session: Session
    batches: Batches
    epochs: int
    rate: Schedule
    measure: Measure | None = None
    patience: int | None = None
    folder: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    begun: Begun = field(default_factory=Begun)
    watch: Watch = field(default_factory=Watch)
    classes: tuple[str, ...] | None = None
    whole: int | None = None

    def resume(self) -> Progress:
        """Go back to the checkpoint in the folder. InputError where it is of another run."""
        assert self.folder is not None
        kept = read_checkpoint(self.folder / CHECKPOINT)
        was, now = _parameters(kept.begun, self.begun)
        settings = {**was, **kept.run}, {**now, **self.settings}
        check_same_run(self.folder / CHECKPOINT, *settings)
        self.session.restore(kept.states)
        return kept.progress

    def fit(self, progress: Progress | None = None) -> Progress:
        """Train to the end, from the start or from where a checkpoint was. Raises InputError for a
        loss that is no number, KeyboardInterrupt after the checkpoint when asked to stop."""
        ranks = self.session.ranks
        progress = progress or Progress()
        if ranks.size > 1:
            progress, states = ranks.broadcast((progress, self.session.states()))
            self.session.restore(states)
        self.watch.begin(self.epochs, len(self.batches), progress)
        try:
            with Interrupt() as interrupt:
                while progress.epoch < self.epochs and not self._is_stale(progress):
                    started = time.monotonic()
                    progress = self._finish(self._epoch(progress, interrupt), started)
                    if _Asked(ranks, interrupt).wait():
                        ranks.barrier()
                        raise KeyboardInterrupt
        finally:
            self.watch.end()
        return progress

    def _is_stale(self, progress: Progress) -> bool:
        return self.patience is not None and progress.stale >= self.patience

    def _epoch(self, progress: Progress, interrupt: Interrupt) -> Progress:
        """Train on what is left of an epoch."""
        saved = time.monotonic()
        for batch in self.batches.epoch(progress.epoch, progress.batch):
            asking = _Asked(self.session.ranks, interrupt)  # is on its way during the step
            progress = self._step(progress, batch)
            asked = asking.wait()
            now = time.monotonic()
            last = progress.batch == len(self.batches)
            if not last and (asked or now - saved > EVERY):
                self._keep(progress)
                saved = now
            if asked and not last:
                self.session.ranks.barrier()  # nobody goes before the checkpoint is there
                raise KeyboardInterrupt
        return progress

    def _step(self, progress: Progress, batch: Mapping[str, Array]) -> Progress:
        number = progress.epoch * len(self.batches) + progress.batch
        rate = self.rate(number, progress.plateau)
        loss = float(self.session.step(batch, rate, self.whole)[LOSS])
        if not math.isfinite(loss):
            raise InputError(self._no_number(progress, batch, loss, rate))
        size = self.whole or len(next(iter(batch.values())))
        total, samples = progress.loss + loss * size, progress.samples + size
        progress = replace(progress, batch=progress.batch + 1, loss=total, samples=samples)
        self.watch.step(progress, loss, rate)
        return progress

    def _no_number(
        self, progress: Progress, batch: Mapping[str, Array], loss: float, rate: float
    ) -> str:
        where = f"epoch {progress.epoch + 1}, batch {progress.batch + 1}"
        kept = ""
        if self.folder is not None and (self.folder / CHECKPOINT).exists():
            kept = f"; the checkpoint in {self.folder / CHECKPOINT} is of before"
        mine = [f"`{name}`" for name, array in batch.items() if not np.isfinite(array).all()]
        odd = sorted({name for names in self.session.ranks.gather(mine) for name in names})
        if odd:
            help = f"the data hold values in {', '.join(odd)} that are no numbers: mend these"
        else:
            help = "lower the rate (--lr), or clip the gradients (--set train.clip=1)"
        return f"the loss is {loss} at {where}, with a rate of {rate:.3g}{kept}\nhelp: {help}"

    def _finish(self, progress: Progress, started: float) -> Progress:
        """Measure, keep what is best, log, and save."""
        record: dict[str, Any] = {"epoch": progress.epoch + 1}
        record["train_loss"] = progress.loss / max(1, progress.samples)
        record |= {"val_loss": None, "val_accuracy": None}
        best, stale, keeps = progress.best, progress.stale, True
        if self.measure is not None:
            record |= self.measure(self.session)
            score = self.measure.score(record)
            keeps = best is None or score >= best  # of equal ones the last: it has seen more
            better = best is None or score > best
            best, stale = (score, 0) if better else (best, stale + 1)
        if keeps:
            self._keep_best()
        progress = replace(
            progress, epoch=progress.epoch + 1, batch=0, loss=0.0, samples=0, best=best,
            stale=stale, history=(*progress.history, dict(record)),
            plateau=self.rate.after(progress.plateau, record),
        )  # fmt: skip
        record["seconds"] = time.monotonic() - started
        self._log(record)
        self._keep(progress)
        self.watch.epoch(record)
        return progress

    def _keep_best(self) -> None:
        if self.folder is not None:
            self.session.save(self.folder / WEIGHTS, self.classes)

    def _log(self, record: Record) -> None:
        """Lines of the epochs before stay: how long they took stands nowhere else, so that equal
        runs have equal checkpoints."""
        if self.folder is None:
            return
        path, lines = self.folder / LOG, list[str]()
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _epoch_of(line) in range(1, record["epoch"])]
        text = "".join(f"{line}\n" for line in (*kept, json.dumps(record)))
        write_whole(path, [text.encode()], durable=False)

    def _keep(self, progress: Progress) -> None:
        if self.folder is not None:
            states = self.session.states()
            kept = Checkpoint(states, progress, self.settings, self.begun)
            write_checkpoint(self.folder / CHECKPOINT, kept)


def _parameters(*both: Begun) -> list[dict[str, str]]:
    """The parameters of a model that are others in one of two runs, as settings."""
    was, now = (begun.model.parameters for begun in both)
    differ = [name for name in was if name in now and was[name] != now[name]]
    return [{f"parameter {name}": str(side[name]) for name in differ} for side in (was, now)]


class _Asked:
    """Whether any rank is asked to stop, as it was when this began. One rank alone looks anew."""

    def __init__(self, ranks: Ranks, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._count = np.array([interrupt.asked], np.int64)
        self._pending = ranks.all_reduce(self._count)
        self._alone = ranks.size == 1

    def wait(self) -> bool:
        self._pending.wait()
        return self._interrupt.asked if self._alone else bool(self._count[0])


def _epoch_of(line: str) -> int:
    """The epoch that a line of the log tells of; 0 for what is no such line."""
    try:
        found = json.loads(line)["epoch"]
    except (ValueError, TypeError, KeyError, IndexError):
        return 0
    return found if isinstance(found, int) else 0
