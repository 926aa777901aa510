"""A peer in a process of its own: takes commands as JSON lines, answers as JSON lines.

    python -m benchmarks.worker PEER FOLDER MODEL THREADS

Commands: {"do": "first"} runs once and saves the output; {"do": "times", "runs": n, "clock": c}
returns n times in seconds, by the wall or by the processor time of all threads; {"do": "memory"}
the peak resident size in bytes; end of input ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import PEERS, Peer

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def answer(peer: Peer, command: dict[str, Any], x: np.ndarray, output: Path) -> dict[str, Any]:
    started = time.perf_counter()
    match command["do"]:
        case "first":
            y = peer.run(x)
            seconds = time.perf_counter() - started
            np.save(output, y)
            return {"first s": seconds}
        case "times":
            times: list[float] = []
            clock = CLOCKS[command["clock"]]
            for _ in range(command["runs"]):
                started = clock()
                peer.run(x)
                times.append(clock() - started)
            return {"times": times}
        case "memory":
            return {"peak bytes": peak_bytes()}
        case other:
            raise ValueError(f"no command {other}")


def peak_bytes() -> int:
    """The high-water mark of this program's memory (getrusage would count the parent's, from
    before the program was loaded)."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    name, folder, model, threads = sys.argv[1:]
    place = Path(folder)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some libraries say things on standard output
    peer = PEERS[name]()
    prepared = peer.prepare(place, model, int(threads))
    x = np.load(place / f"{model}.npy")
    print(json.dumps(prepared), file=answers, flush=True)
    for line in sys.stdin:
        reply = answer(peer, json.loads(line), x, place / f"{model}.{name}.out.npy")
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
