"""One step of training against PyTorch, eager and compiled, in one run.

    python -m benchmarks.training [--models A B] [--threads 1 2] [--rounds R] [--json FILE]

needs PyTorch beside convdsl (the environment of `make test-torch`). Every peer is a process of its
own with the same weights and batches, trained by SGD with momentum 0.9 at a rate of 0.01; rounds
alternate between the processes, in either order. Ratios are convdsl's time divided by that of the
better of PyTorch's two. A model is one of four by name, or any network with its batch and
parameters: `resnext50_32x4d:resolution=64@8`. The first losses are compared, so that equal steps
are: `--losses 200` compares so many, and says how far they are apart in the first 50 and in all.

The roofline is that of direct convolutions: two operations per multiply-accumulate of forward and
backward pass, at the peak that convdsl's own multiply-add kernel reaches in the same run. Memory is
the greatest resident size above that after the imports.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load_file, save_file

import convdsl
from benchmarks.worker import peak_bytes
from convdsl.measure.peak import measure_peak
from convdsl.training.cost import training_cost
from convdsl.training.session import Session
from convdsl.training.settings import complete
from convdsl.weights import RandomWeights, bind

RATE, MOMENTUM = 0.01, 0.9
CALLS = 3  # of one peer before it is another's turn
REST = 0.02
BATCHES = 8  # that are trained on in turn
EARLY = 50  # steps in which losses have hardly strayed


@dataclass(frozen=True)
class Workload:
    """A network of the zoo, its parameters, the input of one sample and the batch."""

    network: str
    batch: int
    shape: tuple[int, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def load(self) -> Any:
        return convdsl.load(self.network, **self.parameters)


WORKLOADS = {
    "mnist_cnn": Workload("mnist_cnn", 64, (1, 28, 28)),
    "resnet18_cifar": Workload("resnet18_cifar", 32, (3, 32, 32)),
    "mobilenet_v1_cifar": Workload("mobilenet_v1_cifar", 32, (3, 32, 32)),
    "unet_small": Workload("unet_small", 4, (1, 128, 128)),
}


def workload(text: str) -> Workload:
    """One of those by its name, or any network: `NAME[:PARAMETER=VALUE,...]@BATCH`.

    Sizes are the network's own, which parameters set; weights and pixels are random.
    """
    if text in WORKLOADS:
        return WORKLOADS[text]
    network, at, batch = text.partition("@")
    if not at or not batch.isdecimal() or not int(batch):
        raise SystemExit(f"{text}: neither of {', '.join(WORKLOADS)} nor NETWORK@BATCH")
    name, _, settings = network.partition(":")
    parameters = {
        key: literal_eval(value)
        for key, _, value in (setting.partition("=") for setting in settings.split(",") if setting)
    }
    inputs = tuple(convdsl.load(name, **parameters).inputs.values())
    shape = tuple(size for size in inputs[0].shape[1:] if isinstance(size, int))
    if len(inputs) > 1 or len(shape) < inputs[0].rank - 1:
        raise SystemExit(f"{text}: this network has several inputs, or sizes that are left open")
    return Workload(name, int(batch), shape, parameters)


def _settings(model: Any) -> dict[str, str]:
    """What all are trained with, whatever the texts say."""
    return {
        "loss": f"cross_entropy({next(iter(model.outputs))}, label)",
        "optimizer": f"sgd(lr = {RATE}, momentum = {MOMENTUM})",
        "schedule": "constant",
    }


class Trainer(Protocol):
    """One way to train; `step` returns the loss before the update."""

    def step(self) -> float: ...


class Convdsl:
    """The step as a user's session runs it."""

    def __init__(self, folder: Path, name: str, threads: int) -> None:
        model = workload(name).load()
        settings = complete(model, _settings(model))
        weights = load_file(folder / "weights.safetensors")
        self._session = Session(model, settings, weights, threads=threads, cache=False)
        (image,), (target,) = model.inputs, self._session.targets
        arrays = np.load(folder / "batches.npz")
        pairs = zip(arrays["x"], arrays["y"], strict=True)
        self._batches = cycle([{image: x, target: y} for x, y in pairs])

    def step(self) -> float:
        return float(self._session.step(next(self._batches), RATE)["loss"])


