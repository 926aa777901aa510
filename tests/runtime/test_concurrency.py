"""Who waits for whom: callers of known shapes for nobody, forks for the compiler."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convdsl import Executable
from convdsl.diagnostics import InputError
from convdsl.forking import compiling, open_lock
from convdsl.kernel.program import Port
from convdsl.runtime.executable import Facts
from convdsl.tensor import DType, TensorType, symbol

PATIENCE = 20  # seconds after which a thread that should have gone on is called stuck


class Echo:
    """A program that puts out what comes in."""

    results = ("y",)

    def run(self, inputs: Sequence[Any], threads: int) -> list[Any]:
        return [array.copy() for array in inputs]


class Compiler:
    """Specialises at once, but for batches that were told to wait or to fail."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.slow: set[int] = set()
        self.failures = 0

    def specialise(self, binding: dict[str, int], values: object) -> Echo:
        batch = binding["N"]
        self.made.append(batch)
        if batch in self.slow:
            self.begun.set()
            assert self.go_on.wait(PATIENCE)
        if self.failures:
            self.failures -= 1
            raise InputError(f"no code for {batch}")
        return Echo()

    def executable(self) -> Executable:
        type = TensorType(DType.F32, (symbol("N", minimum=1), 2))

        def save(*_: object) -> None:
            raise AssertionError("nothing is saved here")

        ports = (Port("x", type),), (Port("y", type),)
        return Executable(Facts("echo", None, None), *ports, 1, self.specialise, save)


def batch(size: int) -> Any:
    return np.arange(2 * size, dtype=np.float32).reshape(size, 2)


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


def test_callers_of_known_shapes_do_not_wait_for_a_new_one(compiler: Compiler) -> None:
    network = compiler.executable()
    network(batch(1))
    compiler.slow = {2}
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(network, batch(2))
        assert compiler.begun.wait(PATIENCE)
        np.testing.assert_array_equal(pool.submit(network, batch(1)).result(PATIENCE), batch(1))
        np.testing.assert_array_equal(pool.submit(network, batch(3)).result(PATIENCE), batch(3))
        assert not late.done()
        compiler.go_on.set()
        np.testing.assert_array_equal(late.result(PATIENCE), batch(2))


def test_what_several_want_at_once_is_made_once(compiler: Compiler) -> None:
    network = compiler.executable()
    compiler.slow = {2}
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(network, batch(2)) for _ in range(4)]
        assert compiler.begun.wait(PATIENCE)
        compiler.go_on.set()
        for call in calls:
            np.testing.assert_array_equal(call.result(PATIENCE), batch(2))
    assert compiler.made == [2]


def test_a_failure_is_its_callers_own(compiler: Compiler) -> None:
    """The others, who waited for it, try for themselves; and so does the next call."""
    network = compiler.executable()
    compiler.slow, compiler.failures = {2}, 1
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(network, batch(2))
        assert compiler.begun.wait(PATIENCE)
        second = pool.submit(network, batch(2))
        compiler.go_on.set()
        with pytest.raises(InputError, match="no code for 2"):
            first.result(PATIENCE)
        np.testing.assert_array_equal(second.result(PATIENCE), batch(2))
    np.testing.assert_array_equal(network(batch(2)), batch(2))


def run_script(text: str) -> str:
    """What a Python process says; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.dear
def test_a_child_forked_during_a_compile_can_compile() -> None:
    """Forks spread over the compiles of another thread; every child makes code of its own."""
    said = run_script(
        """
        import os, signal, threading, time
        import numpy as np
        import convdsl
        from convdsl.backends.llvm import pieces

        pieces.PIECE = 1  # a second thread is at work in every compile
        layers = " -> ".join("conv(16, 3) -> bn -> relu" for _ in range(3))
        text = f"model m {{ input x: f32[N, 8, H, H]\\n x -> {layers} -> output y }}"
        network = convdsl.compile(convdsl.parse(text), "random:0", threads=1, cache=False)

        def images(size):
            return np.ones((1, 8, size, size), np.float32)

        network(images(8))
        stop = threading.Event()
        sizes = iter(range(9, 1000))

        def compile_on_and_on():
            while not stop.is_set():
                network(images(next(sizes)))

        worker = threading.Thread(target=compile_on_and_on)
        worker.start()
        codes = []
        for number in range(6):
            time.sleep(0.037)
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                network(images(8))
                other = convdsl.compile(convdsl.parse(text), "random:0", threads=1, cache=False)
                other(images(7))
                network(images(7))
                os._exit(0)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        worker.join()
        print(codes)
        """
    )
    assert said.strip() == str([0] * 6)


def test_a_lock_that_another_thread_holds_is_open_in_the_child() -> None:
    said = run_script(
        """
        import os, signal, threading
        from convdsl.forking import open_lock

        lock, held, stop = open_lock(), threading.Event(), threading.Event()

        def hold():
            with lock:
                held.set()
                stop.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(60)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            with lock:
                os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        thread.join()
        """
    )
    assert said.strip() == "0"


def test_who_forks_at_work_does_not_wait_for_itself() -> None:
    said = run_script(
        """
        import os
        from convdsl.forking import compiling

        with compiling(), compiling():
            child = os.fork()
            if child == 0:
                with compiling():
                    os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert said.strip() == "0"


def test_a_lock_excludes() -> None:
    lock, inside = open_lock(), []

    def enter(number: int) -> None:
        with compiling(), lock:
            inside.append(number)
            assert len(inside) == 1
            inside.clear()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(200)))
