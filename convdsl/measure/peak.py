"""What the processor can do at best: kernels of nothing but multiply-adds, or nothing but loads.

They run as networks do, on the same teams of threads. Other work on the machine only ever
slows a run down, so each figure is the best of as many short runs as fit in a moment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Get
from convdsl.kernel.program import Access, Argument, Place, Port, Program, Step
from convdsl.kernel.target import Target
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode
from convdsl.tensor import DType, TensorType

CHAINS = 12
"""Independent sums, enough to hide the latency of two units of four or five cycles."""

MEMORY_BYTES = 128 << 20
"""Read through in turns: more than the caches of most machines hold."""

_ROUNDS = 1 << 17
_PASSES = 64  # over what lies in the second-level cache
_RUNS_THROUGH = 8  # over memory: a shorter run is disturbed less often
_PIECES = 64  # of what a run reads, for threads to share out
_SECONDS = 0.25  # spent on each figure
_LEAST_RUNS = 5
_SPELLS = 4  # of a figure: threads that sleep in between are woken where a core is free
_PAUSE = 0.01


def measure_peak(threads: int, cpu: str = "native", dtype: DType = DType.F32) -> float:
    """Multiply-adds, two FLOPs each, in GFLOP/s."""
    target = llvm.find_target(cpu)
    lanes = target.lanes(dtype)
    factors = np.full(2 * lanes, 0.5, dtype.numpy)
    best = _best_seconds(_multiply_adds(target, dtype, threads), target, [factors], threads)
    return 2 * threads * CHAINS * lanes * _ROUNDS / best / 1e9


def measure_memory(threads: int, cpu: str = "native") -> float:
    """Bytes per second that the threads together read from memory."""
    target = llvm.find_target(cpu)
    run_bytes = MEMORY_BYTES // _RUNS_THROUGH
    line = CHAINS * target.vector_bytes
    piece = run_bytes // _PIECES // line * line
    program = _reading(target, _PIECES, piece, 1)
    data = np.ones((_RUNS_THROUGH, _PIECES * piece // DType.F32.bytes), np.float32)
    return data[0].nbytes / _best_seconds(program, target, list(data), threads)


def measure_l2(threads: int, cpu: str = "native") -> float:
    """Bytes per second that the threads together read, each from its second-level cache: half
    of what this machine's holds."""
    return _measure_again(threads, cpu, llvm.find_target().caches.l2_bytes // 2, _PASSES)


def measure_l3(threads: int, cpu: str = "native") -> float:
    """The same of what lies just beyond: four times what the second-level caches hold. From a
    third-level cache, where there is one."""
    return _measure_again(threads, cpu, llvm.find_target().caches.l2_bytes * 4, 2)


def _measure_again(threads: int, cpu: str, piece: int, passes: int) -> float:
    """Bytes per second, each thread reading a piece of its own again and again."""
    target = llvm.find_target(cpu)
    line = CHAINS * target.vector_bytes
    piece = piece // line * line
    program = _reading(target, threads, piece, passes)
    data = np.ones(threads * piece // DType.F32.bytes, np.float32)
    return data.nbytes * passes / _best_seconds(program, target, [data], threads)


def _best_seconds(
    program: Program, target: Target, inputs: Sequence[npt.NDArray[Any]], threads: int
) -> float:
    """Of a run on one of the inputs, which take turns.

    A new thread may share its maker's core for as long as neither sleeps (seen once in six
    processes, for a quarter of a second: half of the figure), so runs come in spells.
    """
    object_code = llvm.emit_object(llvm_module.print_module(program, target), target)
    loaded = LoadedCode(Code.of(program, object_code), np.empty(0, np.uint8))
    times: list[float] = []
    for spell in range(_SPELLS):
        time.sleep(_PAUSE if spell else 0)
        end = time.perf_counter() + _SECONDS / _SPELLS
        ran = len(times)
        while len(times) - ran < _LEAST_RUNS or time.perf_counter() < end:
            data = inputs[len(times) % len(inputs)]
            started = time.perf_counter()
            loaded.run([data], threads)
            times.append(time.perf_counter() - started)
    return min(times)


def _multiply_adds(target: Target, dtype: DType, threads: int) -> Program:
    """sums[t, i] = sum over rounds of a * b, for every thread t and chain i."""
    lanes = target.lanes(dtype)
    width = CHAINS * lanes
    b = Builder("peak", dtype, lanes)
    factors = b.buffer("factors", dtype, 2 * lanes)
    sums = b.buffer("sums", dtype, threads * width, written=True)
    chains = b.registers(CHAINS)
    with b.parallel(("t",), (threads,)) as (t,):
        b.zero(chains)
        left, right = b.load(factors, 0), b.load(factors, lanes)
        with b.serial("round", _ROUNDS):
            for chain in range(CHAINS):
                b.accumulate(chains, chain, left, right)
        for chain in range(CHAINS):
            b.store(sums, t * width + chain * lanes, Get(chains, chain))
    return _program(b)


def _reading(target: Target, pieces: int, piece_bytes: int, passes: int) -> Program:
    """sums[p, i] = sum over passes and lines of x[p, line, i]**2, for every piece p and chain i:
    one multiply-add for each load."""
    lanes = target.lanes(DType.F32)
    width = CHAINS * lanes
    size = piece_bytes // DType.F32.bytes
    b = Builder("reading", DType.F32, lanes)
    data = b.buffer("data", DType.F32, pieces * size)
    sums = b.buffer("sums", DType.F32, pieces * width, written=True)
    chains = b.registers(CHAINS)
    with b.parallel(("p",), (pieces,)) as (p,):
        b.zero(chains)
        with b.serial("pass", passes), b.serial("line", size // width) as line:
            for chain in range(CHAINS):
                value = b.load(data, p * size + line * width + chain * lanes)
                b.accumulate(chains, chain, value, value)
        for chain in range(CHAINS):
            b.store(sums, p * width + chain * lanes, Get(chains, chain))
    return _program(b)


def _program(b: Builder) -> Program:
    """One step: the kernel, from its one input to its one output."""
    kernel = b.kernel()
    out = Argument(Place.OUTPUT, access=Access.WRITE)
    step = Step(kernel.name, (Argument(Place.INPUT), out), (kernel.name,))
    given, made = (Port(x.name, TensorType(x.dtype, (x.size,))) for x in kernel.buffers)
    return Program(kernel.name, (kernel,), (step,), (given,), (made,), 0, 0)
