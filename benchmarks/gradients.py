"""Layers forward and backward, one by one, beside PyTorch.

    python -m benchmarks.gradients [--threads T] [--rounds R] [--only NAME ...]
        [--compare] [--json FILE]

Each layer of the sample stands between two activations, as in a network; its weights are states
that every step changes. Of one compiled step, the time of the layer's own kernels counts, by the
processor's clock: forward, gradient of the input, gradient of the weights with their update; what
is packed for each of them in the call belongs to it. `--compare` times PyTorch's convolution and
its backward pass for the same layer, in turn with ours (run it where `torch` is installed).
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convdsl.autodiff import gradients
from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph
from convdsl.kernel.target import Target
from convdsl.lowering.lower import Lowered, lower
from convdsl.ops import BY_NAME
from convdsl.passes import run as run_passes
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode, aligned
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType, TensorType

Array = np.ndarray[Any, Any]
PARTS = ("forward", "dx", "dw")


@dataclass(frozen=True)
class Layer:
    """One layer: an operator with its attributes on x of a shape."""

    name: str
    shape: tuple[int, ...]
    channels: int
    op: str = "conv"
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def options(self) -> dict[str, Any]:
        return {"channels": self.channels, **self.attributes}


def _conv(name: str, shape: tuple[int, ...], channels: int, kernel: Any, **more: Any) -> Layer:
    return Layer(name, shape, channels, "conv", {"kernel": kernel, "pad": "same", **more})


SAMPLE = (
    # the networks that are named
    _conv("mnist conv1", (64, 1, 28, 28), 32, 3),
    _conv("mnist conv2", (64, 32, 28, 28), 64, 3),
    Layer("mnist linear", (64, 12544), 128, "linear"),
    _conv("resnet stem", (32, 3, 32, 32), 64, 3),
    _conv("resnet 64", (32, 64, 32, 32), 64, 3),
    _conv("resnet down", (32, 64, 32, 32), 128, 3, stride=2, pad=1),
    _conv("resnet skip", (32, 64, 32, 32), 128, 1, stride=2, pad=0),
    _conv("resnet 512", (32, 512, 4, 4), 512, 3),
    _conv("mobilenet dw", (32, 128, 16, 16), 128, 3, groups=128),
    _conv("mobilenet dw down", (32, 128, 16, 16), 128, 3, groups=128, stride=2, pad=1),
    _conv("mobilenet pw", (32, 128, 16, 16), 128, 1),
    _conv("mobilenet pw last", (32, 1024, 2, 2), 1024, 1),
    _conv("unet first", (4, 1, 128, 128), 32, 3),
    _conv("unet 32", (4, 32, 128, 128), 32, 3),
    Layer("unet up", (4, 128, 32, 32), 64, "conv_transpose", {"kernel": 2, "stride": 2}),
    # drawn: any kernel, stride, dilation, groups, rank, channels that fill no block, batch 1
    _conv("5x5 ragged", (8, 20, 24, 24), 50, 5),
    _conv("7x7 stride 2 rgb", (4, 3, 112, 112), 64, 7, stride=2, pad=3),
    _conv("dilated 2", (4, 48, 40, 40), 48, 3, dilation=2),
    _conv("dilated 4", (2, 96, 33, 33), 64, 3, dilation=4),
    _conv("1x7", (4, 64, 17, 17), 96, (1, 7)),
    _conv("7x1 stride 2", (4, 40, 34, 34), 40, (7, 1), stride=2, pad="valid"),
    _conv("groups 32 of 4", (8, 128, 28, 28), 128, 3, groups=32),
    _conv("groups 2 of 32", (8, 64, 28, 28), 64, 3, groups=2),
    _conv("groups 3 of 10", (8, 30, 20, 20), 45, 3, groups=3),
    _conv("depthwise 7x7", (4, 96, 28, 28), 96, 7, groups=96),
    _conv("depthwise 5x5 down", (4, 72, 28, 28), 72, 5, groups=72, stride=2, pad=2),
    _conv("multiplier 2", (4, 24, 28, 28), 48, 3, groups=24),
    _conv("batch 1", (1, 128, 56, 56), 128, 3),
    _conv("batch 1, 7x7", (1, 512, 7, 7), 512, 3),
    _conv("1-D", (16, 64, 1000), 96, 9),
    _conv("1-D strided", (16, 12, 2000), 80, 15, stride=4, pad="valid"),
    _conv("3-D", (2, 16, 12, 24, 24), 32, 3),
    _conv("3-D strided", (2, 24, 12, 20, 20), 40, 3, stride=2, pad=1),
    _conv("patches", (8, 3, 96, 96), 192, 8, stride=8, pad="valid"),
    Layer("up 4x4", (4, 96, 16, 16), 48, "conv_transpose", {"kernel": 4, "stride": 2, "pad": 1}),
    Layer("linear 10", (32, 500), 10, "linear"),
    # few rows beside many weights: what moves through memory decides
    Layer("rows 8, large", (8, 25088), 4096, "linear"),
    Layer("rows 16, middle", (16, 4096), 4096, "linear"),
    Layer("rows 32 wide", (32, 768), 3072, "linear"),
    Layer("rows 32 narrow", (32, 3072), 768, "linear"),
    Layer("rows 128", (128, 1536), 384, "linear"),
    Layer("rows 512", (512, 96), 384, "linear"),
    Layer("rows 24 ragged", (24, 699), 1101, "linear"),
    Layer("xrows 64", (64, 3072), 768, "linear"),
    Layer("xrows 16", (16, 3072), 768, "linear"),
    Layer("xrows 200", (200, 3072), 768, "linear"),
    Layer("xrows 400", (400, 3072), 768, "linear"),
    Layer("yrows 40 256", (40, 256), 2000, "linear"),
    Layer("yrows 100 512", (100, 512), 1000, "linear"),
    Layer("yrows 1000 512", (1000, 512), 512, "linear"),
    Layer("yrows 300 384", (300, 384), 1000, "linear"),
    Layer("row", (1, 2048), 1000, "linear"),
)


def step_graph(layer: Layer) -> Graph:
    """relu -> layer -> y, and the gradients of the sum of y^2 / 2 by the layer's input and weights,
    which are moved along them."""
    graph = Graph()
    b = Build(graph, BY_NAME, Names())
    x = b("relu", b.input("x", TensorType(DType.F32, layer.shape)))
    node = b.node(layer.op, x, name="layer", **layer.options)
    weights = {key: state.output for key, state in graph.states.items()}
    found = gradients(graph, {node.output: node.output}, [x, *weights.values()], b)
    graph.outputs = {"y": b("reduce_sum", node.output, axes=tuple(range(node.output.type.rank)))}
    for (key, weight), dw in zip(weights.items(), found[1:], strict=True):
        assert dw is not None
        rate = b.constant(0.01, DType.F32)
        graph.updates[key] = b("sub", weight, b("mul", dw, rate), name="update")
    assert found[0] is not None
    graph.outputs["dx"] = b("reduce_sum", found[0], axes=tuple(range(x.type.rank)))
    return run_passes(graph)


def part_of(step: tuple[str, ...]) -> str | None:
    """Which part of the layer a step computes, or packs for; the root of a group comes first."""
    root = step[0].removeprefix("pack for ")
    return {"layer": "forward", "layer.dx": "dx", "layer.dweight": "dw"}.get(root)


class Subject:
    """A compiled step of one layer."""

    def __init__(self, layer: Layer, target: Target) -> None:
        started = time.perf_counter()
        graph = step_graph(layer)
        self.lowered: Lowered = lower(graph, cpu_machine(target), "step")
        program = self.lowered.program
        code = Code.of(
            program, llvm.emit_object(llvm_module.print_module(program, target, timed=True), target)
        )
        self.seconds = time.perf_counter() - started
        random = np.random.default_rng(0)
        self.x = random.standard_normal(layer.shape).astype(np.float32)
        arrays = {
            key: (random.standard_normal(state.type.sizes) * 0.01).astype(np.float32)
            for key, state in graph.states.items()
        }
        weights = aligned(program.weight_bytes)
        self.lowered.pack_weights(arrays, weights)
        self.states = [arrays[port.name] for port in program.states]
        self.loaded = LoadedCode(code, weights)
        self.parts = [part_of(step.nodes) for step in program.steps]

    def rows(self) -> list[tuple[str, str]]:
        """Of each step: the part that it belongs to, and how it runs."""
        choices = self.lowered.choices
        return [(part or "-", c.schedule) for part, c in zip(self.parts, choices, strict=True)]

    def ticks(self, threads: int) -> Array:
        """Of every step in one call, by the processor's clock."""
        clock = np.zeros(self.loaded.code.steps + 1, np.int64)
        self.loaded.run([self.x], threads, self.states, clock)
        return np.diff(clock)

    def schedules(self, part: str) -> str:
        found = [schedule for own, schedule in self.rows() if own == part]
        return " ".join(dict.fromkeys(found))


