"""Networks whose answers are known to the bit, and servers for them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import convdsl
from convdsl.diagnostics import InputError
from convdsl.serving import server
from convdsl.serving.app import Service, application
from convdsl.serving.hosting import Hosted
from convdsl.serving.limits import Limits
from convdsl.tensor import DType, TensorType, symbol

SIZED = """
model sized {
    input x: f32[N, 1, H, W]
    x -> conv(2, 3x3, bias = false) as conv -> output y
}
"""
"""Of whole numbers that are small every sum is exact, in whatever order and batch."""

PHOTOS = """
model photos {
    labels "names.txt"
    input image: f32[N, 3, 8, 8]
    preprocess image: resize(8x8) -> rescale(1 / 255)
    image -> conv(4, 3x3) as conv -> relu -> avgpool(global) -> flatten
          -> linear(3) as fc -> output logits
}
"""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "sized.cnn").write_text(SIZED)
    filters = np.arange(-9, 9, dtype=np.float32).reshape(2, 1, 3, 3)
    np.savez(folder / "sized.npz", **{"conv.weight": filters})
    (folder / "photos.cnn").write_text(PHOTOS)
    (folder / "names.txt").write_text("cat\ndog\nbird\n")
    made = convdsl.compile(folder / "photos.cnn", "random:3", threads=1)
    made.save(folder / "photos.cdsl", N=(1, 4))
    made.save(folder / "four.cdsl", N=4)
    return folder


def sized_answer(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What `sized` says of an image [H, W]: in integers, so to the bit."""
    filters = np.arange(-9, 9).reshape(2, 3, 3)
    around = np.pad(x.astype(np.int64), 1)
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3))
    return np.einsum("hwrs,krs->khw", windows, filters)


# Networks without a compiler


@dataclass
class Doubling:
    """Twice its input. `step` is called in each run."""

    inputs: dict[str, TensorType] = field(
        default_factory=lambda: {"x": TensorType(DType.F32, (symbol("N"), symbol("W")))}
    )
    apart: bool = True
    step: Callable[[Any], None] = lambda x: None
    runs: list[int] = field(default_factory=list)
    labels: tuple[str, ...] | None = None
    sizes: Sequence[Any] = ()

    @property
    def outputs(self) -> dict[str, TensorType]:
        return {"y": self.inputs["x"]}

    @property
    def samples_apart(self) -> bool:
        return self.apart

    def bind(self, shapes: Any) -> dict[str, int]:
        if shapes["x"][1] > 1000:
            raise InputError("too wide")
        return {"N": shapes["x"][0], "W": shapes["x"][1]}

    def by_name(self, x: Any) -> dict[str, Any]:
        self.runs.append(len(x))
        self.step(x)
        return {"y": x * 2}


def service_of(network: Any, limits: Limits | None = None, **how: Any) -> Service:
    limits = limits or Limits()
    bugs: list[BaseException] = []
    made = Service([Hosted("net", network, limits.batch, **how)], limits, bugs.append)
    made.bugs = bugs  # type: ignore[attr-defined]
    return made


@asynccontextmanager
async def client_of(service: Service) -> AsyncGenerator[httpx.AsyncClient]:
    """A client without sockets."""
    app: Any = application(service)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        service.running(app),
        httpx.AsyncClient(transport=transport, base_url="http://served") as client,
    ):
        yield client


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """A server on a socket, in a thread; its address."""
    bound = server.listen("127.0.0.1", 0)
    started = threading.Event()
    made = server.server(service, started.set)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [bound]})
    address = server.address_of(bound)
    thread.start()
    try:
        assert started.wait(30)
        yield address
    finally:
        made.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def command(*arguments: object, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`convdsl serve` as a process, killed at the end if it is still there; its address."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "convdsl", "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving "), process.communicate(timeout=20)
        yield line.split()[-1], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)


def tensor(x: Any, name: str = "x", **more: Any) -> dict[str, Any]:
    """A tensor of a request, in JSON."""
    return {"name": name, "shape": [*x.shape], "datatype": "FP32", "data": x.tolist(), **more}


def together(*work: Any) -> list[Any]:
    """Run coroutines at once."""

    async def all_of_them() -> list[Any]:
        return list(await asyncio.gather(*work))

    return asyncio.run(all_of_them())
