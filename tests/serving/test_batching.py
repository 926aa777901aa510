"""The queue, without networks or HTTP: every answer is its own, batches fill, nobody is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.serving.batching import Batcher, QueueFullError, Way


@dataclass
class Log:
    """What a batcher tells, and what it ran."""

    queue: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)

    def waiting(self, requests: int) -> None:
        self.queue.append(requests)

    def ran(self, samples: int, seconds: float) -> None:
        self.samples.append(samples)
        assert seconds >= 0


def with_batcher(
    body: Callable[[Batcher, Log], Coroutine[Any, Any, None]], most: int = 1000, delay: float = 0.0
) -> Log:
    log = Log()

    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(pool, most, delay, log)
            worker = asyncio.create_task(batcher.work())
            try:
                await asyncio.wait_for(body(batcher, log), 60)
            finally:
                worker.cancel()

    asyncio.run(run())
    assert not log.queue or log.queue[-1] == 0
    return log


def squares(x: Any) -> Any:
    return {"y": x["x"] ** 2, "sum": x["x"].sum(tuple(range(1, x["x"].ndim)))}


@pytest.mark.dear(share=4)
@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 11), st.sampled_from([1, 2, 5])), min_size=1, max_size=30),
    st.sampled_from([[1], [4], [1, 2, 4, 8], [3, 7], []]),
    st.sampled_from([0.0, 0.002]),
)
def test_every_answer_is_its_own(
    asked: list[tuple[int, int]], sizes: list[int], delay: float
) -> None:
    """Of any number of rows and any shape, in any order of arrival."""
    ran: list[tuple[int, ...]] = []

    def run(x: Any) -> Any:
        ran.append(x["x"].shape)
        return squares(x)

    async def body(batcher: Batcher, log: Log) -> None:
        async def one(number: int, rows: int, width: int) -> None:
            x = np.arange(rows * width, dtype=np.float64).reshape(rows, width) + 1000 * number
            if number % 3 == 0:
                await asyncio.sleep(0.001 * (number % 4))
            made = await batcher.submit(width, Way(sizes, run), {"x": x})
            np.testing.assert_array_equal(made["y"], x**2)
            np.testing.assert_array_equal(made["sum"], x.sum(1))

        await asyncio.gather(*(one(n, *rows) for n, rows in enumerate(asked)))

    log = with_batcher(body, delay=delay)
    if sizes:
        assert {shape[0] for shape in ran} <= set(sizes)
        assert sum(log.samples) == sum(rows for rows, _ in asked)
    else:
        assert sorted(shape[0] for shape in ran) == sorted(rows for rows, _ in asked)


def test_batches_fill_while_one_runs() -> None:
    first = threading.Event()

    def run(x: Any) -> Any:
        first.wait(10)
        return squares(x)

    async def body(batcher: Batcher, log: Log) -> None:
        way = Way([1, 2, 4, 8], run)
        asked = [asyncio.create_task(batcher.submit(0, way, {"x": np.ones((1, 2))}))]
        await asyncio.sleep(0.05)
        asked += [
            asyncio.create_task(batcher.submit(0, way, {"x": np.ones((1, 2))})) for _ in range(11)
        ]
        await asyncio.sleep(0.05)
        first.set()
        await asyncio.gather(*asked)

    assert with_batcher(body).samples == [1, 8, 3]


def test_a_lone_request_waits_for_others_no_longer_than_it_is_said() -> None:
    async def body(batcher: Batcher, log: Log) -> None:
        way = Way([1, 2, 4], squares)
        begin = time.monotonic()
        await batcher.submit(0, way, {"x": np.ones((1, 2))})
        assert 0.7 <= time.monotonic() - begin < 5
        begin = time.monotonic()  # a full batch does not wait
        await asyncio.gather(*(batcher.submit(0, way, {"x": np.ones((1, 2))}) for _ in range(4)))
        assert time.monotonic() - begin < 0.7

    assert with_batcher(body, delay=0.8).samples == [1, 4]


def test_who_waits_longest_is_next() -> None:
    order: list[int] = []

    def run(x: Any) -> Any:
        order.append(x["x"].shape[1])
        time.sleep(0.01)
        return squares(x)

    async def body(batcher: Batcher, log: Log) -> None:
        async def one(width: int, after: float) -> None:
            await asyncio.sleep(after)
            await batcher.submit(width, Way([1, 8], run), {"x": np.ones((1, width))})

        await asyncio.gather(*(one(width, 0.001 * width) for width in (1, 2, 3, 4, 5)))

    with_batcher(body)
    assert order == [1, 2, 3, 4, 5]


def test_what_is_wrong_with_one_is_said_to_that_one() -> None:
    def run(x: Any) -> Any:
        if (x["x"] < 0).any():
            raise ValueError("negative")
        return squares(x)

    async def body(batcher: Batcher, log: Log) -> None:
        async def one(value: float) -> Any:
            return await batcher.submit(0, Way([8], run), {"x": np.full((1, 2), value)})

        found = await asyncio.gather(*map(one, [1, -1, 2, -2]), return_exceptions=True)
        assert [isinstance(each, ValueError) for each in found] == [False, True, False, True]
        np.testing.assert_array_equal(found[2]["y"], [[4, 4]])
        with pytest.raises(ValueError, match="negative"):
            await one(-3)

    with_batcher(body)


def test_results_without_rows() -> None:
    """Of a network that has no batch; one that promised rows and has none fails alone."""

    async def body(batcher: Batcher, log: Log) -> None:
        def total(x: Any) -> Any:
            return {"y": np.asarray(x["x"].sum())}

        x = {"x": np.ones((2, 2))}
        assert (await batcher.submit(0, Way([], total), x))["y"] == 4
        assert (await batcher.submit(0, Way([], total), {"x": np.float32(3)}))["y"] == 3
        with pytest.raises(IndexError):
            await batcher.submit(1, Way([2], total), x)
        assert (await batcher.submit(0, Way([], total), x))["y"] == 4

    with_batcher(body)


def test_a_full_queue_says_so() -> None:
    go = threading.Event()

    def run(x: Any) -> Any:
        go.wait(10)
        return squares(x)

    async def body(batcher: Batcher, log: Log) -> None:
        def one(rows: int) -> Any:
            return batcher.submit(0, Way([2], run), {"x": np.ones((rows, 2))})

        asked = [asyncio.create_task(one(1)) for _ in range(5)]
        await asyncio.sleep(0.02)
        with pytest.raises(QueueFullError):
            await one(1)
        go.set()
        await asyncio.gather(*asked)
        made = await one(64)  # alone, in more parts than may wait
        assert made["y"].shape == (64, 2)

    with_batcher(body, most=5)


def test_who_has_gone_is_passed_over() -> None:
    go = threading.Event()
    ran: list[int] = []

    def run(x: Any) -> Any:
        go.wait(10)
        ran.extend(x["x"][:, 0].astype(int))
        return squares(x)

    async def body(batcher: Batcher, log: Log) -> None:
        def one(value: int) -> Any:
            return asyncio.create_task(
                batcher.submit(0, Way([1], run), {"x": np.full((1, 2), value)})
            )

        asked = [one(value) for value in range(6)]
        await asyncio.sleep(0.02)
        for number in (0, 2, 4):  # one of them is running
            asked[number].cancel()
        go.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        lost = [isinstance(each, asyncio.CancelledError) for each in found]
        assert lost == [True, False] * 3

    with_batcher(body)
    assert ran == [0, 1, 3, 5]


def test_nothing_is_kept() -> None:
    async def body(batcher: Batcher, log: Log) -> None:
        for number in range(200):
            x = {"x": np.ones((1, 1 + number))}
            await batcher.submit(number, Way([1], squares), x)
        assert not batcher._groups
        assert batcher._count == 0

    with_batcher(body)
