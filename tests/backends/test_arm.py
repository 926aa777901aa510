"""NEON code, executed: object code for AArch64 in a small C program, under qemu-user.

Needs `qemu-user`, `gcc-aarch64-linux-gnu` and `libc6-dev-arm64-cross` (Debian's names).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import random_arrays

import convdsl
from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.compilation import Plan
from convdsl.kernel import cpu_abi
from convdsl.runtime.cpu.code import aligned
from convdsl.toolchain import cpu_toolchain
from convdsl.weights import RandomWeights, bind

QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
COMPILER = shutil.which("aarch64-linux-gnu-gcc")
pytestmark = pytest.mark.skipif(
    not (QEMU and COMPILER),
    reason="needs qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross to run NEON code",
)

MODELS = {
    "residual": """
        input x: f32[1, 3, 12, 12]
        a = x -> conv(8, 3x3) -> bn -> relu
        b = a -> conv(8, 3x3) -> bn
        a + b -> relu -> avgpool(global) -> flatten -> linear(5) -> output y""",
    "separable": """
        input x: f32[1, 3, 17, 13]
        x -> conv(12, 3, stride = 2) -> relu6 -> conv(12, 3, groups = 12) -> bn -> relu6
          -> conv(7, 1) -> maxpool(3, 2) -> output y""",
    "branches": """
        input x: f32[1, 5, 9, 9]
        a = x -> conv(8, 1) -> sigmoid
        b = x -> conv(4, 5) -> tanh
        concat(a, b) -> conv(6, 3, dilation = 2) -> flatten -> linear(20) -> softmax -> output y""",
    "double": """
        input x: f64[2, 4, 8, 8]
        x -> conv(6, 3) -> relu -> conv_transpose(3, 2, stride = 2) -> output y""",
    "two of each": """
        input x: f32[1, 4, 6, 6]
        input z: f32[1, 4, 6, 6]
        output total = x + z
        output scaled = x * z -> exp -> log""",
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C program, not yet linked with a network."""
    made = tmp_path_factory.mktemp("runner") / "run_object.o"
    source = Path(__file__).with_name("run_object.c")
    slots = ("YIELD", "TEAM_SIZE", "WEIGHTS", "ARENA", "COUNTERS", "BOARD", "TICKET", "PORTS")
    others = ("COUNTERS_PER_STEP", "BOARD_WORDS", "BOARD_SEATS")
    numbers = {name: getattr(cpu_abi, name) for name in (*slots, *others)}
    defined = [f"-D{name}={number}" for name, number in numbers.items()]
    command = [COMPILER, "-O1", "-Wall", "-Wextra", "-Werror", *defined, "-c", source, "-o", made]
    subprocess.run([*map(str, command)], check=True)
    return made


@pytest.mark.parametrize("processor", ["generic", "neoverse-n1"])
@pytest.mark.parametrize("name", MODELS)
def test_neon_code(name: str, processor: str, runner: Path, tmp_path: Path) -> None:
    """The numbers of NEON code are those of native code, up to rounding, and do not depend on
    the size of the team."""
    model = convdsl.parse(f"model m {{{MODELS[name]}\n}}\n")
    weights = bind(RandomWeights(1), model.graph.states)
    arrays = random_arrays(model.graph)
    inputs = {n: arrays[n].astype(type.dtype.numpy) for n, type in model.inputs.items()}
    native = convdsl.compile(model, dict(weights), cache=False)(**inputs)
    expected = native if isinstance(native, dict) else {next(iter(model.outputs)): native}
    network = Network(model, processor, weights, runner, tmp_path)
    alone, team = network.run(inputs, 1), network.run(inputs, 3)
    for output, array in expected.items():
        np.testing.assert_allclose(alone[output], array, rtol=1e-5, atol=1e-5, err_msg=output)
        np.testing.assert_array_equal(team[output], alone[output])


class Network:
    """A model as an AArch64 program in a folder."""

    def __init__(
        self,
        model: convdsl.Model,
        processor: str,
        weights: Mapping[str, Any],
        runner: Path,
        folder: Path,
    ) -> None:
        target = llvm.find_target(processor, "aarch64-linux-gnu")
        lowered = Plan(model, cpu_toolchain(target)).lower({})
        self.program = lowered.program
        self.folder = folder
        packed = aligned(self.program.weight_bytes)
        lowered.pack_weights(weights, packed)
        (folder / "weights").write_bytes(packed.tobytes())
        ir = llvm_module.print_module(self.program, target)
        (folder / "net.o").write_bytes(llvm.emit_object(ir, target))
        command = [COMPILER, "-static", "-pthread", runner, "net.o", "-o", "net", "-lm"]
        subprocess.run([*map(str, command)], cwd=folder, check=True)

    def run(self, inputs: Mapping[str, Any], threads: int) -> dict[str, Any]:
        made = self.program
        for name, array in inputs.items():
            (self.folder / name).write_bytes(array.tobytes())
        shapes = {port.name: (port.type.sizes, port.type.dtype) for port in made.outputs}
        sizes = {name: prod(shape) * dtype.bytes for name, (shape, dtype) in shapes.items()}
        scratch = cpu_abi.scratch_bytes(made.arena_bytes, made.private_bytes, threads)
        numbers = map(str, (threads, len(made.steps), scratch))
        names = (port.name for port in made.inputs)
        outputs = (f"{name}.out={size}" for name, size in sizes.items())
        command = [str(QEMU), "net", *numbers, "weights", *names, "--", *outputs]
        subprocess.run(command, cwd=self.folder, check=True, timeout=120)
        return {
            name: np.fromfile(self.folder / f"{name}.out", dtype.numpy).reshape(shape)
            for name, (shape, dtype) in shapes.items()
        }


def test_denormals_are_flushed_and_the_mode_restored(runner: Path, tmp_path: Path) -> None:
    """The C program checks the mode; a product of small numbers is zero."""
    text = "model m {\n input x: f32[1, 2, 4, 4]\n input z: f32[1, 2, 4, 4]\n output y = x * z\n}\n"
    small = np.full((1, 2, 4, 4), 1e-20, "f4")
    network = Network(convdsl.parse(text), "generic", {}, runner, tmp_path)
    assert (network.run({"x": small, "z": small}, 1)["y"] == 0).all()
