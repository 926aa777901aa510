"""The kernels of every model of the zoo: iterations independent, no access out of bounds.

For vectors of AVX-512 and of SSE: other layouts, other tiles, other borders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from executors import check_kernels

import convdsl
from convdsl import zoo
from convdsl.backends.llvm.objects import find_target
from convdsl.compilation import Plan
from convdsl.kernel.independence import check_independent
from convdsl.kernel.nodes import For, If, Kernel, Parallel, Statement, Store, walk_statements
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import substitute, symbols_of
from convdsl.toolchain import cpu_toolchain

pytestmark = pytest.mark.drawn

QUICK = ("lenet5", "mobilenet_v2", "resnet18", "shufflenet_v1", "unet")
CASES = [
    pytest.param(name, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for name in zoo.names()
]


@pytest.mark.dear
@pytest.mark.parametrize("cpu", ["x86-64-v4", "x86-64-v2"])
@pytest.mark.parametrize("name", CASES)
def test_iterations_are_independent(name: str, cpu: str) -> None:
    model = convdsl.load(name)
    free = {symbol.name for type in model.inputs.values() for symbol in type.symbols()}
    binding = {symbol: 2 if symbol == "N" else 64 for symbol in free}
    toolchain = cpu_toolchain(find_target(cpu, "x86_64-unknown-linux-gnu"))
    check_kernels(Plan(model, toolchain).lower(binding))


@pytest.mark.dear
@pytest.mark.parametrize("cpu", ["x86-64-v4", "x86-64-v2"])
def test_kernels_of_a_network_spoilt(cpu: str) -> None:
    """A store that forgets one parallel counter: every iteration of it writes the same place."""
    toolchain = cpu_toolchain(find_target(cpu, "x86_64-unknown-linux-gnu"))
    program = Plan(convdsl.load("lenet5"), toolchain).lower({"N": 2}).program
    spoilt = [bad for kernel in program.kernels for bad in forgetful(kernel)]
    assert len(spoilt) > 2 * len(program.kernels)
    for kernel in spoilt:
        verify_kernel(kernel)
        with pytest.raises(KernelError, match=r"iteration .* (writes|reads) "):
            check_independent(kernel)


def forgetful(kernel: Kernel) -> Iterator[Kernel]:
    """The kernel with one store changed, for every store and parallel counter that it names."""
    for loop in kernel.body:
        assert isinstance(loop, Parallel)
        for var in loop.vars:
            for store in walk_statements(loop.body):
                names = symbols_of(store.index) if isinstance(store, Store) else ()
                if var.name in {symbol.name for symbol in names}:
                    yield replace(kernel, body=_changed(kernel.body, store, var.name))


def _changed(body: tuple[Statement, ...], store: Statement, counter: str) -> tuple[Statement, ...]:
    made: list[Statement] = []
    for statement in body:
        if statement is store:
            assert isinstance(statement, Store)
            made.append(replace(statement, index=substitute(statement.index, {counter: 0})))
        elif isinstance(statement, For | Parallel):
            made.append(replace(statement, body=_changed(statement.body, store, counter)))
        elif isinstance(statement, If):
            then, otherwise = (
                _changed(arm, store, counter) for arm in (statement.then, statement.otherwise)
            )
            made.append(replace(statement, then=then, otherwise=otherwise))
        else:
            made.append(statement)
    return tuple(made)
