"""Requests a second, of one network on one core: convdsl beside ONNX Runtime under the same server.

    python -m benchmarks.serving [--model lenet5] [--seconds S] [--rounds R] [--batch N]

Both networks have the same weights, one thread and the same `convdsl serve` around them, in
processes of their own that are kept to the first processor; the client is kept to the last. They
take turns; of each the best round counts, as other work on the machine only makes them slower.
`1` and `16` are clients that ask again as soon as they are answered, each on a connection it keeps.
Answers are compared. Inputs are numbers drawn at random, in JSON or after it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnxruntime

import convdsl
from convdsl.serving import server
from convdsl.serving.app import Service
from convdsl.serving.hosting import Hosted, warm
from convdsl.serving.limits import Limits

CLOSE = 1e-4  # of the answers' range


@dataclass
class OnnxNetwork:
    """An ONNX Runtime session, as an Executable looks. Shapes are those of convdsl's own."""

    path: str
    model: Any  # the Executable whose place it takes

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(self.path, options, ["CPUExecutionProvider"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def by_name(self, **named: Any) -> dict[str, Any]:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, named), strict=True))


def serve(which: str, folder: Path, model: str, batch: int) -> None:
    """One of the two, until it is told to stop."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    network: Any = convdsl.compile(convdsl.load(model), "random:0", threads=1)
    network.kept = 16
    if which == "onnx":
        network = OnnxNetwork(str(folder / "net.onnx"), network)
    hosted = Hosted("net", network, batch)
    shapes = {n: type.bind({"N": 1}).sizes for n, type in network.inputs.items()}
    warm(hosted, shapes)
    listening = server.listen("127.0.0.1", 0)
    service = Service([hosted], Limits(batch=batch), lambda error: print(repr(error)))
    server.run(service, listening, lambda: print(server.address_of(listening), flush=True))


@contextmanager
def served(which: str, folder: Path, model: str, batch: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.serving", "--model", model, "--batch", str(batch)]
    command += ["--serve", which, "--folder", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)


def request(name: str, x: Any, binary: bool) -> bytes:
    entry: dict[str, Any] = {"name": name, "shape": [*x.shape], "datatype": "FP32"}
    rest, more = b"", ""
    if binary:
        entry["parameters"], rest = {"binary_data_size": x.nbytes}, x.tobytes()
    else:
        entry["data"] = x.ravel().tolist()
    said = {"inputs": [entry], "parameters": {"binary_data_output": False}}
    text = json.dumps(said).encode()
    if binary:
        more = f"Inference-Header-Content-Length: {len(text)}\r\n"
    head = f"POST /v2/models/net/infer HTTP/1.1\r\nHost: net\r\n{more}"
    return f"{head}Content-Length: {len(text + rest)}\r\n\r\n".encode() + text + rest


async def load(address: str, asked: bytes, clients: int, seconds: float) -> list[float]:
    """What each request took."""
    end = time.perf_counter() + seconds
    took: list[float] = []

    async def ask() -> None:
        parts = urlsplit(address)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.perf_counter() < end:
            begin = time.perf_counter()
            writer.write(asked)
            await answer(reader)
            took.append(time.perf_counter() - begin)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(clients)))
    return took


async def answer(reader: asyncio.StreamReader) -> Any:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    return json.loads(await reader.readexactly(int(length[1])))


async def one(address: str, asked: bytes) -> np.ndarray[Any, Any]:
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(asked)
    said = await answer(reader)
    writer.close()
    return np.array(said["outputs"][0]["data"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=("convdsl", "onnx"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.folder, options.model, options.batch)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = convdsl.load(options.model)
        convdsl.export(model, "random:0", folder / "net.onnx")
        with (
            served("convdsl", folder, options.model, options.batch) as ours,
            served("onnx", folder, options.model, options.batch) as theirs,
        ):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
            measure(model, {"convdsl": ours, "ONNX Runtime": theirs}, options)


def measure(model: Any, servers: dict[str, str], options: argparse.Namespace) -> None:
    ((name, type),) = model.inputs.items()
    x = np.random.default_rng(0).standard_normal(type.bind({"N": 1}).sizes, np.float32)
    print(f"| {'clients, form':<18} | requests/s | median ms | 99th percentile ms |")
    print(f"|{'-' * 20}|--:|--:|--:|")
    for binary in (False, True):
        asked = request(name, x, binary)
        a, b = (asyncio.run(one(address, asked)) for address in servers.values())
        assert abs(a - b).max() <= CLOSE * np.ptp(b), "the two compute other numbers"
        for clients in (1, 16):
            best: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                for who, address in servers.items():
                    took = asyncio.run(load(address, asked, clients, options.seconds))
                    if len(took) > len(best.get(who, [])):
                        best[who] = took
            for who, took in best.items():
                median, most = (np.percentile(took, q) * 1e3 for q in (50, 99))
                what = f"{clients}, {'binary' if binary else 'JSON'}, {who}"
                rate = len(took) / options.seconds
                print(f"| {what} | {rate:.0f} | {median:.2f} | {most:.2f} |")


if __name__ == "__main__":
    main()
