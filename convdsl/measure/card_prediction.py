"""How long a kernel should take on a card, from what was compiled for it: a prediction.

    fill     = blocks / (waves * blocks that the card holds at once)
    issue    = of the main loop: operations per instruction, beside two of a multiply-add alone;
               on tensor units 1, where at most every eighth instruction is a product
    compute  = operations / (peak * fill * issue)
    memory   = bytes of its buffers / bandwidth
    seconds  = max(compute, memory)

Operations are those that the kernel executes (kernel.work), so that a transformed convolution has
fewer than its definition, and tiles that reach beyond the last row have more. How many blocks a
multiprocessor holds follows from the registers, the shared memory and the threads of a block (the
CUDA programming guide's limits, kernel.cuda_target). Caches, latencies and what a launch costs are
left out: a kernel is slower than this, by how much only a card says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from convdsl.analysis.machine import Machine
from convdsl.backends.cuda.disassembly import disassemble, main_loop
from convdsl.backends.cuda.nvrtc import Compiled, Resources, compile_source
from convdsl.backends.cuda.printer import print_module
from convdsl.kernel.cuda_module import CudaModule, Launch
from convdsl.kernel.cuda_target import REGISTERS_SM, WARP, Architecture, CudaTarget
from convdsl.kernel.nodes import Blocks, Kernel
from convdsl.kernel.program import Program
from convdsl.kernel.work import operations
from convdsl.lowering.lower import Lowered
from convdsl.measure.prediction import Bound

_TENSOR = "HMMA"
_ARITHMETIC = {"FFMA": 2, "FADD": 1, "FMUL": 1, "FMNMX": 1, "FSETP": 1, "FSEL": 1, "MUFU": 1}
"""Operations of an instruction on the plain units."""
_SLOTS = 8
"""Issue slots that a product on tensor units leaves free beside itself: what the gates of the
evidence ask of a main loop (docs/gpu.md)."""

_REGISTER_UNIT = 256  # registers that a warp is given at once
_RESERVED = 1024  # bytes of shared memory of a block that are the system's, from sm_80 on


@dataclass(frozen=True, slots=True)
class Predicted(Bound):
    """One launch."""

    launch: Launch
    resources: Resources
    blocks: int  # that a multiprocessor holds at once
    fill: float
    issue: float
    unit: str  # `tensor` or `plain`
    flops: int
    bytes: int


@dataclass(frozen=True)
class Made:
    """A program with its code for a card."""

    lowered: Lowered
    target: CudaTarget
    module: CudaModule
    compiled: Compiled

    @staticmethod
    def of(lowered: Lowered, target: CudaTarget) -> Made:
        """Print and compile it. InputError where NVRTC is missing."""
        module = print_module(lowered.program, target)
        return Made(lowered, target, module, compile_source(module.source, target.arch))


def predict_on_card(made: Made, machine: Machine) -> list[Predicted]:
    """Of every launch, in order. InputError where nvdisasm is missing."""
    target, module, compiled = made.target, made.module, made.compiled
    program = made.lowered.program
    text = disassemble(compiled.cubin)
    loops = {name: _loop(text, name) for name in compiled.resources}
    found: list[Predicted] = []
    for launch, grids in _launches(program, module.launches):
        loop, resources = loops[launch.function], compiled.resources[launch.function]
        moved = sum(b.size * b.dtype.bytes for kernel, _ in grids for b in kernel.buffers)
        flops = sum(operations(grid) for _, grid in grids)
        held = blocks_held(launch, resources, target.facts)
        fill = _fill(math.prod(launch.grid), held * target.facts.multiprocessors)
        rate = _peak(machine, loop.unit, target) * fill * loop.issue
        compute, memory = flops / rate, moved / machine.bandwidth
        about = (launch, resources, held, fill, loop.issue, loop.unit)
        found.append(Predicted(compute, memory, *about, flops, moved))
    return found


def blocks_held(launch: Launch, resources: Resources, facts: Architecture) -> int:
    """Blocks of a launch that a multiprocessor holds at once; at least one, as it was launched."""
    threads = math.prod(launch.block)
    warps = -(-threads // WARP)
    of_a_warp = -(-resources.registers * WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    shared = launch.shared_bytes + resources.shared
    shared += _RESERVED if facts.capability >= 80 else 0
    limits = [
        facts.blocks_sm,
        facts.threads_sm // (warps * WARP),
        REGISTERS_SM // max(of_a_warp * warps, 1),
    ]
    if shared:
        limits.append(facts.shared_bytes_sm // shared)
    return max(1, min(limits))


def _fill(blocks: int, held: int) -> float:
    """How much of the card works, on average over the waves of blocks."""
    return blocks / (-(-blocks // held) * held)


@dataclass(frozen=True, slots=True)
class _Loop:
    """Which unit a function's main loop uses, and how much of its rate that can ask for."""

    unit: str
    issue: float


def _loop(text: str, function: str) -> _Loop:
    """The main loop by tensor units, or else by the plain ones."""
    tensor = main_loop(text, function, (_TENSOR,))
    products = sum(_TENSOR in line for line in tensor)
    if products:
        return _Loop("tensor", min(1.0, _SLOTS * products / len(tensor)))
    plain = main_loop(text, function, tuple(_ARITHMETIC))
    done = sum(
        count for line in plain for name, count in _ARITHMETIC.items() if line.startswith(name)
    )
    return _Loop("plain", max(done, 1) / (2 * len(plain)))


def _peak(machine: Machine, unit: str, target: CudaTarget) -> float:
    """Operations per second of a unit, in the precision of the code."""
    if unit == "plain":
        return machine.operations
    peak = machine.tf32 if target.precision == "high" else machine.bf16
    return machine.operations if peak is None else peak


def _launches(
    program: Program, launches: tuple[Launch, ...]
) -> Iterator[tuple[Launch, list[tuple[Kernel, Blocks]]]]:
    """Each launch with the grids that it is of, and their kernels."""
    kernels: Mapping[str, Kernel] = {kernel.name: kernel for kernel in program.kernels}
    steps = (kernels[step.kernel] for step in program.steps)
    grids = ((kernel, grid) for kernel in steps for grid in kernel.body)
    pairs = ((kernel, grid) for kernel, grid in grids if isinstance(grid, Blocks))
    for launch in launches:
        yield launch, list(islice(pairs, launch.steps))
