"""Latency against the peers, in one run.

    python -m benchmarks [--models A B] [--peers P Q] [--threads 1 2] [--batch N] [--rounds R]
                         [--clock wall|processor] [--json FILE] [--chart FILE]

Every peer is a process of its own with the same weights; rounds of a few calls alternate between
the processes, in either order, so that what else the machine does meets all alike. Ratios of
medians and of minima are convdsl's time divided by the peer's: below 1 is faster. The machine's
peak is what convdsl's own multiply-add kernel reaches, measured in the same run; the roofline is
that of `benchmarks.bound`. Which networks there are says networks.txt. On a machine that others use
the processor's clock tells more of one thread than the wall's; of several it counts waiting too.
"""

from __future__ import annotations

import argparse
import json
import math
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
from benchmarks.bound import bound_seconds
from benchmarks.chart import draw
from benchmarks.peers import PEERS, missing
from benchmarks.worker import CLOCKS
from convdsl.measure.machine import figures
from convdsl.measure.peak import measure_peak
from convdsl.weights import RandomWeights, bind

HERE = Path(__file__).parent
CALLS = 5  # of one peer before it is another's turn
REST = 0.02  # seconds between turns, in which the threads of the one before come to rest


class Ended(SystemExit):
    """A peer's process has ended before its answer; what it said stands above."""


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
            raise Ended("a peer's process has ended; its message is above")
        return json.loads(line)


