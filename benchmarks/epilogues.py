"""What an activation costs in the store of a convolution.

    python -m benchmarks.epilogues [--rounds R] [--threads T] [--cpu NAME] [--json FILE]

Each activation of the operator table follows a 3x3 convolution, 64 to 64 channels, 56x56, f32. The
kernels are called in turn; of each the best time counts (the step's own, by the processor's clock),
and is set against that of the convolution with a ReLU. The convolution is the direct one.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import convdsl
from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.compilation import Plan
from convdsl.kernel.target import Target
from convdsl.ops import activation
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode, aligned
from convdsl.toolchain import cpu_toolchain

BASE = "relu"
_SOURCE = """convdsl 1
model epilogue() {{
    input x: f32[1, 64, 56, 56]
    x -> relu -> conv(64, 3x3) as conv -> {name} -> output y
}}
"""


@dataclass(frozen=True)
class Subject:
    """A network of one convolution and one activation, ready to run."""

    loaded: LoadedCode
    step: int  # the convolution's
    compile_seconds: float

    def ticks(self, x: np.ndarray, threads: int) -> int:
        """The convolution's own time in one call, by the processor's clock."""
        clock = np.zeros(self.loaded.code.steps + 1, np.int64)
        self.loaded.run([x], threads, times=clock)
        return int(clock[self.step + 1] - clock[self.step])


def prepare(name: str, target: Target) -> Subject:
    """Compile one network for timing. Weights are random."""
    started = time.perf_counter()
    model = convdsl.parse(_SOURCE.format(name=name))
    lowered = Plan(model, cpu_toolchain(target).without("winograd")).lower({})
    program = lowered.program
    ir = llvm_module.print_module(program, target, timed=True)
    code = Code.of(program, llvm.emit_object(ir, target))
    seconds = time.perf_counter() - started
    weights = aligned(program.weight_bytes)
    generator = np.random.default_rng(0)
    states = {
        key: (generator.standard_normal(state.type.sizes) * 0.05).astype(np.float32)
        for key, state in model.graph.states.items()
    }
    lowered.pack_weights(states, weights)
    (step,) = (number for number, step in enumerate(program.steps) if "conv" in step.nodes)
    assert len(program.steps[step].nodes) == 2, f"{name} is a step of its own"
    return Subject(LoadedCode(code, weights), step, seconds)


def measure(target: Target, threads: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each activation, the cheapest first."""
    subjects = {op.name: prepare(op.name, target) for op in activation.OPERATORS}
    x = np.random.default_rng(1).standard_normal((1, 64, 56, 56)).astype(np.float32)
    best = dict.fromkeys(subjects, 1 << 62)
    for _ in range(rounds):
        for name, subject in subjects.items():
            best[name] = min(best[name], subject.ticks(x, threads))
    rows = [
        {
            "activation": name,
            "ratio": best[name] / best[BASE],
            "ticks": best[name],
            "compile_seconds": round(subject.compile_seconds, 3),
        }
        for name, subject in subjects.items()
    ]
    return sorted(rows, key=lambda row: row["ratio"])


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| activation | conv + it / conv + {BASE} |", "|---|--:|"]
    lines += [f"| {row['activation']} | {row['ratio']:.2f} |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu", default="native")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    target = llvm.find_target(options.cpu)
    rows = measure(target, options.threads, options.rounds)
    print(table(rows))
    if options.json:
        facts = {"cpu": target.cpu, "threads": options.threads, "rounds": options.rounds}
        Path(options.json).write_text(json.dumps(facts | {"rows": rows}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