class Torch:
    """The same network as PyTorch source."""

    compiled = False
    channels_last = False

    def __init__(self, folder: Path, name: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        spec = importlib.util.spec_from_file_location("network", folder / "network.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (network,) = (
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, torch.nn.Module)
            and value.__module__ == "network"
        )
        weights = load_file(folder / "weights.safetensors")
        arrays = np.load(folder / "batches.npz")
        format = torch.channels_last if self.channels_last else torch.contiguous_format
        made = network()
        made.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
        made = made.train().to(memory_format=format)
        self._run: Any = torch.compile(made) if self.compiled else made
        self._optimiser = torch.optim.SGD(made.parameters(), lr=RATE, momentum=MOMENTUM)
        self._loss = torch.nn.CrossEntropyLoss()
        self._batches = cycle(
            [
                (torch.from_numpy(x).to(memory_format=format), torch.from_numpy(y))
                for x, y in zip(arrays["x"], arrays["y"], strict=True)
            ]
        )

    def step(self) -> float:
        x, y = next(self._batches)
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._loss(self._run(x), y)
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())


class TorchChannelsLast(Torch):
    """The same with channels last in memory, which is often the faster way on a CPU."""

    channels_last = True


class TorchCompiled(Torch):
    """The same through torch.compile."""

    compiled = True


PEERS: dict[str, type[Any]] = {
    "convdsl": Convdsl,
    "torch": Torch,
    "torch channels last": TorchChannelsLast,
    "torch compiled": TorchCompiled,
}


def serve(peer: str, folder: Path, name: str, threads: int, first: int) -> None:
    """Be a peer: the first losses and times on one line, then times for each number read."""
    if peer != "convdsl":
        import torch  # noqa: F401  counted as an import, not as the network's memory
    before = peak_bytes()
    started = time.perf_counter()
    trainer: Trainer = PEERS[peer](folder, name, threads)
    losses = [trainer.step()]
    ready = time.perf_counter() - started
    losses += [trainer.step() for _ in range(first - 1)]
    print(json.dumps({"ready s": ready, "losses": losses}), flush=True)
    for line in sys.stdin:
        times: list[float] = []
        for _ in range(int(line)):
            started = time.perf_counter()
            trainer.step()
            times.append(time.perf_counter() - started)
        print(json.dumps({"times": times, "bytes": peak_bytes() - before}), flush=True)


