"""Teams of threads: concurrent callers, forked children, limits, and no OpenMP at all."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_models import RESIDUAL, compiled, images

from convdsl.runtime import team

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


def test_team_size_does_not_change_the_result() -> None:
    x = images(2, 24)
    results = [compiled(RESIDUAL, threads=threads)(x) for threads in (1, 2, 3, 7)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_a_region_gets_the_threads_that_it_asks_for(run_script: Script) -> None:
    """The team really has two threads: the runtime is asked from inside a region."""
    openmp = team.find_openmp()
    assert openmp is not None, "this machine has no OpenMP runtime to test with"
    assert openmp.name
    said = run_script(
        """
        import ctypes
        from convdsl.runtime.team import find_openmp
        openmp = find_openmp()
        size = ctypes.CFUNCTYPE(ctypes.c_int)(openmp.team_size)
        sizes = []
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda context: sizes.append(size()))
        openmp.parallel(ctypes.cast(entry, ctypes.c_void_p).value, 0, 2)
        print(sizes)
        """
    )
    assert said.strip() == "[2, 2]"


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


def test_a_child_forked_while_the_team_is_busy_works(run_script: Script) -> None:
    """The lock of the parent's team must not be held in the child."""
    said = run_script(
        """
        from convdsl.runtime import team
        expected = network(x)
        assert team._process.busy.acquire(blocking=False)
        process = os.fork()
        if process == 0:
            signal.alarm(30)
            free = team._process.busy.acquire(blocking=False)
            team._process.busy.release()
            os._exit(0 if free and np.array_equal(network(x), expected) else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        """
    )
    assert said.strip() == "0"


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


@pytest.mark.parametrize(
    "environment",
    [{"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}],
    ids=str,
)
def test_limits_in_the_environment_do_no_harm(
    run_script: Script, environment: dict[str, str]
) -> None:
    """Fewer threads than asked for: whoever waited for the asked number would wait for ever."""
    said = run_script("print(network(x).tobytes().hex())", **environment)
    assert said.strip() == compiled(RESIDUAL, threads=1)(images(2, 24)).tobytes().hex()


def test_pinning_to_one_processor_does_no_harm(run_script: Script) -> None:
    said = run_script(
        """
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from convdsl.runtime.team import available_threads
        print(available_threads(), network(x).tobytes().hex())
        """
    )
    expected = compiled(RESIDUAL, threads=1)(images(2, 24)).tobytes().hex()
    assert said.split() == ["1", expected]


def test_without_openmp_it_warns_once_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    network = compiled(RESIDUAL, threads=2)
    expected = network(images())
    monkeypatch.setattr(team, "find_openmp", lambda: None)
    monkeypatch.setattr(team._process, "warned", False)
    with pytest.warns(RuntimeWarning, match="no OpenMP runtime found.*running on one thread"):
        np.testing.assert_array_equal(network(images()), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(network(images()), expected)


def test_one_thread_needs_no_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("asked for OpenMP")

    network = compiled(RESIDUAL, threads=1)
    monkeypatch.setattr(team, "find_openmp", refuse)
    assert np.isfinite(network(images())).all()
