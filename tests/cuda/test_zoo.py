"""Every kernel of every model of the zoo, and of steps of training, compiled for cards in every
precision that they have: nothing spilled, no local memory. Two always; all of them where slow tests
are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict

import pytest
from drawn_convolutions import conv_graph
from graphs import rewritten
from layer_steps import step_graph
from resource_gate import check_resources, functions_of

import convdsl
from convdsl import zoo
from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import ARCHITECTURES, PRECISIONS, CudaTarget
from convdsl.lowering.lower import lower
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.training.settings import complete
from convdsl.training.step import training_step

ALWAYS = {("lenet5", "sm_75"), ("mnist_cnn", "sm_90")}
SIZE = 64  # of images whose size is free
MODELS = [
    pytest.param(name, arch, marks=() if (name, arch) in ALWAYS else pytest.mark.slow)
    for arch in ARCHITECTURES
    for name in zoo.names()
]
STEPS = ["lenet5", "mobilenet_v1_cifar", "resnet18_cifar", "unet_small"]

Record = Callable[[str, object], None]


def bound(graph: Graph, batch: int) -> Graph:
    free = {s.name for port in graph.inputs.values() for s in port.type.symbols()}
    return graph.bind({name: batch if name == "N" else SIZE for name in free})


def targets(arch: str) -> Iterator[CudaTarget]:
    """In every precision that the architecture has."""
    for precision in PRECISIONS:
        target = CudaTarget(arch, precision)
        if precision == "highest" or target.has_bf16:
            yield target


def check(graph: Graph, name: str, arch: str, record: Record) -> None:
    graph = rewritten(graph)
    sources = {
        f"{name} {target.precision}": print_module(
            lower(graph, cuda_machine(target), "zoo").program, target
        ).source
        for target in targets(arch)
    }
    gate = check_resources(sources, arch)
    record("gate", json.dumps(asdict(gate)))
    assert not gate.findings, "\n".join(gate.findings)


@pytest.mark.dear
@pytest.mark.parametrize(("name", "arch"), MODELS)
def test_models(name: str, arch: str, record_property: Record) -> None:
    check(bound(convdsl.load(name).graph, 2), name, arch, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", STEPS)
def test_steps(name: str, arch: str, record_property: Record) -> None:
    model = convdsl.load(name)
    said = {"optimizer": "adamw(lr = 0.001)", "schedule": "constant"}
    step = training_step(model, complete(model, said), list(model.outputs)[:1])
    check(bound(step.model.graph, 16), f"{name} trained", arch, record_property)


ONCE_SPILLED = {
    "sm_80": conv_graph((2, 3, 224, 224), {"channels": 64, "kernel": 7, "stride": 2}),
    "sm_86": step_graph(
        "conv", (16, 512, 4, 4), {"channels": 512, "kernel": 3, "stride": 2, "groups": 512}
    ),
    "sm_100": step_graph("linear", (256, 1024), {"channels": 1000}),
}


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("arch", ONCE_SPILLED)
def test_what_once_spilled(arch: str, record_property: Record) -> None:
    """Copies from many rows, whose indices were of 64 bits; a product without a loop, in which all
    is loaded ahead that there are registers for; and one that ptxas gave too few by itself."""
    check(ONCE_SPILLED[arch], "a layer", arch, record_property)


SPILLING = """
// before
extern "C" __global__ void __launch_bounds__(1024, 2) of_many(float* a) {
    float s[64];
    for (int i = 0; i < 64; i++) s[i] = a[i];
    __syncthreads();
    for (int i = 0; i < 64; i++) a[i * threadIdx.x] = s[63 - i] * s[i];
}
extern "C" __global__ void __launch_bounds__(32) of_few(float* a) {
    a[threadIdx.x] = 0.0f;
}
"""


def test_what_spills_is_found() -> None:
    """By its own name, whatever it is compiled as; a second time from what is kept."""
    assert list(functions_of(SPILLING)) == ["of_many", "of_few"]
    for _ in range(2):
        gate = check_resources({"sample": SPILLING}, "sm_80")
        (finding,) = gate.findings
        assert finding.startswith("sample, sm_80, of_many: ")
    assert (gate.kernels, gate.compiled) == (2, 0)
