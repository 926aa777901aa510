"""Who is measured, and how each is called. Every peer runs in a process of its own.

A peer prepares a network from the shared folder (weights as safetensors, the network as ONNX),
and runs it on one input array. To add one: a class here and a name in PEERS.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Peer(Protocol):
    """One way to run a network; `prepare` returns what it measured on the way."""

    def prepare(self, folder: Path, model: str, threads: int) -> dict[str, float]: ...

    def run(self, x: np.ndarray) -> np.ndarray: ...


class Convdsl:
    """The artifact compiled from the zoo's text, loaded as a user would."""

    def prepare(self, folder: Path, model: str, threads: int) -> dict[str, float]:
        from convdsl.runtime.saved import load_executable

        started = time.perf_counter()
        self._run = load_executable(folder / f"{model}.{threads}.cdsl", threads=threads)
        return {"load s": time.perf_counter() - started}

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._run(x)


class OnnxRuntime:
    """ONNX Runtime on the CPU, all its graph optimisations on."""

    def prepare(self, folder: Path, model: str, threads: int) -> dict[str, float]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        started = time.perf_counter()
        self._session: Any = onnxruntime.InferenceSession(
            str(folder / f"{model}.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        return {"load s": time.perf_counter() - started}

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input: x})[0]


PEERS: dict[str, type[Peer]] = {"convdsl": Convdsl, "onnxruntime": OnnxRuntime}