class Worker:
    """A peer's process."""

    def __init__(self, peer: str, folder: Path, name: str, threads: int, first: int) -> None:
        command = [sys.executable, "-m", "benchmarks.training", "--serve", peer, str(folder), name]
        self._process = subprocess.Popen(
            [*command, str(threads), str(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.prepared = self._read()

    def times(self, steps: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a peer's process has ended; its message is above")
        return json.loads(line)


def prepare(folder: Path, name: str) -> int:
    """Weights, batch and PyTorch source of a workload; the multiply-accumulates of a step."""
    work = workload(name)
    model = work.load()
    settings = complete(model, _settings(model))
    weights = dict(bind(RandomWeights(0), model.graph.states))
    own = {k: a for k, a in weights.items() if model.graph.states[k].data is None}
    save_file(own, folder / "weights.safetensors")
    (folder / "network.py").write_bytes(convdsl.export(model, None, None, to="pytorch"))
    session = Session(model, settings, weights)
    random = np.random.default_rng(0)
    (output,) = model.outputs.values()
    binding = {
        s.name: n for s, n in zip(model.symbols, (work.batch, *work.shape[1:]), strict=False)
    }
    (target,) = (type.bind(binding) for type in session.plan.targets.values())
    y = random.integers(0, int(output.shape[1]), (BATCHES, *target.sizes))
    x = random.standard_normal((BATCHES, work.batch, *work.shape)).astype(np.float32)
    np.savez(folder / "batches.npz", x=x, y=y)
    cost = training_cost(model, settings, binding=binding)
    return sum(int(macs or 0) for macs, _ in cost.arithmetic.values())


def measure(
    folder: Path, name: str, threads: int, rounds: int, peers: list[str], first: int
) -> list[dict[str, Any]]:
    """A row per peer."""
    workers = {peer: Worker(peer, folder, name, threads, first) for peer in peers}
    times: dict[str, list[float]] = {peer: [] for peer in workers}
    memory: dict[str, int] = {}
    for worker in workers.values():
        worker.times(1)
    for turn in range(rounds):
        for peer, worker in list(workers.items())[:: 1 if turn % 2 else -1]:
            time.sleep(REST)
            answer = worker.times(CALLS)
            times[peer] += answer["times"]
            memory[peer] = answer["bytes"]
    rows: list[dict[str, Any]] = []
    for peer, worker in workers.items():
        worker.close()
        rows.append(
            {
                "model": name,
                "threads": threads,
                "peer": peer,
                "median ms": statistics.median(times[peer]) * 1e3,
                "min ms": min(times[peer]) * 1e3,
                "first step s": worker.prepared["ready s"],
                "peak MB": memory[peer] / 1e6,
                "losses": worker.prepared["losses"],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        default=list(WORKLOADS),
        metavar="NAME",
        help=f"{', '.join(WORKLOADS)}, or NETWORK[:PARAMETER=VALUE,...]@BATCH",
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="T")
    parser.add_argument("--rounds", type=int, default=5, help=f"of {CALLS} steps (default 5)")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), metavar="PEER")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--losses", type=int, default=5, help="first losses that are compared")
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        peer, folder, name, threads, first = options.serve
        serve(peer, Path(folder), name, int(threads), int(first))
        return
    peaks = {threads: measure_peak(threads) for threads in options.threads}
    results: list[dict[str, Any]] = []
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in options.models:
            macs = prepare(folder, name)
            for threads in options.threads:
                rows = measure(folder, name, threads, options.rounds, options.peers, options.losses)
                roof = 2e-6 * macs / peaks[threads]
                others = [row["min ms"] for row in rows if row["peer"] != "convdsl"]
                for row in rows:
                    row["roofline ms"] = roof
                    row["apart"] = _apart(rows[0]["losses"], row["losses"])
                    if row["peer"] == "convdsl" and others:
                        row["ratio"] = row["min ms"] / min(others)
                        ratios.append(row["ratio"])
                    _show(row)
                results += rows
    for threads, peak in peaks.items():
        print(f"peak of this machine on {threads} threads: {peak:.1f} GFLOP/s")
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(f"geometric mean of ratios {mean:.3f}, worst {max(ratios):.3f}")
    if options.json:
        text = json.dumps({"peak GFLOP/s": peaks, "rows": results}, indent=2)
        options.json.write_text(f"{text}\n")


def _apart(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """How far losses are apart at most: early on, and in all."""
    away = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return max(away[:EARLY]), max(away)


def _show(row: Mapping[str, Any]) -> None:
    early, whole = row["apart"]
    ratio = f"  ratio {row['ratio']:.3f}" if "ratio" in row else ""
    print(
        f"{row['model']:<20} {row['threads']} thr {row['peer']:<15} {row['min ms']:>9.2f} ms"
        f" (median {row['median ms']:.2f}, roofline {row['roofline ms']:.2f})"
        f"  first {row['first step s']:.1f} s  {row['peak MB']:.0f} MB{ratio}\n"
        f"    losses {' '.join(f'{loss:.4f}' for loss in row['losses'][:5])}; apart at most"
        f" {early:.1e} in the first {EARLY}, {whole:.1e} in {len(row['losses'])}",
        flush=True,
    )


if __name__ == "__main__":
    main()
