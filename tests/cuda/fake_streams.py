"""Streams, graphs and events of a card that is not there.

They keep their order and do nothing before they must: work waits in its stream until somebody
synchronises, so that who forgets to wait reads what was there before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cuda.fake_card import CUDARuntimeError

if TYPE_CHECKING:
    from cuda.fake_driver import Fake
    from cuda.fake_memory import Block


class Stream:
    """Work in order."""

    numbers = iter(range(100, 1 << 30))

    def __init__(self, fake: Fake, null_of: int | None = None) -> None:
        self.fake = fake
        self.ptr = 0 if null_of is not None else next(self.numbers)
        self.device = fake.device[-1] if null_of is None else null_of
        self.waiting: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.touched: list[Block] = []  # by what is captured
        if self.ptr:
            fake.streams[self.ptr] = self

    def touch(self, block: Block) -> None:
        """Something that is put here reads or writes a block."""
        assert block.held, "memory that is in the pool again"
        if self.captured is not None:
            self.touched.append(block)

    def put(self, work: Callable[[], None]) -> None:
        if self.captured is None:
            self.waiting.append(work)
        else:
            self.captured.append(work)

    def synchronize(self) -> None:
        assert self.captured is None, "cudaErrorStreamCaptureUnsupported"
        while self.waiting:
            self.waiting.pop(0)()
        if self.fake.card.lost:
            raise CUDARuntimeError(self.fake.card.lost)

    def wait_event(self, event: Event) -> None:
        assert self.captured is None, "cudaErrorStreamCaptureIsolation"
        self.put(event.synchronize)

    def is_capturing(self) -> bool:
        return self.captured is not None

    def begin_capture(self) -> None:
        assert self.ptr, "cudaErrorStreamCaptureUnsupported"
        self.captured = []

    def end_capture(self) -> Graph:
        work, self.captured = self.captured, None
        assert work is not None
        self.fake.note(f"captured {len(work)}")
        touched, self.touched = self.touched, []
        return Graph(self.fake, work, touched)

    def __enter__(self) -> Stream:
        self.fake.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.fake.current.pop()


@dataclass
class Graph:
    fake: Fake
    work: list[Callable[[], None]]
    touched: list[Block]

    def launch(self, stream: Stream | None = None) -> None:
        self.fake.note("graph")
        assert all(block.held for block in self.touched), "a graph works on somebody else's memory"
        for one in self.work:
            (stream or self.fake.current[-1]).put(one)


class Event:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.stream: Stream | None = None
        self.place = 0

    def record(self, stream: Stream) -> None:
        assert stream.captured is None, "recorded in a capture"
        self.passed = False
        self.stream = stream
        stream.put(self._pass)

    def _pass(self) -> None:
        self.passed = True
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        while self.stream is not None and not self.passed and self.stream.waiting:
            self.stream.waiting.pop(0)()