def networks() -> list[str]:
    """The lines of networks.txt."""
    lines = (HERE / "networks.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def load(line: str) -> tuple[str, convdsl.Model]:
    """A network by its line: a short name, and the model."""
    from convdsl.elaborate import parameter_value

    source, *settings = line.split()
    beside = HERE / source
    path = str(beside) if beside.suffix and beside.exists() else source
    pairs = (setting.partition("=") for setting in settings)
    given = {name: parameter_value(text) for name, _, text in pairs}
    model = convdsl.load(path, **given)
    return "-".join([Path(source).stem, *settings]), model


def prepare(folder: Path, line: str, threads: list[int], batch: int) -> dict[str, Any]:
    """Weights, input, ONNX file, PyTorch source and artifacts of one network; compile times."""
    name, model = load(line)
    weights = dict(bind(RandomWeights(0), model.graph.states))
    free = {symbol.name for symbol in model.symbols}
    binding = {"N": batch} if "N" in free else {}
    if len(model.inputs) != 1 or free - binding.keys():
        raise SystemExit(f"{name}: networks of one input whose sizes are known, but for N, are run")
    ((port, type),) = ((port, type.bind(binding)) for port, type in model.inputs.items())
    x = np.random.default_rng(0).standard_normal(type.shape).astype(np.float32)
    np.save(folder / f"{name}.npy", x)
    np.savez(folder / f"{name}.npz", allow_pickle=False, **weights)
    (folder / f"{name}.ports").write_text(f"{port} {next(iter(model.outputs))}\n")
    convdsl.export(model, weights, folder / f"{name}.onnx")
    convdsl.export(model, to="pytorch", path=folder / f"{name}.py")
    seconds: list[float] = []
    for team in (threads[0], *threads):
        started = time.perf_counter()
        executable = convdsl.compile(model, weights, threads=team, batch=binding.get("N"))
        seconds.append(time.perf_counter() - started)
        executable.save(folder / f"{name}.{team}.cdsl", **binding)
    graph = model.graph.bind(binding)
    macs = sum(node.op.cost(node.call).macs for node in graph.op_nodes())
    least = {team: bound_seconds(graph, figures(team), team) for team in threads}
    return {
        "compile s": seconds[0],
        "again s": seconds[1],
        "macs": macs,
        "bound s": least,
        "outputs": len(model.outputs),
    }


def whole_process(folder: Path, model: str, threads: int, outputs: int) -> float:
    """Seconds of `convdsl run ARTIFACT`, process start and output file included."""
    made = folder / ("out.npy" if outputs == 1 else "out.npz")
    command = [sys.executable, "-m", "convdsl", "run", str(folder / f"{model}.{threads}.cdsl")]
    command += ["--data", str(folder / f"{model}.npy"), "-o", str(made)]
    times: list[float] = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return min(times)


def started(
    folder: Path, model: str, peers: list[str], threads: int
) -> tuple[dict[str, Worker], dict[str, float]]:
    """Processes by peer, each after its first call, and the seconds that took. Those that end
    on the way there, as they lack an operator, are left out; convdsl must not."""
    workers: dict[str, Worker] = {}
    firsts: dict[str, float] = {}
    for peer in peers:
        try:
            worker = Worker(peer, folder, model, threads)
            firsts[peer] = worker.ask(do="first")["first s"]
        except Ended:
            if peer == "convdsl":
                raise
            print(f"{model}: {peer} cannot run it and is left out")
            continue
        workers[peer] = worker
    return workers, firsts


def measure(
    folder: Path, model: str, peers: list[str], threads: int, rounds: int, clock: str = "wall"
) -> list[dict[str, Any]]:
    """A row per peer that can run the model."""
    workers, firsts = started(folder, model, peers, threads)
    outputs = {peer: np.load(folder / f"{model}.{peer}.out.npy") for peer in workers}
    times: dict[str, list[float]] = {peer: [] for peer in workers}
    for worker in workers.values():
        worker.ask(do="times", runs=CALLS, clock=clock)  # warm
    for turn in range(rounds):
        for peer, worker in list(workers.items())[:: 1 if turn % 2 else -1]:
            time.sleep(REST)
            times[peer] += worker.ask(do="times", runs=CALLS, clock=clock)["times"]
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


def fastest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the peers of one network and team, the one with the least median."""
    return min((row for row in rows if row["peer"] != "convdsl"), key=lambda r: r["median ms"])


def _ratio(times: dict[str, list[float]], peer: str, what: Any) -> float:
    return what(times["convdsl"]) / what(times[peer])


def processor() -> str:
    """What runs this."""
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            wide = "avx512f" in Path("/proc/cpuinfo").read_text()
            return f"{text.partition(':')[2].strip()}, {'' if wide else 'no '}AVX-512"
    return "an unknown processor"


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
    parser.add_argument("--models", nargs="+", default=networks(), metavar="NAME")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="samples (default 1)")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="T")
    parser.add_argument("--rounds", type=int, default=12, help=f"of {CALLS} calls (default 12)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="(default wall)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the ratios (SVG)")
    options = parser.parse_args()
    peaks = {threads: measure_peak(threads) for threads in options.threads}
    print(processor())
    for threads, peak in peaks.items():
        print(f"peak of this machine on {threads} threads: {peak:.1f} GFLOP/s")
    peers = ["convdsl", *(peer for peer in options.peers if peer != "convdsl")]
    for peer in [peer for peer in peers if missing(peer)]:
        print(f"{peer} is left out: {', '.join(missing(peer))} not installed")
        peers.remove(peer)
    results: list[dict[str, Any]] = []
    best: dict[int, list[float]] = {threads: [] for threads in options.threads}
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = place  # the first compile is cold
        folder = Path(place)
        for line in options.models:
            model, _ = load(line)
            facts = prepare(folder, line, options.threads, options.batch)
            rows: list[dict[str, Any]] = []
            for threads in options.threads:
                found = measure(folder, model, peers, threads, options.rounds, options.clock)
                if len(found) > 1:
                    best[threads].append(fastest(found)["ratio of medians"])
                rows += found
            for row in rows:
                rate = 2e-6 * facts["macs"] / row["median ms"]
                row["% of peak"] = 100 * rate / peaks[row["threads"]]
                row["/ roofline"] = row["median ms"] * 1e-3 / facts["bound s"][row["threads"]]
            show(rows)
            alone = whole_process(folder, model, options.threads[-1], facts["outputs"])
            print(
                f"{model}: compile {facts['compile s']:.2f} s cold, {facts['again s']:.2f} s from "
                f"the cache; `convdsl run` of the artifact, whole process, {alone:.2f} s\n"
            )
            results += [row | facts | {"run s": alone, "batch": options.batch} for row in rows]
    for threads, ratios in best.items():
        if ratios:
            mean = math.exp(statistics.fmean(map(math.log, ratios)))
            print(
                f"{threads} threads: convdsl / fastest peer, geometric mean {mean:.3f}, "
                f"worst {max(ratios):.3f}"
            )
    if options.json:
        content = {"peak GFLOP/s": peaks, "rows": results}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    if options.chart:
        options.chart.write_text(draw(results))


if __name__ == "__main__":
    main()
