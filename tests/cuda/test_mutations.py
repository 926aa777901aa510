"""Kernels with one mistake each, at every place where one can be made: the interpreter of the loop
IR and the printed source on the processor both see it, or it is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_shim.mutations import Mutant, mutants
from cuda_shim.programs import run_on_cpu
from cuda_shim.running import ORDERS, Caught
from grids import block_sums, tiled_matmul
from group_units import group_matmul, group_matmul_across
from kernels import program_of
from tensor_units import warp_matmul

from convdsl.backends.cuda.printer import print_module
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.grid import shuffled
from convdsl.kernel.group_mma import ACROSS, GroupForm
from convdsl.kernel.independence import check_bounds, check_independent
from convdsl.kernel.interpret import interpret
from convdsl.kernel.mma import BF16, TF32
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Program
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert

Array = np.ndarray[Any, Any]
TARGET = CudaTarget("sm_90a")

KERNELS: Mapping[str, Callable[[], Kernel]] = {
    "tiles": lambda: tiled_matmul(6, 7, 8),
    "sums": lambda: block_sums(61),
    "tf32": lambda: warp_matmul(TF32, 20, 7, 22),
    "bf16": lambda: warp_matmul(BF16, 20, 7, 38),
    "groups": lambda: group_matmul(GroupForm(DType.F16, 64), 65, 9, 140, groups=1),
    "groups across": lambda: group_matmul_across(GroupForm(DType.BF16, 64, ACROSS), 40, 9, 70),
}

SLOW = ("groups", "groups across")  # minutes: hundreds of mutants, 128 threads each


def operands(kernel: Kernel) -> dict[str, Array]:
    random = np.random.default_rng(5)
    read = [b for b in kernel.buffers if not b.written]
    drawn = {b.name: random.standard_normal(b.size).astype("f4") for b in read}
    return {b.name: convert(drawn[b.name], DType.F32, b.dtype) for b in read}


def by_interpreter(kernel: Kernel, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What it writes; KernelError where the interpreter, or what is proven before, objects. Its
    ledger does not depend on the order."""
    verify_kernel(kernel)
    check_independent(kernel)
    check_bounds(kernel)
    written = {b.name: np.full(b.size, np.nan, b.dtype.numpy) for b in kernel.buffers if b.written}
    interpret(kernel, {**arrays, **written}, shuffled(1))
    return written


class Shim:
    """All mutants that can be printed in one module, which is compiled once."""

    def __init__(self, made: list[Kernel]) -> None:
        self.programs = {kernel.name: program_of(kernel) for kernel in made}
        whole = Program("mutants", tuple(made), (), (), (), 0, 0)
        self.source = print_module(whole, TARGET).source

    def run(self, kernel: Kernel, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What it writes, the same in every order; Caught where a detector has a finding."""
        program = self.programs[kernel.name]
        launches = print_module(program, TARGET)
        module = replace(launches, source=self.source)
        inputs = [arrays[port.name] for port in program.inputs]
        results = [
            run_on_cpu(program, module, np.empty(0, np.uint8), inputs, order=order)
            for order in ORDERS.values()
        ]
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                if not np.array_equal(a, b, equal_nan=True):
                    raise Caught("order", "two orders of threads give different results")
        return {p.name: a for p, a in zip(program.outputs, results[0], strict=True)}


def close(found: Mapping[str, Array], expected: Mapping[str, Array]) -> bool:
    return all(np.allclose(found[name], expected[name], 1e-6, 1e-6) for name in expected)


def printable(kernel: Kernel) -> bool:
    try:
        print_module(program_of(kernel), TARGET)
    except KernelError:
        return False
    return True


COUNTER = "counter"
"""The interpreter minds a counter beyond its stated range; what then happens may be harmless."""


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else []) for n in KERNELS]
)
def test_every_mistake_is_seen_twice(name: str) -> None:
    kernel = KERNELS[name]()
    arrays = operands(kernel)
    expected = by_interpreter(kernel, arrays)
    made = mutants(kernel)
    printed = [m.kernel for m in made if printable(m.kernel)]
    shim = Shim([kernel, *printed])
    assert close(shim.run(kernel, arrays), expected), "the kernel itself is right"
    seen: Counter[str] = Counter()
    missed: list[str] = []
    for mutant in made:
        first = interpreter_says(mutant, arrays, expected)
        second = shim_says(shim, mutant, arrays, expected)
        seen[f"{first} / {second}"] += 1
        if first != COUNTER and (first is None) != (second is None):
            missed.append(f"{mutant.kind} {mutant.place}: {first} / {second}")
    assert not missed, seen


def interpreter_says(
    mutant: Mutant, arrays: Mapping[str, Array], expected: Mapping[str, Array]
) -> str | None:
    try:
        found = by_interpreter(mutant.kernel, arrays)
    except KernelError as error:
        return COUNTER if "outside its stated range" in str(error) else "interpreter"
    return None if close(found, expected) else "values"


def shim_says(
    shim: Shim, mutant: Mutant, arrays: Mapping[str, Array], expected: Mapping[str, Array]
) -> str | None:
    if mutant.kernel.name not in shim.programs:
        return "verifier"
    try:
        found = shim.run(mutant.kernel, arrays)
    except Caught as caught:
        return caught.detector
    return None if close(found, expected) else "values"
