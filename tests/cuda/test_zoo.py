"""Every kernel of every model of the zoo, and of steps of training, compiled for cards: nothing
spilled, no local memory. A few always; all of them where slow tests are asked for."""

from __future__ import annotations

import pytest
from graphs import rewritten
from machine_code import compiled

import convdsl
from convdsl import zoo
from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import ARCHITECTURES, CudaTarget
from convdsl.lowering.lower import lower
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.training.settings import complete
from convdsl.training.step import training_step

ALWAYS = {("lenet5", "sm_75"), ("mnist_cnn", "sm_90")}
SIZE = 64  # of images whose size is free

CASES = [
    pytest.param(name, arch, marks=() if (name, arch) in ALWAYS else pytest.mark.slow)
    for name in zoo.names()
    for arch in ARCHITECTURES
]


def bound(graph: Graph, batch: int) -> Graph:
    free = {s.name for port in graph.inputs.values() for s in port.type.symbols()}
    return graph.bind({name: batch if name == "N" else SIZE for name in free})


def check(graph: Graph, arch: str) -> None:
    target = CudaTarget(arch)
    lowered = lower(graph, cuda_machine(target), "zoo")
    for function in compiled(print_module(lowered.program, target).source, arch).values():
        used = function.resources
        assert used.stack == used.spilled == 0, f"{function.name}: {used}"
        assert not {code for code in function.codes if code.startswith(("LDL", "STL"))}


@pytest.mark.parametrize(("name", "arch"), CASES)
def test_models(name: str, arch: str) -> None:
    check(rewritten(bound(convdsl.load(name).graph, 2)), arch)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1_cifar", "resnet18_cifar", "unet_small"])
def test_steps(name: str, arch: str) -> None:
    model = convdsl.load(name)
    said = {"optimizer": "adamw(lr = 0.001)", "schedule": "constant"}
    step = training_step(model, complete(model, said), list(model.outputs)[:1])
    check(rewritten(bound(step.model.graph, 16)), arch)