def peer(layer: Layer, threads: int) -> dict[str, Callable[[], object]]:
    """The same layer in PyTorch: forward, and the backward pass for input and weights apart."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(threads)
    node = next(n for n in step_graph(layer).op_nodes() if n.name == "layer")
    x = torch.randn(*layer.shape)
    w = torch.randn(*node.inputs["weight"].type.sizes)
    if layer.op == "linear":
        dy = torch.randn(*node.output.type.sizes)
        return {
            "forward": lambda: torch.nn.functional.linear(x, w),
            "dx": lambda: dy @ w,
            "dw": lambda: dy.T @ x,
        }
    own = node.attributes
    padding = [before for before, _ in own["pad"]]
    given = (own["stride"], padding, own["dilation"])
    transposed, extra = layer.op == "conv_transpose", [0] * len(padding)
    rest = (transposed, extra, own["groups"])
    y = torch.ops.aten.convolution(x, w, None, *given, *rest)
    dy = torch.randn(*y.shape)

    def backward(*mask: bool) -> object:
        return torch.ops.aten.convolution_backward(dy, x, w, None, *given, *rest, mask)

    return {
        "forward": lambda: torch.ops.aten.convolution(x, w, None, *given, *rest),
        "dx": lambda: backward(True, False, False),
        "dw": lambda: backward(False, True, False),
    }


def ticks_a_second() -> float:
    """Of the processor's clock: a program's own steps against the wall."""
    subject = Subject(_conv("clock", (8, 16, 64, 64), 16, 3), llvm.find_target())
    best = math.inf
    for _ in range(20):
        started = time.perf_counter()
        total = float(subject.ticks(1).sum())
        best = min(best, (time.perf_counter() - started) / total)
    return 1 / best


def measure(layer: Layer, options: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Milliseconds of each part, minima of rounds in turn."""
    subject = Subject(layer, llvm.find_target(options.cpu))
    others = peer(layer, options.threads) if options.compare else {}
    best = np.full(subject.loaded.code.steps, np.inf)
    theirs = dict.fromkeys(others, math.inf)
    for _ in range(options.rounds):
        best = np.minimum(best, subject.ticks(options.threads))
        for part, call in others.items():
            started = time.perf_counter()
            call()
            theirs[part] = min(theirs[part], time.perf_counter() - started)
    row: dict[str, Any] = {"layer": layer.name, "compile_seconds": round(subject.seconds, 2)}
    for part in PARTS:
        own = sum(t for t, p in zip(best, subject.parts, strict=True) if p == part) / rate * 1e3
        row[part] = {"ms": own, "schedules": subject.schedules(part)}
        if others:
            row[part]["torch_ms"] = theirs[part] * 1e3
    return row


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| layer | " + " | ".join(PARTS) + " |", "|---|" + "---|" * len(PARTS)]
    for row in rows:
        cells = [_cell(row[part]) for part in PARTS]
        lines.append(f"| {row['layer']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(part: dict[str, Any]) -> str:
    beside = (
        f" / {part['torch_ms']:.3f} = {part['ms'] / part['torch_ms']:.2f}"
        if ("torch_ms" in part)
        else ""
    )
    return f"{part['ms']:.3f}{beside} ({part['schedules']})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="layers whose names hold one of these")
    parser.add_argument("--compare", action="store_true", help="with PyTorch")
    parser.add_argument("--cpu", default="native")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    rate, rows = ticks_a_second(), []
    for layer in SAMPLE:
        if not options.only or any(part in layer.name for part in options.only):
            rows.append(measure(layer, options, rate))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    if options.compare:
        for part in PARTS:
            ratios = [row[part]["ms"] / row[part]["torch_ms"] for row in rows]
            print(f"{part}: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f} of PyTorch's")
    if options.json:
        facts = {"threads": options.threads, "rounds": options.rounds, "rows": rows}
        Path(options.json).write_text(json.dumps(facts, indent=1), "utf-8")


if __name__ == "__main__":
    main()
