"""Memory of each iteration's own: rows turned around in it, by whoever comes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convdsl.kernel.builder import Builder
from convdsl.kernel.independence import check_bounds, check_independent
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Access, Argument, Place
from convdsl.kernel.text import format_kernel
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.kernel.verify_program import ProgramError, verify_program
from convdsl.tensor import DType
from tests.kernels import program_of, run_interpreter, run_machine_code

LENGTH = 48


def reversing(rows: int, stored: int = LENGTH) -> Kernel:
    """y[row, i] = x[row, LENGTH - 1 - i], after the first `stored` elements were put aside."""
    b = Builder("reversing", DType.F32, 1)
    x = b.buffer("x", DType.F32, rows * LENGTH)
    y = b.buffer("y", DType.F32, rows * LENGTH, written=True)
    first, second = b.private("first", LENGTH), b.private("second", LENGTH)
    with b.parallel(("row",), (rows,)) as (row,):
        with b.serial("i", stored) as i:
            b.store(first, i, b.load(x, row * LENGTH + i))
        with b.serial("i", LENGTH) as i:
            b.store(second, i, b.load(first, LENGTH - 1 - i))
        with b.serial("i", LENGTH) as i:
            b.store(y, row * LENGTH + i, b.load(second, i))
    return b.kernel()


@pytest.mark.dear
@pytest.mark.parametrize("threads", [1, 2, 3, 16, 300])
def test_every_thread_has_its_own(threads: int) -> None:
    rows = 4000
    kernel = reversing(rows)
    verify_kernel(kernel)
    x = np.random.default_rng(0).standard_normal(rows * LENGTH).astype("f4")
    expected = x.reshape(rows, LENGTH)[:, ::-1].reshape(-1)
    for _ in range(10):
        made = run_machine_code(kernel, {"x": x}, threads=threads)
        assert made.keys() == {"y"}
        np.testing.assert_array_equal(made["y"], expected)


def test_the_interpreter_agrees_and_iterations_are_independent() -> None:
    kernel = reversing(3)
    check_independent(kernel)
    check_bounds(kernel)
    x = np.arange(3 * LENGTH, dtype="f4")
    found = run_interpreter(kernel, {"x": x})["y"]
    np.testing.assert_array_equal(found, x.reshape(3, LENGTH)[:, ::-1].reshape(-1))


def test_what_an_iteration_leaves_is_gone() -> None:
    """The last element that is put aside is the one of an earlier row, if of any."""
    found = run_interpreter(reversing(3, LENGTH - 1), {"x": np.ones(3 * LENGTH, "f4")})["y"]
    assert np.isnan(found.reshape(3, LENGTH)[:, 0]).all()
    assert not np.isnan(found.reshape(3, LENGTH)[:, 1:]).any()


def test_text_names_it() -> None:
    assert "  own first: f32[48]\n" in format_kernel(reversing(2))


def test_it_is_refused_outside_of_iterations_and_before_it_is_written() -> None:
    b = Builder("outside", DType.F32, 1)
    x, own = b.buffer("x", DType.F32, 1), b.private("own", 1)
    b.store(own, 0, b.load(x, 0))
    with pytest.raises(KernelError, match="own is private to iterations"):
        verify_kernel(b.kernel())
    b = Builder("early", DType.F32, 1)
    y, own = b.buffer("y", DType.F32, 4, written=True), b.private("own", 1)
    with b.parallel(("i",), (4,)) as (i,):
        b.store(y, i, b.load(own, 0))
    with pytest.raises(KernelError, match="own is read before anything is stored in it"):
        verify_kernel(b.kernel())


def test_programs_give_it_private_memory_alone() -> None:
    program = program_of(reversing(2))
    verify_program(program)
    (step,) = program.steps
    wrong = Argument(Place.OUTPUT, 0, 0, Access.WRITE)
    kept = step.arguments
    for arguments in ((*kept[:2], wrong, kept[3]), (kept[0], kept[2], *kept[2:])):
        changed = replace(step, arguments=arguments)
        with pytest.raises(ProgramError):
            verify_program(replace(program, steps=(changed,)))
    with pytest.raises(ProgramError, match="does not lie in"):
        verify_program(replace(program, private_bytes=64))
