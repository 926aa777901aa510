"""Latency at batch 1 against the peers, in one run.

    python -m benchmarks [--models A B] [--threads 1 2] [--rounds R] [--json FILE] [--chart FILE]

Every peer is a process of its own with the same weights; rounds of a few calls alternate between
the processes, in either order, so that what else the machine does meets all alike. Ratios of
medians and of minima are convdsl's time divided by the peer's: below 1 is faster. The machine's
peak is what convdsl's own multiply-add kernel reaches, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import convdsl
from benchmarks.chart import draw
from benchmarks.peers import PEERS
from convdsl.measure.peak import measure_peak
from convdsl.weights import RandomWeights, bind

MODELS = (
    "resnet18",
    "resnet50",
    "vgg16",
    "mobilenet_v2",
    "squeezenet1_1",
    "googlenet",
    "efficientnet_lite0",
)
CALLS = 5  # of one peer before it is another's turn
REST = 0.02  # seconds between turns, in which the threads of the one before come to rest


class Worker:
    """A peer's process."""

    def __init__(self, peer: str, folder: Path, model: str, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.worker"]
        self._process = subprocess.Popen(
            [*command, peer, str(folder), model, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.prepared = self._read()

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
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


def prepare(folder: Path, name: str, threads: list[int]) -> dict[str, Any]:
    """Weights, input, ONNX file and artifacts of one network; cold and warm compile times."""
    model = convdsl.load(name)
    weights = dict(bind(RandomWeights(0), model.graph.states))
    binding = {"N": 1}
    (type,) = (type.bind(binding) for type in model.inputs.values())
    x = np.random.default_rng(0).standard_normal(type.shape).astype(np.float32)
    np.save(folder / f"{name}.npy", x)
    convdsl.export(model, weights, folder / f"{name}.onnx")
    seconds: list[float] = []
    for team in (threads[0], *threads):
        started = time.perf_counter()
        executable = convdsl.compile(model, weights, threads=team, batch=1)
        seconds.append(time.perf_counter() - started)
        executable.save(folder / f"{name}.{team}.cdsl")
    graph = model.graph.bind(binding)
    macs = sum(node.op.cost(node.call).macs for node in graph.op_nodes())
    return {"compile s": seconds[0], "again s": seconds[1], "macs": macs}


def whole_process(folder: Path, model: str, threads: int) -> float:
    """Seconds of `convdsl run ARTIFACT`, process start and output file included."""
    command = [sys.executable, "-m", "convdsl", "run", str(folder / f"{model}.{threads}.cdsl")]
    command += ["--data", str(folder / f"{model}.npy"), "-o", str(folder / "out.npy")]
    times: list[float] = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return min(times)


def measure(folder: Path, model: str, threads: int, rounds: int) -> list[dict[str, Any]]:
    """A row per peer."""
    workers = {peer: Worker(peer, folder, model, threads) for peer in PEERS}
    firsts = {peer: worker.ask(do="first")["first s"] for peer, worker in workers.items()}
    outputs = {peer: np.load(folder / f"{model}.{peer}.out.npy") for peer in workers}
    times: dict[str, list[float]] = {peer: [] for peer in workers}
    for worker in workers.values():
        worker.ask(do="times", runs=CALLS)  # warm
    for turn in range(rounds):
        for peer, worker in list(workers.items())[:: 1 if turn % 2 else -1]:
            time.sleep(REST)
            times[peer] += worker.ask(do="times", runs=CALLS)["times"]
    rows: list[dict[str, Any]] = []
    ours = outputs["convdsl"]
    for peer, worker in workers.items():
        memory = worker.ask(do="memory")["peak bytes"]
        worker.close()
        spread = float(ours.max() - ours.min())
        rows.append(
            {
                "model": model,
                "threads": threads,
                "peer": peer,
                "median ms": statistics.median(times[peer]) * 1e3,
                "min ms": min(times[peer]) * 1e3,
                "ratio of medians": _ratio(times, peer, statistics.median),
                "ratio of minima": _ratio(times, peer, min),
                "first ms": firsts[peer] * 1e3,
                "load s": worker.prepared["load s"],
                "peak MB": memory / 1e6,
                "error": float(np.abs(outputs[peer] - ours).max()) / spread,
            }
        )
    return rows


def _ratio(times: dict[str, list[float]], peer: str, what: Any) -> float:
    return what(times["convdsl"]) / what(times[peer])


def show(rows: list[dict[str, Any]]) -> None:
    """One line a row, widths by content."""
    heads = list(rows[0])
    table = [heads] + [[_cell(row[head]) for head in heads] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(heads))]
    for line in table:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"
    return str(value)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="T")
    parser.add_argument("--rounds", type=int, default=12, help=f"of {CALLS} calls (default 12)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the ratios (SVG)")
    options = parser.parse_args()
    peaks = {threads: measure_peak(threads) for threads in options.threads}
    for threads, peak in peaks.items():
        print(f"peak of this machine on {threads} threads: {peak:.1f} GFLOP/s")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = place  # the first compile is cold
        folder = Path(place)
        for model in options.models:
            facts = prepare(folder, model, options.threads)
            rows: list[dict[str, Any]] = []
            for threads in options.threads:
                rows += measure(folder, model, threads, options.rounds)
            for row in rows:
                rate = 2e-6 * facts["macs"] / row["median ms"]
                row["% of peak"] = 100 * rate / peaks[row["threads"]]
            show(rows)
            alone = whole_process(folder, model, options.threads[-1])
            print(
                f"{model}: compile {facts['compile s']:.2f} s cold, {facts['again s']:.2f} s from "
                f"the cache; `convdsl run` of the artifact, whole process, {alone:.2f} s\n"
            )
            results += [row | facts | {"run s": alone} for row in rows]
    if options.json:
        content = {"peak GFLOP/s": peaks, "rows": results}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if options.chart:
        options.chart.write_text(draw(results))


if __name__ == "__main__":
    main()
