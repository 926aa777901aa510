"""Teams of threads: concurrent callers, forked children, limits, helpers that come late."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_models import RESIDUAL, compiled, images

from convdsl.kernel.cpu_abi import BOARD, BOARD_AWAKE, BOARD_INSIDE, PORTS, TICKET
from convdsl.runtime.cpu import team

TESTS = Path(__file__).parent.parent


Script = Callable[..., str]


@pytest.fixture(scope="module")
def run_script(tmp_path_factory: pytest.TempPathFactory) -> Script:
    """Runs a Python script in a process of its own, with a `network` for two threads."""
    saved = tmp_path_factory.mktemp("team") / "network.cdsl"
    compiled(RESIDUAL, threads=2).save(saved, N=2, H=24, W=24)
    head = f"""
        import os, signal, sys
        import numpy as np
        from convdsl import load_executable
        from small_models import images
        network = load_executable({str(saved)!r}, threads=2)
        x = images(2, 24)
        """
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])

    def run(text: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(text)],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.dear(share=4)
def test_concurrent_callers_get_the_serial_result() -> None:
    """Different pictures from eight threads at once, bit for bit."""
    network = compiled(RESIDUAL, threads=2)
    pictures = [images(1 + k % 3, 24, seed=k) for k in range(8)]
    expected = [network(x) for x in pictures]
    ready = threading.Barrier(len(pictures))

    def call(k: int) -> list[np.ndarray]:
        ready.wait()
        return [network(pictures[k]) for _ in range(20)]

    with ThreadPoolExecutor(len(pictures)) as pool:
        for k, results in enumerate(pool.map(call, range(len(pictures)))):
            for result in results:
                np.testing.assert_array_equal(result, expected[k])


@pytest.mark.dear(share=4)
def test_team_size_does_not_change_the_result() -> None:
    x = images(2, 24)
    results = [compiled(RESIDUAL, threads=threads)(x) for threads in (1, 2, 3, 7)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_helpers_take_part() -> None:
    """Both threads of a team enter the machine code: the entry is asked for thread numbers."""
    seen: set[int] = set()
    here = threading.Event()

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    def entry(context: int, number: int) -> None:
        seen.add(min(number, 1))  # a helper says how long it stays
        if number:
            here.set()
        else:
            here.wait(30)

    address = ctypes.cast(entry, ctypes.c_void_p).value
    assert address is not None
    context = (ctypes.c_void_p * PORTS)()
    board = team.process.helpers.board
    while board._words[board._first + BOARD_AWAKE]:
        time.sleep(0.001)  # one that is awake looks at the board, where this entry pins nothing
    team.Region(address, entry).run(context, 2, None)
    assert seen == {0, 1}


@pytest.mark.dear(share=4)
def test_a_caller_does_not_wait_for_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With helpers that never come, and with helpers that come when all is over."""
    network = compiled(RESIDUAL, threads=2)
    expected = network(images())
    late: list[Callable[[], None]] = []

    class Late(team.Helpers):
        def invite(self, job: Callable[[], None], helpers: int) -> None:
            late.extend([job] * helpers)

        def withdraw(self, job: Callable[[], None]) -> None:
            pass

    monkeypatch.setattr(team.process, "helpers", Late())
    results = [network(images()) for _ in range(3)]
    copies = [result.copy() for result in results]
    assert len(late) == 3
    gc.collect()
    for job in late:
        job()
    for result, copy in zip(results, copies, strict=True):
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(result, copy)


def test_invitations_that_nobody_follows_are_taken_back() -> None:
    """What is over is not in the way of what comes next."""
    helpers = team.Helpers()
    busy, done = threading.Event(), threading.Event()
    helpers.invite(lambda: busy.wait(30) and None, 1)
    runs: list[int] = []

    def stale() -> None:
        runs.append(0)

    helpers.invite(stale, 1)
    helpers.withdraw(stale)
    helpers.withdraw(stale)
    helpers.invite(done.set, 1)
    busy.set()
    assert done.wait(30)
    assert not runs
    assert helpers.count == 1


def test_many_callers_share_the_helpers() -> None:
    """Threads grow to the largest team asked for, and no further."""
    network = compiled(RESIDUAL, threads=3)
    others = team.process.helpers.count  # of tests in this process
    network(images())
    count = team.process.helpers.count
    before = threading.active_count()
    assert count == max(others, 2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: network(images()), range(32)))
    assert team.process.helpers.count == count
    assert threading.active_count() == before


@pytest.mark.dear(share=4)
def test_forked_children_work(run_script: Script) -> None:
    """With a team of two, before and after the parent has used its own; a grandchild too."""
    said = run_script(
        """
        expected = network(x)

        def child(depth):
            process = os.fork()
            if process == 0:
                signal.alarm(30)
                for _ in range(3):
                    if not np.array_equal(network(x), expected):
                        os._exit(3)
                if depth and child(depth - 1) != 0:
                    os._exit(4)
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

        print(child(1), child(0), np.array_equal(network(x), expected))
        """
    )
    assert said.split() == ["0", "0", "True"]


@pytest.mark.dear(share=4)
def test_a_child_forked_while_the_team_is_busy_works(run_script: Script) -> None:
    """What the parent's helpers were doing, and the locks they held, are not in the child."""
    said = run_script(
        """
        import threading
        from convdsl.runtime.cpu import team
        expected = network(x)
        stop = threading.Event()
        team.process.helpers.invite(lambda: stop.wait(60), 1)
        team.process.helpers._changed.acquire()
        process = os.fork()
        if process == 0:
            signal.alarm(30)
            right = all(np.array_equal(network(x), expected) for _ in range(3))
            os._exit(0 if right and team.process.helpers.count == 1 else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        stop.set()
        """
    )
    assert said.strip() == "0"


