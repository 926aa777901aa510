"""A step of two processes of one thread each beside that of one process at the whole batch.

    python -m benchmarks.ranks [--models A B] [--batch N] [--ranks P] [--rounds R] [--link MBIT,MS]

needs mpi4py and an mpiexec (`pip install 'convdsl[mpi]'`). One job does both, in turn: rank 0
alone takes steps of the whole batch while the others sleep, then all take steps of their parts.
Minima of all rounds are compared, which a shared machine disturbs least; so is processor time, of
the rank that took more of it, which says what other work on the machine hides. `waited` is the
time in which a step had nothing to do but wait for sums; `one after the other` are the same steps
where every sum is waited for as soon as it has begun.

--link makes the way between ranks slow: a message takes so many milliseconds, and its bytes
as long as at so many megabits a second, one message after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import convdsl
from convdsl.ranks import Pending, Ranks
from convdsl.ranks.launching import launch
from convdsl.ranks.started import started
from convdsl.training.data.parts import Part
from convdsl.training.session import Session
from convdsl.training.settings import complete

RATE = 0.01
STEPS = 2  # before it is the other's turn
MODELS = {
    "lenet5": ((1, 32, 32), 10),
    "mnist_cnn": ((1, 28, 28), 10),
    "resnet18_cifar": ((3, 32, 32), 10),
    "mobilenet_v2": ((3, 224, 224), 1000),
}


class Slowed:
    """Ranks beside a link of so many bytes a second, on which a message takes a latency more."""

    def __init__(self, ranks: Ranks, rate: float = float("inf"), latency: float = 0.0) -> None:
        self._ranks = ranks
        self._rate = rate
        self._latency = latency
        self._free = 0.0  # when the link will be
        self.at_once = False
        self.sizes: list[int] = []
        self.waited = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ranks, name)

    def all_reduce(self, memory: np.ndarray[Any, Any]) -> Pending:
        now = time.perf_counter()
        self._free = max(now, self._free) + memory.nbytes / self._rate
        self.sizes.append(memory.nbytes)
        sent = _Sent(self, self._ranks.all_reduce(memory), self._free + self._latency)
        if self.at_once:
            sent.wait()
        return sent


class _Sent:
    def __init__(self, ranks: Slowed, pending: Pending, there: float) -> None:
        self._ranks, self._pending, self._there = ranks, pending, there

    def wait(self) -> None:
        begun = time.perf_counter()
        self._pending.wait()
        time.sleep(max(0.0, self._there - time.perf_counter()))
        self._ranks.waited += time.perf_counter() - begun


def compare(name: str, whole: int, rounds: int, ranks: Slowed) -> dict[str, Any]:
    """Minima of the steps of one rank and of all, in seconds."""
    shape, classes = MODELS[name]
    model = convdsl.load(name)
    training = complete(model, {"optimizer": "sgd(momentum = 0.9)", "batch": whole})
    draw = np.random.default_rng(0)
    image = next(iter(model.inputs))
    batch = {
        image: draw.standard_normal((whole, *shape)).astype(np.float32),
        "label": draw.integers(0, classes, whole),
    }
    part = Part.of(whole, ranks.rank, ranks.size)
    mine = {key: array[part.first : part.first + part.count] for key, array in batch.items()}
    shared = Session(model, training, "random:0", threads=1, ranks=ranks)
    alone = Session(model, training, "random:0", threads=1) if ranks.rank == 0 else None
    best: dict[str, float] = {}
    waited = float("inf")

    def timed(key: str, step: Callable[[], Any]) -> None:
        for _ in range(STEPS):
            begun, cpu = time.perf_counter(), time.process_time()
            step()
            _note(best, key, time.perf_counter() - begun)
            _note(best, f"{key} cpu", time.process_time() - cpu)

    def apart() -> None:
        if alone is not None:
            timed("one", lambda: alone.step(batch, RATE))

    def together() -> None:
        nonlocal waited
        ranks.sizes.clear()
        ranks.waited = 0.0
        shared.step(mine, RATE, whole)
        waited = min(waited, ranks.waited)

    apart()
    shared.step(mine, RATE, whole)
    best.clear()
    for _ in range(rounds):
        ranks.barrier()
        apart()
        for ranks.at_once in (False, True):
            ranks.barrier()
            timed("at_once" if ranks.at_once else "all", together)
        ranks.at_once = False
    best["all cpu"] = max(ranks.gather(best["all cpu"]))
    sizes = [size for size in ranks.sizes if size > 8]
    return {**best, "waited": waited, "sums": len(sizes), "bytes": sum(sizes)}


def _work(options: argparse.Namespace) -> int:
    from convdsl.ranks.mpi import open_ranks

    rate, latency = options.link
    ranks = Slowed(open_ranks(), rate * 1e6 / 8, latency * 1e-3)
    for name in options.models:
        found = compare(name, options.batch, options.rounds, ranks)
        if ranks.rank == 0:
            print(_line(name, options.batch, ranks.size, found), flush=True)
            if options.json:
                print(json.dumps({"model": name, **found}))
    return 0


def _note(best: dict[str, float], key: str, took: float) -> None:
    best[key] = min(best.get(key, float("inf")), took)


def _line(name: str, batch: int, ranks: int, found: dict[str, Any]) -> str:
    ms = {key: f"{seconds * 1e3:.1f} ms" for key, seconds in found.items()}
    ratio, cpu = found["all"] / found["one"], found["all cpu"] / found["one cpu"]
    return (
        f"{name}, {batch} samples: one rank {ms['one']}, {ranks} ranks {ms['all']}, "
        f"ratio {ratio:.3f} (processor time {cpu:.3f}); waited {ms['waited']}; "
        f"one after the other {ms['at_once']}; "
        f"{found['sums']} sums of {found['bytes'] / 1e6:.2f} MB"
    )


def _link(text: str) -> tuple[float, float]:
    rate, latency = map(float, text.split(","))
    return rate, latency


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["resnet18_cifar"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--link", type=_link, default=(float("inf"), 0.0), metavar="MBIT,MS")
    parser.add_argument("--json", action="store_true")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    if started():
        return _work(options)
    return launch([sys.executable, "-m", "benchmarks.ranks", *given], options.ranks).code


if __name__ == "__main__":
    sys.exit(main())
