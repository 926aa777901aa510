"""Whole networks as CUDA C: compiled for cards by NVRTC, and run on the processor as they are."""

from __future__ import annotations

import re
from math import prod

import pytest
from cuda_shim.programs import run_on_cpu
from cuda_shim.running import ORDERS
from executors import check_kernels
from graphs import evaluate_graph, random_arrays, rewritten
from lowering.test_second_target import NETWORKS, assert_close, inputs_of, packed

from convdsl.backends.cuda.printer import print_module
from convdsl.kernel.cuda_target import ARCHITECTURES, CudaTarget
from convdsl.lowering.lower import lower
from convdsl.schedules.cuda.machine import cuda_machine


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, order: str) -> None:
    graph, target = NETWORKS[name](), CudaTarget()
    arrays = random_arrays(graph)
    lowered = lower(rewritten(graph), cuda_machine(target), name)
    check_kernels(lowered)
    module = print_module(lowered.program, target)
    found = run_on_cpu(
        lowered.program,
        module,
        packed(lowered, arrays),
        inputs_of(lowered, arrays),
        (),
        ORDERS[order],
    )
    assert_close(found, lowered, evaluate_graph(graph, arrays))


def test_what_is_in_the_source() -> None:
    """Sizes are numbers; equal layers are one function; nothing is included."""
    module = print_module(
        lower(rewritten(NETWORKS["lenet"]()), cuda_machine(CudaTarget()), "m").program, CudaTarget()
    )
    assert "#include" not in module.source
    head = r'extern "C" __global__ void __launch_bounds__\(\d+\) conv_0\('
    assert re.search(head, module.source)
    assert all(prod(launch.block) % 32 == 0 for launch in module.launches)
    names = {launch.function for launch in module.launches}
    assert all(f" {name}(" in module.source for name in names)


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_compiled_for_every_architecture(arch: str) -> None:
    from cupy.cuda import nvrtc

    target = CudaTarget(arch)
    lowered = lower(rewritten(NETWORKS["attention"]()), cuda_machine(target), "attention")
    source = print_module(lowered.program, target).source
    made = nvrtc.createProgram(source, "attention.cu", [], [])
    nvrtc.compileProgram(made, [f"--gpu-architecture={arch}", "--fmad=false"])
    assert ".entry" in str(nvrtc.getPTX(made))
    assert nvrtc.getCUBIN(made)
