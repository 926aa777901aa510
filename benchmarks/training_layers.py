"""Forward and backward of single layers beside PyTorch's, step by step.

    python -m benchmarks.training_layers [--only PATTERN] [--rounds R] [--threads T] [--steps]
                                         [--json FILE]

Layers are called in turn with PyTorch's, and of each the best time counts. PyTorch runs eagerly, in
its own layout. Ours lie as between convolutions, blocked where channels allow it: bringing inputs
into that layout and outputs back belongs to no layer, and is not counted. Needs PyTorch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convdsl.autodiff import gradients
from convdsl.backends.llvm import module as llvm_module
from convdsl.backends.llvm import objects as llvm
from convdsl.compilation import Plan
from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph, Value
from convdsl.ir.model import Model
from convdsl.kernel.program import Program
from convdsl.ops import BY_NAME
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode, aligned
from convdsl.tensor import DType, TensorType
from convdsl.toolchain import cpu_toolchain
from convdsl.training.mode import training_mode

Module = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """A layer in both languages: operators with their attributes, and a module."""

    name: str
    shape: tuple[int, ...]
    operators: tuple[tuple[str, dict[str, Any]], ...]
    module: Callable[[], Module]


def layer(name: str, shape: tuple[int, ...], module: Callable[[], Module], **ops: Any) -> Layer:
    return Layer(name, shape, tuple(ops.items()), module)


def _norm(channels: int) -> Module:
    return torch.nn.Sequential(torch.nn.BatchNorm2d(channels), torch.nn.ReLU())


LAYERS = (
    layer("bn_relu 64x32", (32, 64, 32, 32), lambda: _norm(64), batch_norm={}, relu={}),
    layer("bn_relu 128x16", (32, 128, 16, 16), lambda: _norm(128), batch_norm={}, relu={}),
    layer("bn_relu 512x4", (32, 512, 4, 4), lambda: _norm(512), batch_norm={}, relu={}),
    layer("bn_relu 32x128", (4, 32, 128, 128), lambda: _norm(32), batch_norm={}, relu={}),
    layer("bn rows", (256, 512), lambda: torch.nn.BatchNorm1d(512), batch_norm={}),
    layer("max_pool 2x2", (64, 32, 24, 24), lambda: torch.nn.MaxPool2d(2), max_pool={"kernel": 2}),
    layer(
        "max_pool 3x3/2",
        (16, 64, 56, 56),
        lambda: torch.nn.MaxPool2d(3, 2, 1),
        max_pool={"kernel": 3, "stride": 2, "pad": 1},
    ),
    layer("avg_pool 2x2", (32, 64, 32, 32), lambda: torch.nn.AvgPool2d(2), avg_pool={"kernel": 2}),
    layer(
        "avg_pool global",
        (32, 512, 8, 8),
        lambda: torch.nn.AdaptiveAvgPool2d(1),
        avg_pool={"kernel": "global"},
    ),
    layer(
        "adaptive_avg 7",
        (8, 256, 13, 13),
        lambda: torch.nn.AdaptiveAvgPool2d(6),
        adaptive_avg_pool={"size": 6},
    ),
    layer(
        "adaptive_max 7",
        (8, 256, 13, 13),
        lambda: torch.nn.AdaptiveMaxPool2d(6),
        adaptive_max_pool={"size": 6},
    ),
    layer("layer_norm", (1576, 384), lambda: torch.nn.LayerNorm(384, eps=1e-5), layer_norm={}),
    layer(
        "group_norm",
        (16, 64, 32, 32),
        lambda: torch.nn.GroupNorm(8, 64),
        group_norm={"groups": 8},
    ),
    layer(
        "instance_norm",
        (16, 64, 32, 32),
        lambda: torch.nn.InstanceNorm2d(64, affine=True),
        instance_norm={"affine": True},
    ),
    layer("softmax", (8, 6, 197, 197), lambda: torch.nn.Softmax(-1), softmax={"axis": -1}),
    layer("log_softmax", (512, 1000), lambda: torch.nn.LogSoftmax(-1), log_softmax={"axis": -1}),
    layer("dropout", (64, 9216), lambda: torch.nn.Dropout(0.5), dropout={"p": 0.5}),
    layer("dropout maps", (32, 64, 32, 32), lambda: torch.nn.Dropout(0.1), dropout={"p": 0.1}),
    layer(
        "resize nearest",
        (4, 64, 32, 32),
        lambda: torch.nn.Upsample(scale_factor=2),
        resize={"scale": 2},
    ),
    layer(
        "resize linear",
        (4, 64, 32, 32),
        lambda: torch.nn.Upsample(scale_factor=2, mode="bilinear"),
        resize={"scale": 2, "mode": "linear"},
    ),
    layer("lrn", (16, 64, 27, 27), lambda: torch.nn.LocalResponseNorm(5), lrn={}),
)


@dataclass
class Ours:
    """The layer compiled, with its gradients."""

    program: Program
    loaded: LoadedCode
    inputs: list[np.ndarray]
    states: list[np.ndarray]
    compile_seconds: float
    best: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.best = np.full(len(self.program.steps), np.iinfo(np.int64).max)

    def run(self, threads: int) -> None:
        clock = np.zeros(self.loaded.code.steps + 1, np.int64)
        self.loaded.run(self.inputs, threads, self.states, times=clock)
        self.best = np.minimum(self.best, np.diff(clock))

    def counted(self) -> list[tuple[str, str, int]]:
        """(kernel, nodes, ticks) of the steps that belong to the layer."""
        steps = zip(self.program.steps, self.best, strict=True)
        return [
            (step.kernel, " ".join(step.nodes), int(ticks))
            for step, ticks in steps
            if not any(n.startswith(("enter", "leave", "output ")) for n in step.nodes)
        ]


def _graph(subject: Layer) -> Graph:
    """The layer, its gradients by data and weights, and what brings in x and dy."""
    build = Build(Graph(), BY_NAME, Names())
    x = build.input("x", TensorType(DType.F32, subject.shape))
    step = build.input("step", TensorType(DType.I64, ()))
    start = value = _entering(build, x)
    for name, attributes in subject.operators:
        value = build(name, value, name=name, **attributes)
    build.graph.outputs = {"y": value}
    training_mode(build, step=step, seed=0, frozen=())
    value = build.graph.outputs["y"]
    dy = _entering(build, build.input("dy", value.type))
    weights = [s.output for s in build.graph.states.values() if s.role.value == "parameter"]
    found = gradients(build.graph, {value: dy}, [start, *weights], build)
    made = {"y": value} | {f"d{k}": dx for k, dx in enumerate(found) if dx is not None}
    build.graph.outputs = {name: _leaving(build, value) for name, value in made.items()}
    return build.graph


def _entering(build: Build, x: Value) -> Value:
    """x as an operator would hand it on."""
    if x.type.rank < 4:
        return x
    return build("max_pool", x, kernel=1, name="enter")


def _leaving(build: Build, value: Value) -> Value:
    """Some of a value: so that all of it is made, and little is handed out."""
    return build("slice", value, name="leave", axes=[0], stop=[1])


def prepare(subject: Layer) -> Ours:
    toolchain = cpu_toolchain(llvm.find_target())
    started = time.perf_counter()
    lowered = Plan(Model(subject.name, _graph(subject)), toolchain).lower({})
    ir = llvm_module.print_module(lowered.program, llvm.find_target(), timed=True)
    code = Code.of(lowered.program, llvm.emit_object(ir, llvm.find_target()))
    seconds = time.perf_counter() - started
    weights = aligned(lowered.program.weight_bytes)
    random = np.random.default_rng(0)
    arrays = {
        key: np.ones(state.type.sizes, np.float32) for key, state in lowered.graph.states.items()
    }
    lowered.pack_weights(arrays, weights)
    inputs = [
        np.asarray(0)
        if not port.type.dtype.is_float
        else random.standard_normal(port.type.sizes, np.float32)
        for port in lowered.program.inputs
    ]
    states = [arrays[port.name].copy() for port in lowered.program.states]
    return Ours(lowered.program, LoadedCode(code, weights), inputs, states, seconds)


def _pytorch(subject: Layer, ours: Ours) -> Callable[[], None]:
    module = subject.module()
    given = dict(zip((p.name for p in ours.program.inputs), ours.inputs, strict=True))
    x = torch.from_numpy(given["x"]).requires_grad_()
    dy = torch.from_numpy(given["dy"])

    def run() -> None:
        x.grad = None
        module(x).backward(dy)

    return run


def _ticks_per_second() -> float:
    """Of the clock that steps are timed by, against wall time, over one idle program."""
    ours = prepare(LAYERS[0])
    clock = np.zeros(ours.loaded.code.steps + 1, np.int64)
    began, first = time.perf_counter(), 0
    last = 0
    while time.perf_counter() - began < 0.3:
        ours.loaded.run(ours.inputs, 1, ours.states, times=clock)
        first, last = first or int(clock[0]), int(clock[-1])
    return (last - first) / (time.perf_counter() - began)


def measure(layers: list[Layer], threads: int, rounds: int, steps: bool) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    rate = _ticks_per_second()
    rows: list[dict[str, Any]] = []
    for subject in layers:
        ours = prepare(subject)
        theirs = _pytorch(subject, ours)
        best = float("inf")
        for _ in range(rounds):
            ours.run(threads)
            began = time.perf_counter()
            theirs()
            best = min(best, time.perf_counter() - began)
        counted = ours.counted()
        own = sum(ticks for _, _, ticks in counted) / rate
        rows.append(
            {"layer": subject.name, "ours_us": own * 1e6, "pytorch_us": best * 1e6}
            | {"ratio": own / best, "steps": len(counted), "compile_s": ours.compile_seconds}
        )
        print(
            f"{subject.name:16} {own * 1e6:9.0f} {best * 1e6:9.0f} us  {own / best:6.2f}"
            f"  {len(counted)} steps  {ours.compile_seconds:.1f} s"
        )
        if steps:
            for kernel, nodes, ticks in counted:
                print(f"    {ticks / rate * 1e6:9.0f}  {kernel:28} {nodes}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="*", help="names, with wildcards")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", action="store_true", help="every step with its time")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    chosen = [subject for subject in LAYERS if fnmatchcase(subject.name, given.only)]
    rows = measure(chosen, given.threads, given.rounds, given.steps)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
