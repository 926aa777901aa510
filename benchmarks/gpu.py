"""Networks on the card that is here against PyTorch and ONNX Runtime, in one run.

    python -m benchmarks.gpu [--models A B] [--batches 1 32 256] [--precisions highest high medium]
                             [--training] [--peers P Q] [--seconds S] [--stop-after S] [--json FILE]

First every row with the peers that are there at once, then again with all of them: what compiles
for minutes (torch.compile, TensorRT) takes the time that is left, and each row stands as it was
measured last. What convdsl has to compile is compiled before, by several processes, into the code
cache.

Inputs lie on the card. Times are between two CUDA events around enough calls for a tenth of a
second; rounds alternate between the peers, in either order, after the clocks have been warmed; the
median is told, and the least. Ratios are convdsl's time divided by that of the fastest other peer
of the same precision: below 1 is faster. The share is that of two operations per multiply-
accumulate in the peak that the card's data sheet has for the precision (kernel.cuda_target); a
training step counts three forward passes.

Peers: convdsl; torch (eager, channels last, cuDNN's own choice of algorithms) and torch compiled
(torch.compile, with CUDA graphs), TF32 for high, autocast to bf16 for medium; onnxruntime on its
CUDA and TensorRT providers where it is installed with them. A peer that cannot is told with its
reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import convdsl
from convdsl import figures
from convdsl.kernel.cuda_target import ARCHITECTURES
from convdsl.runtime.cuda.card import find_card
from convdsl.training.session import Session
from convdsl.training.settings import complete
from convdsl.weights import RandomWeights, bind

MODELS = ("resnet50", "vgg16", "mobilenet_v2", "unet")
SHAPES = {"unet": (3, 256, 256)}
SLICE = 0.1  # seconds between two events
WARM = 1.0  # seconds of calls before anything is timed
RATE, MOMENTUM = 0.01, 0.9
TORCH = "cuda"  # PyTorch's device

Call = Callable[[], object]


def shape_of(name: str) -> tuple[int, ...]:
    """Of one sample."""
    (type,) = convdsl.load(name).inputs.values()
    given = SHAPES.get(name, (3, 224, 224))
    return tuple(e if isinstance(e, int) else g for e, g in zip(type.shape[1:], given, strict=True))


def peak(arch: str, precision: str) -> float:
    """Operations per second of the card's data sheet: f32 on the plain units, TF32 at half the
    tensor units' rate of 16 bits, bf16."""
    facts = ARCHITECTURES[arch]
    return {
        "highest": facts.flops,
        "high": facts.tensor_flops / 2,
        "medium": facts.tensor_flops,
    }[precision]


def elapsed(call: Call, count: int) -> float:
    """Seconds of a call, by events around some."""
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record(cupy.cuda.get_current_stream())
    for _ in range(count):
        call()
    end.record(cupy.cuda.get_current_stream())
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / 1e3 / count


