"""Samples of several callers in one batch.

Requests wait in groups: those of a group can share a batch, as their arrays differ along the batch
alone. One batch runs at a time. When it is done the group is next whose batch is full, else the one
whose first request has waited longest; it need not wait longer than `delay` for others. So under
load batches fill by themselves, and a lone request is not held up.

Every request has a future of its own that its rows are written to, so no answer can be lost or
given to another: who has gone, or waits too long, cancels it, and is passed over. Where a batch
fails its requests run one by one: what is wrong with one is said to that one.

Nothing of this knows networks or HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Arrays: TypeAlias = "Mapping[str, npt.NDArray[Any]]"


class QueueFullError(Exception):
    """As many requests wait as may."""


class Watcher(Protocol):
    """Who is told what happens."""

    def waiting(self, requests: int) -> None:
        """So many wait."""
        ...

    def ran(self, samples: int, seconds: float) -> None:
        """A batch is done."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """How samples are run: `sizes`, of batches that there is code for, from the smallest up; none
    where each request is a batch of its own. `run` is called in the executor."""

    sizes: Sequence[int]
    run: Callable[[Arrays], Arrays]

    @property
    def most(self) -> int | None:
        return self.sizes[-1] if self.sizes else None


@dataclass(slots=True, eq=False)
class _Job:
    """The rows of a request, or a part of them."""

    arrays: Arrays
    rows: int
    arrived: float
    done: asyncio.Future[Arrays]


@dataclass(slots=True)
class _Group:
    """Who can share a batch, in order of arrival."""

    way: Way
    jobs: deque[_Job]
    rows: int = 0

    def add(self, job: _Job) -> None:
        self.jobs.append(job)
        self.rows += job.rows

    def is_full(self) -> bool:
        return self.way.most is None or self.rows >= self.way.most

    def take(self) -> list[_Job]:
        """The next batch: those who came first, and are still there."""
        taken: list[_Job] = []
        rows, most = 0, self.way.most
        while self.jobs and (not taken or (most is not None and rows + self.jobs[0].rows <= most)):
            job = self.jobs.popleft()
            self.rows -= job.rows
            if not job.done.done():
                taken.append(job)
                rows += job.rows
        return taken


class Batcher:
    """The queue of one network. `work` runs as long as it is to be served."""

    def __init__(self, executor: Executor, most: int, delay: float, watcher: Watcher) -> None:
        self._executor, self._most, self._delay, self._watcher = executor, most, delay, watcher
        self._groups: dict[Hashable, _Group] = {}
        self._came = asyncio.Event()
        self._count = 0

    async def submit(self, key: Hashable, way: Way, arrays: Arrays) -> Arrays:
        """The results for arrays whose first axis is the batch: with others of the same key, in
        parts where they are more than a batch. Raises QueueFullError, and what `run` raises."""
        rows = len(next(iter(arrays.values()))) if way.most is not None else 1
        step = way.most or rows
        starts = range(0, rows, step)
        if self._count and self._count + len(starts) > self._most:
            raise QueueFullError
        if len(starts) == 1:
            return await self._queued(key, way, arrays, rows)
        parts = [
            self._queued(key, way, {n: a[at : at + step] for n, a in arrays.items()}, size)
            for at in starts
            for size in [min(step, rows - at)]
        ]
        made = await asyncio.gather(*parts)
        return {name: np.concatenate([part[name] for part in made]) for name in made[0]}

    async def _queued(self, key: Hashable, way: Way, arrays: Arrays, rows: int) -> Arrays:
        loop = asyncio.get_running_loop()
        job = _Job(arrays, rows, loop.time(), loop.create_future())
        self._groups.setdefault(key, _Group(way, deque())).add(job)
        self._count += 1
        self._watcher.waiting(self._count)
        self._came.set()
        try:
            return await job.done
        finally:
            self._count -= 1
            self._watcher.waiting(self._count)

    async def work(self) -> None:
        """Run batches for ever."""
        while True:
            await self._next_is_due()
            key = self._first()
            group = self._groups[key]
            jobs = group.take()
            if not group.jobs:
                del self._groups[key]
            if jobs:
                await self._run(group.way, jobs)

    async def _next_is_due(self) -> None:
        """Until a batch is full, or has waited long enough."""
        loop = asyncio.get_running_loop()
        while True:
            self._came.clear()
            due = min((self._due(group) for group in self._groups.values()), default=None)
            if due is not None and due <= loop.time():
                return
            try:
                async with asyncio.timeout_at(due):
                    await self._came.wait()
            except TimeoutError:
                return

    def _due(self, group: _Group) -> float:
        arrived = group.jobs[0].arrived
        return arrived if group.is_full() else arrived + self._delay

    def _first(self) -> Hashable:
        return min(self._groups, key=lambda key: self._due(self._groups[key]))

    async def _run(self, way: Way, jobs: Sequence[_Job]) -> None:
        """Compute, and answer each; whatever goes wrong, the next batch can come."""
        try:
            results = await self._computed(way, jobs)
            answers = [results] if way.most is None else _shares(results, jobs)
        except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to a request)
            if len(jobs) == 1:
                _fail(jobs[0], error)
                return
            for job in jobs:
                await self._run(way, [job])
            return
        for job, answer in zip(jobs, answers, strict=True):
            if not job.done.done():
                job.done.set_result(answer)

    async def _computed(self, way: Way, jobs: Sequence[_Job]) -> Arrays:
        loop = asyncio.get_running_loop()
        samples = sum(job.rows for job in jobs)
        size = min((s for s in way.sizes if s >= samples), default=samples)
        begin = loop.time()
        results = await loop.run_in_executor(self._executor, _call, way, jobs, size - samples)
        self._watcher.ran(samples, loop.time() - begin)
        return results


def _shares(results: Arrays, jobs: Sequence[_Job]) -> list[Arrays]:
    """The rows of each, in order."""
    ends = list(accumulate(job.rows for job in jobs))
    starts = [0, *ends[:-1]]
    return [
        {name: array[start:end] for name, array in results.items()}
        for start, end in zip(starts, ends, strict=True)
    ]


def _fail(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)


def _call(way: Way, jobs: Sequence[_Job], missing: int) -> Arrays:
    """The rows of all in one batch, filled up with the last one."""
    first = jobs[0].arrays
    if len(jobs) == 1 and not missing:
        return way.run(first)
    joined: dict[str, npt.NDArray[Any]] = {}
    for name in first:
        rows = [job.arrays[name] for job in jobs]
        if missing:
            rows.append(np.repeat(rows[-1][-1:], missing, axis=0))
        joined[name] = np.concatenate(rows)
    return way.run(joined)
