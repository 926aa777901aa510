"""What the processor can do at best: a kernel of nothing but fused multiply-adds."""

from __future__ import annotations

import time

import numpy as np

from convdsl.backends import llvm, llvm_module
from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Get
from convdsl.kernel.program import Argument, Place, Port, Program, Step
from convdsl.kernel.target import Target
from convdsl.runtime.cpu import Code, LoadedCode
from convdsl.tensor import DType, TensorType

CHAINS = 12
"""Independent sums, enough to hide the latency of two units of four or five cycles."""

_ROUNDS = 1 << 17
_REPEATS = 15


def measure_peak(threads: int, cpu: str = "native", dtype: DType = DType.F32) -> float:
    """Multiply-adds, two FLOPs each, in GFLOP/s: the best of several short runs."""
    target = llvm.find_target(cpu)
    lanes = target.lanes(dtype)
    program = _program(target, dtype, threads)
    object_code = llvm.emit_object(llvm_module.print_module(program, target), target)
    code = Code.of(program, object_code)
    loaded = LoadedCode(code, np.empty(0, np.uint8))
    factors = np.full(2 * lanes, 0.5, dtype.numpy)
    best = min(_seconds(loaded, factors, threads) for _ in range(_REPEATS))
    return 2 * threads * CHAINS * lanes * _ROUNDS / best / 1e9


def _seconds(loaded: LoadedCode, factors: np.ndarray, threads: int) -> float:
    started = time.perf_counter()
    loaded.run([factors], threads)
    return time.perf_counter() - started


def _program(target: Target, dtype: DType, threads: int) -> Program:
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
    step = Step("peak", (Argument(Place.INPUT), Argument(Place.OUTPUT)), ("peak",))
    given = Port("factors", TensorType(dtype, (2 * lanes,)))
    made = Port("sums", TensorType(dtype, (threads * width,)))
    return Program("peak", (b.kernel(),), (step,), (given,), (made,), 0, 0)