def measure(calls: Mapping[str, Call], seconds: float) -> dict[str, list[float]]:
    """Times of each peer, in turns."""
    counts: dict[str, int] = {}
    for name, call in calls.items():
        ends = time.perf_counter() + WARM
        while time.perf_counter() < ends:
            elapsed(call, 3)
        counts[name] = max(1, int(SLICE / max(elapsed(call, 3), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    ends, number = time.perf_counter() + seconds * len(calls), 0
    while time.perf_counter() < ends or number < 3:
        order = list(calls)[:: 1 if number % 2 else -1]
        for name in order:
            times[name].append(elapsed(calls[name], counts[name]))
        number += 1
    return times


# Peers: each makes a call from a network, an input and a precision


def convdsl_forward(name: str, x: np.ndarray, precision: str) -> Call:
    network = convdsl.compile(name, "random:0", device="cuda", precision=precision)
    given = network.resident({next(iter(network.inputs)): x})
    return lambda: network(**given)


def convdsl_training(name: str, x: np.ndarray, precision: str) -> Call:
    model = convdsl.load(name)
    settings = complete(model, _settings(model))
    session = Session(model, settings, "random:0", device="cuda", precision=precision)
    (image,), (target,) = model.inputs, session.targets
    batch = session.resident({image: x, target: _labels(session, target, x)})
    return lambda: float(session.step(batch, RATE)["loss"])


def _settings(model: Any) -> dict[str, str]:
    return {
        "loss": f"cross_entropy({next(iter(model.outputs))}, label)",
        "optimizer": f"sgd(lr = {RATE}, momentum = {MOMENTUM})",
        "schedule": "constant",
        "augment": "[]",
    }


def _labels(session: Session, target: str, x: np.ndarray) -> np.ndarray:
    shape = session.plan.targets[target].shape[1:]
    sizes = [e if isinstance(e, int) else x.shape[2 + k] for k, e in enumerate(shape)]
    return np.random.default_rng(1).integers(0, 2, (len(x), *sizes))


def _torch_network(name: str) -> Any:
    """The network as PyTorch source, with the same weights, on the card."""
    import torch

    model = convdsl.load(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.py"
        path.write_bytes(convdsl.export(model, to="pytorch"))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    kinds = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == name]
    (network,) = [kind() for kind in kinds if issubclass(kind, torch.nn.Module)]
    weights = bind(RandomWeights(0), model.graph.states)
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in weights.items()}
    network.load_state_dict(tensors, strict=False)
    return network.to(TORCH, memory_format=torch.channels_last)


def _torch_precision(precision: str) -> Any:
    """Set TF32 as asked; what a call is made under."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    torch.backends.cuda.matmul.allow_tf32 = precision != "highest"
    return torch.autocast(TORCH, torch.bfloat16, enabled=precision == "medium")


def torch_forward(name: str, x: np.ndarray, precision: str, *, compiled: bool = False) -> Call:
    import torch

    network = _torch_network(name).eval()
    run: Any = torch.compile(network, mode="reduce-overhead") if compiled else network
    given = torch.from_numpy(x).to(TORCH, memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode(), _torch_precision(precision):
            return run(given)

    call()
    return call


def torch_training(name: str, x: np.ndarray, precision: str, *, compiled: bool = False) -> Call:
    import torch

    network = _torch_network(name).train()
    run: Any = torch.compile(network) if compiled else network
    given = torch.from_numpy(x).to(TORCH, memory_format=torch.channels_last)
    with torch.no_grad():
        shape = network(given).shape
    drawn = np.random.default_rng(0).integers(0, 2, (shape[0], *shape[2:]))
    labels = torch.from_numpy(drawn).to(TORCH)
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)
    measure = torch.nn.CrossEntropyLoss()

    def call() -> object:
        optimiser.zero_grad(set_to_none=True)
        with _torch_precision(precision):
            loss = measure(run(given), labels)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    call()
    return call


def onnxruntime_forward(provider: str) -> Callable[[str, np.ndarray, str], Call]:
    def make(name: str, x: np.ndarray, precision: str) -> Call:
        import onnxruntime

        if provider not in onnxruntime.get_available_providers():
            raise RuntimeError(f"onnxruntime has no {provider} here")
        if precision == "medium":
            raise RuntimeError("onnxruntime computes in the type of the file, f32")
        data = convdsl.export(name, "random:0", to="onnx")
        session = onnxruntime.InferenceSession(
            data, providers=[(provider, {"use_tf32": int(precision == "high")})]
        )
        binding = session.io_binding()
        given = onnxruntime.OrtValue.ortvalue_from_numpy(x, "cuda", 0)
        binding.bind_ortvalue_input(session.get_inputs()[0].name, given)
        binding.bind_output(session.get_outputs()[0].name, "cuda")
        return lambda: session.run_with_iobinding(binding)

    return make


FORWARD: Mapping[str, Callable[[str, np.ndarray, str], Call]] = {
    "convdsl": convdsl_forward,
    "torch": torch_forward,
    "torch compiled": lambda *how: torch_forward(*how, compiled=True),
    "onnxruntime": onnxruntime_forward("CUDAExecutionProvider"),
    "tensorrt": onnxruntime_forward("TensorrtExecutionProvider"),
}
TRAINING: Mapping[str, Callable[[str, np.ndarray, str], Call]] = {
    "convdsl": convdsl_training,
    "torch": torch_training,
    "torch compiled": lambda *how: torch_training(*how, compiled=True),
}


LATER = ("torch compiled", "tensorrt")
"""Who takes minutes to compile."""

Row = tuple[str, int, str]  # model, batch, precision


def sample(name: str, batch: int) -> np.ndarray:
    """Images of noise."""
    shape = (batch, *shape_of(name))
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def compile_ahead(rows: Sequence[Row], *, training: bool) -> str:
    """Fill the code cache with what convdsl runs; what cannot be is told when it is measured."""
    began = time.monotonic()
    workers = min(8, len(rows), (os.cpu_count() or 2) // 2)
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            failed = sum(pool.map(_fails, rows, itertools.repeat(training)))
        return f"compiled ahead in {time.monotonic() - began:.0f} s, {failed} of {len(rows)} failed"
    return "nothing is compiled ahead on so few processors"


def _fails(row: Row, training: bool) -> bool:
    name, batch, precision = row
    try:
        (TRAINING if training else FORWARD)["convdsl"](name, sample(name, batch), precision)()
    except Exception:  # noqa: BLE001 (`compared` tells it)
        return True
    return False


def compared(row: Row, peers: Iterable[str], *, training: bool, seconds: float) -> dict[str, Any]:
    """Times of all peers that can, and why the others cannot."""
    name, batch, precision = row
    x = sample(name, batch)
    calls: dict[str, Call] = {}
    cannot: dict[str, str] = {}
    made = TRAINING if training else FORWARD
    for peer in (peer for peer in peers if peer in made):
        try:
            calls[peer] = made[peer](name, x, precision)
            calls[peer]()
        except Exception as error:  # noqa: BLE001 (whatever keeps a peer from running is told)
            calls.pop(peer, None)
            cannot[peer] = str(error).strip().splitlines()[0][:200] if str(error) else repr(error)
    times = measure(calls, seconds)
    macs = figures.report(name, inputs=x.shape[1:], batch=batch).totals["macs"]
    work = 2 * float(macs) * (3 if training else 1)
    limit = peak(_arch(), precision)
    found: dict[str, Any] = {
        "model": name, "batch": batch, "precision": precision, "training": training,
        "cannot": cannot,
    }  # fmt: skip
    found["peers"] = {
        peer: {
            "median ms": statistics.median(took) * 1e3,
            "min ms": min(took) * 1e3,
            "share": work / min(took) / limit,
        }
        for peer, took in times.items()
    }
    others = [p["median ms"] for peer, p in found["peers"].items() if peer != "convdsl"]
    if others and "convdsl" in found["peers"]:
        found["ratio"] = found["peers"]["convdsl"]["median ms"] / min(others)
    return found


def _arch() -> str:
    from convdsl.runtime.cuda.launching import nearest_architecture

    return nearest_architecture(find_card())


def told(row: Mapping[str, Any]) -> str:
    """A row for a person."""
    head = f"{row['model']:<14} batch {row['batch']:<4} {row['precision']:<8}"
    parts = [
        f"{peer} {found['median ms']:.3f} ms ({found['share']:.0%})"
        for peer, found in row["peers"].items()
    ]
    parts += [f"{peer}: {why}" for peer, why in row["cannot"].items()]
    if "ratio" in row:
        parts.append(f"ratio {row['ratio']:.2f}")
    return f"{head} {', '.join(parts)}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32, 256])
    precisions = ["highest", "high", "medium"]
    parser.add_argument("--precisions", nargs="+", choices=precisions, default=precisions)
    parser.add_argument("--peers", nargs="+", choices=list(FORWARD), default=list(FORWARD))
    parser.add_argument("--training", action="store_true", help="a step instead of a forward pass")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each peer of each row")
    parser.add_argument("--stop-after", type=float, default=float("inf"), metavar="S")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    card = find_card()
    print(f"{card.name}, {card.arch}, {card.memory_bytes / 1e9:.0f} GB", flush=True)
    started = time.monotonic()
    every = itertools.product(options.batches, options.models, options.precisions)
    rows: list[Row] = [(name, batch, precision) for batch, name, precision in every]
    if "convdsl" in options.peers:
        print(compile_ahead(rows, training=options.training), flush=True)
    found: dict[Row, dict[str, Any]] = {}
    left: list[str] = []
    soon = [peer for peer in options.peers if peer not in LATER]
    passes = [soon] if soon == options.peers else [soon, options.peers]
    for peers, row in itertools.product(passes, rows):
        if time.monotonic() - started > options.stop_after:
            left.append(f"{' '.join(map(str, row))}: {', '.join(peers)}")
        else:
            how = {"training": options.training, "seconds": options.seconds}
            found[row] = compared(row, peers, **how)
            print(told(found[row]), flush=True)
        whole = {"card": card.name, "arch": card.arch, "rows": list(found.values())}
        _write(options.json, whole | {"left out": left})
    if left:
        print(f"no time left for {len(left)} rows: {'; '.join(left)}")
    return 0


def _write(path: Path | None, told: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    sys.exit(main())
