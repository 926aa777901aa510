"""Ready batches of a data set, read ahead by threads.

    sample i of epoch e    read, placed and augmented by draws from (seed, e, i), finished
    batch b of epoch e     samples order(seed, e)[b * batch :], mixed by draws from (seed, e, b)

Of a batch that ranks share, each reads its part, and the sample before it where batches are mixed:
all parts together are the batch of one rank.

Nothing depends on what was read before: an epoch can be asked for from any batch on, and the result
is the same for any number of workers. Pillow and NumPy let other threads run while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.ir.preprocess import PreprocessingStep
from convdsl.training.data.arrays import X
from convdsl.training.data.augmentation import Augmentation
from convdsl.training.data.boxes import BOXES
from convdsl.training.data.draws import Draws, Purpose
from convdsl.training.data.images import MASK
from convdsl.training.data.parts import Part, check_parts
from convdsl.training.data.preparation import Preparation
from convdsl.training.data.sample import DataSet, ReadsTogether, Sample, number_of

Array: TypeAlias = "npt.NDArray[Any]"
Batch: TypeAlias = "dict[str, Array]"

AHEAD = 2
"""Batches that wait, ready, for each worker that reads the next one."""


def _samples(count: int) -> str:
    return "one sample makes" if count == 1 else f"{count} samples make"


@dataclass(frozen=True)
class Loader:
    """Batches by name: the network's input and the targets.

    augment: what happens to samples and batches on the way. indices: the samples that are used, by
    default all. shuffle: another order every epoch.
    keep_last: whether the samples that are left form a smaller batch. workers: threads that read
    ahead; 0 reads when asked. rank, ranks: whose part of each batch is read, of how many.
    """

    data: DataSet
    prepare: Preparation
    batch: int
    augment: Augmentation = field(default_factory=Augmentation)
    indices: Sequence[int] | Array | None = None
    seed: int = 0
    workers: int = 1
    shuffle: bool = True
    keep_last: bool = True
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.workers < 0:
            raise InputError(f"a batch of {self.batch} by {self.workers} workers cannot be read")
        check_parts(self.batch, self.ranks)
        if len(self) == 0:
            raise InputError(
                f"{self.data.source}: {_samples(len(self._used))} no batch of {self.batch}\n"
                "help: give more data, or a smaller --batch"
            )

    def __len__(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(len(self._used), self.batch)
        return whole + (self.keep_last and rest > 0)

    @cached_property
    def _used(self) -> Array:
        indices = range(len(self.data)) if self.indices is None else self.indices
        return np.asarray(indices, np.int64)

    @cached_property
    def _geometry(self) -> tuple[PreprocessingStep, ...]:
        return self.augment.geometry(self.prepare)

    def order(self, epoch: int) -> Array:
        """The samples of an epoch, as they come."""
        if not self.shuffle:
            return self._used
        return self._used[Draws(self.seed, Purpose.ORDER, epoch).order(len(self._used))]

    def epoch(self, number: int, start: int = 0, every: int = 1) -> Iterator[Batch]:
        """The batches of an epoch from one of them on, or every so many. Raises InputError, in the
        caller, when the batch comes up that a sample is wrong with."""
        order = self.order(number)
        parts = [order[b * self.batch :][: self.batch] for b in range(len(self))]
        jobs = list(enumerate(parts))[start::every]
        if self.workers == 0:
            for position, chosen in jobs:
                yield self._batch(number, position, chosen, Event())
            return
        stop = Event()
        pool = ThreadPoolExecutor(self.workers, "convdsl-data")
        waiting: deque[Future[Batch]] = deque()
        try:
            for position, chosen in jobs:
                waiting.append(pool.submit(self._batch, number, position, chosen, stop))
                if len(waiting) > self.workers * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, epoch: int, position: int, chosen: Array, stop: Event) -> Batch:
        part = Part.of(len(chosen), self.rank, self.ranks)
        before = len(self.augment.batches) if self.ranks > 1 else 0
        chosen = part.samples(chosen, before)
        batch = self._at_once(chosen)
        if batch is None:
            rows: list[Mapping[str, Array]] = []
            for index in chosen:
                if stop.is_set():
                    return {}
                rows.append(self._sample(epoch, int(index)))
            batch = self._together(rows, chosen)
        draws = Draws(self.seed, Purpose.BATCH, epoch, position)
        for change in self.augment.batches:
            batch = change(batch, self.prepare.name, draws)
        return {name: array[before:] for name, array in batch.items()} if before else batch

    def _at_once(self, chosen: Array) -> Batch | None:
        """The batch without a step for each sample, where that gives the same: nothing is drawn for
        samples, and no masks and boxes move. What is wrong is left to the samples to say."""
        data, prepare = self.data, self.prepare
        if self.augment.samples or self.augment.inputs or not isinstance(data, ReadsTogether):
            return None
        found = data.together(chosen)
        if found is None or MASK in found or BOXES in found:
            return None
        try:
            x = prepare.together(found[X], self._geometry)
            targets = {n: prepare.target(n, a, together=True) for n, a in found.items() if n != X}
        except InputError:
            return None
        return None if x is None else {prepare.name: x} | targets

    def _sample(self, epoch: int, index: int) -> dict[str, Array]:
        """One sample as the network and the loss take it."""
        sample = self.data[index]
        try:
            return self._prepared(sample, epoch, index)
        except InputError as error:
            raise InputError(
                f"sample {number_of(self.data, index)} of {self.data.source}: {error}"
            ) from None

    def _prepared(self, sample: Sample, epoch: int, index: int) -> dict[str, Array]:
        prepare, augment = self.prepare, self.augment
        sample = prepare.place(sample, self._geometry)
        draws = Draws(self.seed, Purpose.SAMPLE, epoch, index)
        for change in augment.samples:
            sample = change(sample, draws)
        x = prepare.finish(sample[X])
        for alter in augment.inputs:
            x = alter(x, draws)
        made = {name: prepare.target(name, a) for name, a in sample.items() if name != X}
        return {prepare.name: x} | made

    def _together(self, rows: Sequence[Mapping[str, Array]], chosen: Array) -> Batch:
        """Samples along a first axis."""
        made: Batch = {}
        for name, first in rows[0].items():
            for row, index in zip(rows, chosen, strict=True):
                if name not in row or row[name].shape != first.shape:
                    has = list(row[name].shape) if name in row else "missing"
                    raise InputError(
                        f"{self.data.source}: {name} of sample {index} is {has}, of sample "
                        f"{chosen[0]} {list(first.shape)}; a batch is of one shape"
                    )
            made[name] = np.stack([row[name] for row in rows])
        return made