@pytest.mark.dear(share=4)
def test_processes_of_multiprocessing_work(run_script: Script) -> None:
    said = run_script(
        """
        import multiprocessing

        def call(seed):
            return network(images(2, 24, seed))

        expected = [call(seed) for seed in range(4)]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            results = pool.map_async(call, range(4)).get(60)
        print(np.array_equal(results, expected))
        """
    )
    assert said.strip() == "True"


@pytest.mark.dear
@pytest.mark.parametrize(
    "environment",
    [{"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true", "OMP_NUM_THREADS": "1"}],
    ids=str,
)
def test_limits_in_the_environment_do_no_harm(
    run_script: Script, environment: dict[str, str]
) -> None:
    """Limits meant for OpenMP programs change nothing here."""
    said = run_script("print(network(x).tobytes().hex())", **environment)
    assert said.strip() == compiled(RESIDUAL, threads=1)(images(2, 24)).tobytes().hex()


@pytest.mark.dear(share=4)
def test_pinning_to_one_processor_does_no_harm(run_script: Script) -> None:
    said = run_script(
        """
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from convdsl.runtime.cpu.team import available_threads
        print(available_threads(), network(x).tobytes().hex())
        """
    )
    expected = compiled(RESIDUAL, threads=1)(images(2, 24)).tobytes().hex()
    assert said.split() == ["1", expected]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no processors are named here")
def test_helpers_that_are_awake_may_run_wherever_their_caller_may() -> None:
    """They are woken off the caller's processor; one that is put aside later finds it."""
    helpers = team.Helpers()
    served: list[set[int]] = []
    done = threading.Event()

    def job() -> None:
        served.append(os.sched_getaffinity(0))
        done.set()

    for _ in range(2):  # the first starts the thread, the second wakes it
        done.clear()
        helpers.invite(job, 1)
        assert done.wait(60)
        end = time.monotonic() + 60
        while not helpers._asleep and time.monotonic() < end:
            time.sleep(0.001)
    assert served == [os.sched_getaffinity(0)] * 2
    assert helpers._asleep == 1


def test_one_thread_needs_no_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(team.Helpers):
        def invite(self, job: Callable[[], None], helpers: int) -> None:
            raise AssertionError("asked for helpers")

    network = compiled(RESIDUAL, threads=1)
    monkeypatch.setattr(team.process, "helpers", Refusing())
    assert np.isfinite(network(images())).all()


@pytest.mark.dear
def test_helpers_that_are_awake_serve_one_network_after_another() -> None:
    """Networks in turns, with teams of several sizes, made and dropped between calls: helpers
    go from one's code to the other's, and nothing that they look at is gone."""
    x = images(2, 24)
    expected = compiled(RESIDUAL, threads=1)(x)
    for _ in range(6):
        networks = [compiled(RESIDUAL, threads=threads) for threads in (2, 3, 5)]
        for _ in range(20):
            for network in networks:
                np.testing.assert_array_equal(network(x), expected)
        del network, networks
        gc.collect()


def test_the_board_is_one_callers_at_a_time() -> None:
    """Others call for helpers as if none were awake; what a helper may look at is kept."""
    board = team.Board()
    context = (ctypes.c_void_p * PORTS)()
    assert board.take(context, 1) == 0
    assert board.take((ctypes.c_void_p * PORTS)(), 1) is None
    assert context[BOARD]
    assert context[BOARD] % 64 == 0
    ticket = context[TICKET]
    board._words[board._first + BOARD_INSIDE] = 1
    board.leave(context, first := object())  # the number that code leaves: not zero
    assert board.take(context, 1) == 0
    assert context[TICKET] != ticket
    board.leave(context, second := object())
    assert board._kept == [first, second]
    board._words[board._first + BOARD_INSIDE] = 0
    assert board.take(context, 1) == 0
    assert board._kept == []  # whoever was inside has left
    context[TICKET] = 0
    board.leave(context, object())
    assert board._kept == []


@pytest.mark.dear(share=4)
def test_what_is_kept_for_helpers_does_not_pile_up() -> None:
    """However long the system holds a helper up on its way out: once it has left, the next call
    lets go of everything, and keeps at most what it leaves itself."""
    network = compiled(RESIDUAL, threads=2)
    board = team.process.helpers.board
    for _ in range(20):
        for _ in range(100):
            network(images())
        end = time.monotonic() + 60
        while len(board._kept) > 1:  # a helper that the system has put aside is still inside
            assert time.monotonic() < end
            time.sleep(0.001)
            network(images())


def test_a_system_that_grants_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller does everything, and nothing is taken for good."""
    network = compiled(RESIDUAL, threads=3)
    expected = network(images())

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(team.process, "helpers", team.Helpers())
    for _ in range(2):
        np.testing.assert_array_equal(network(images()), expected)
    assert team.process.helpers.count == 0
    assert not team.process.helpers.board._caller


def test_a_helper_that_is_awake_joins_the_next_call() -> None:
    """Without anybody being woken: nothing is in the queue of invitations."""
    network = compiled(RESIDUAL, threads=2)
    network(images())
    helpers = team.process.helpers
    words, first = helpers.board._words, helpers.board._first
    patience = time.monotonic() + 60  # a busy machine takes the helper's processor away
    while time.monotonic() < patience:
        network(images())
        if words[first + BOARD_AWAKE]:
            break
    else:
        pytest.fail("no helper stayed awake in a minute of calls")
