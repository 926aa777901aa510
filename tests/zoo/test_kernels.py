"""The kernels of every model of the zoo: iterations independent, no access out of bounds.

For vectors of AVX-512 and of SSE: other layouts, other tiles, other borders.
"""

from __future__ import annotations

import pytest
from executors import check_kernels

import convdsl
from convdsl import zoo
from convdsl.backends.llvm.objects import find_target
from convdsl.compilation import Plan

QUICK = ("lenet5", "mobilenet_v2", "resnet18", "shufflenet_v1", "unet")
CASES = [
    pytest.param(name, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for name in zoo.names()
]


@pytest.mark.parametrize("cpu", ["x86-64-v4", "x86-64-v2"])
@pytest.mark.parametrize("name", CASES)
def test_iterations_are_independent(name: str, cpu: str) -> None:
    model = convdsl.load(name)
    free = {symbol.name for type in model.inputs.values() for symbol in type.symbols()}
    binding = {symbol: 2 if symbol == "N" else 64 for symbol in free}
    check_kernels(Plan(model, find_target(cpu, "x86_64-unknown-linux-gnu")).lower(binding))
