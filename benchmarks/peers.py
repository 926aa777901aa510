"""Who is measured, and how each is called. Every peer runs in a process of its own.

A peer prepares a network from the shared folder (the network as ONNX, as PyTorch source and as
artifact, weights as .npz, the input as .npy), and runs it on one input array, in float32. To add
one: a class here and a name in PEERS. What a peer needs is in the environment that `make bench`
makes; one that is not installed is said so, and left out.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Peer(Protocol):
    """One way to run a network; `prepare` returns what it measured on the way: the seconds that
    loading takes, of what a user of the peer would have on disk."""

    needs: tuple[str, ...]  # modules

    def prepare(self, folder: Path, model: str, threads: int) -> dict[str, float]: ...

    def run(self, x: np.ndarray) -> np.ndarray: ...


class Convdsl:
    """The artifact compiled from the zoo's text, loaded as a user would."""

    needs = ("convdsl",)

    def prepare(self, folder: Path, model: str, threads: int) -> dict[str, float]:
        from convdsl.runtime.saved import load_executable

        started = time.perf_counter()
        self._run = load_executable(folder / f"{model}.{threads}.cdsl", threads=threads)
        return {"load s": time.perf_counter() - started}

    def run(self, x: np.ndarray) -> np.ndarray:
        (y, *_) = self._run.by_name(x).values()
        return y


class OnnxRuntime:
    """ONNX Runtime on the CPU, all its graph optimisations on."""

    needs = ("onnxruntime",)

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


class OpenVino:
    """OpenVINO on the CPU, tuned for latency, float32 as the others (it may choose bf16)."""

    needs = ("openvino",)

    def prepare(self, folder: Path, model: str, threads: int) -> dict[str, float]:
        import openvino

        how = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        started = time.perf_counter()
        compiled: Any = openvino.Core().compile_model(str(folder / f"{model}.onnx"), "CPU", how)
        self._request = compiled.create_infer_request()
        self._output = compiled.output(0)
        return {"load s": time.perf_counter() - started}

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._request.infer([x])[self._output]


class Torch:
    """PyTorch, eager, under inference_mode."""

    needs = ("torch",)

    def prepare(self, folder: Path, model: str, threads: int) -> dict[str, float]:
        import torch

        torch.set_num_threads(threads)
        started = time.perf_counter()
        module = _module(folder / f"{model}.py").eval()
        with np.load(folder / f"{model}.npz") as arrays:
            weights = {key: torch.from_numpy(arrays[key]) for key in arrays}
        module.load_state_dict(weights, strict=False)
        self._torch, self._module = torch, self.made(module)
        return {"load s": time.perf_counter() - started}

    def made(self, module: Any) -> Any:
        """What is called."""
        return module

    def run(self, x: np.ndarray) -> np.ndarray:
        with self._torch.inference_mode():
            y = self._module(self._torch.from_numpy(x))
        return (y if isinstance(y, self._torch.Tensor) else next(iter(y))).numpy()


class TorchCompiled(Torch):
    """The same through torch.compile."""

    def made(self, module: Any) -> Any:
        import torch

        return torch.compile(module)


class Ncnn:
    """ncnn, converted by pnnx, without its 16-bit shortcuts."""

    needs = ("ncnn", "pnnx")

    def prepare(self, folder: Path, model: str, threads: int) -> dict[str, float]:
        import ncnn

        place = folder / "ncnn"
        place.mkdir(exist_ok=True)
        shape = ",".join(map(str, np.load(folder / f"{model}.npy", mmap_mode="r").shape))
        copy = place / f"{model}.onnx"
        copy.write_bytes((folder / f"{model}.onnx").read_bytes())
        _convert("pnnx", str(copy), f"inputshape=[{shape}]", "fp16=0", cwd=place)
        started = time.perf_counter()
        self._net: Any = ncnn.Net()
        self._net.opt.num_threads = threads
        for shortcut in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(self._net.opt, f"use_{shortcut}", False)
        self._net.load_param(str(place / f"{model}.ncnn.param"))
        self._net.load_model(str(place / f"{model}.ncnn.bin"))
        self._mat = ncnn.Mat
        return {"load s": time.perf_counter() - started}

    def run(self, x: np.ndarray) -> np.ndarray:
        extractor = self._net.create_extractor()
        extractor.input("in0", self._mat(x[0]).clone())
        _, y = extractor.extract("out0")
        return np.array(y)[None]


class Mnn:
    """MNN, in high precision."""

    needs = ("MNN",)

    def prepare(self, folder: Path, model: str, threads: int) -> dict[str, float]:
        import MNN

        made = folder / f"{model}.mnn"
        given = ("--modelFile", str(folder / f"{model}.onnx"), "--MNNModel", str(made))
        _convert("mnnconvert", "-f", "ONNX", *given, "--bizCode", "bench", cwd=folder)
        names = (folder / f"{model}.ports").read_text().split()
        started = time.perf_counter()
        how = {"backend": "CPU", "precision": "high", "numThread": threads}
        runtime: Any = MNN.nn.create_runtime_manager((how,))
        self._module = MNN.nn.load_module_from_file(
            str(made), names[:1], names[1:2], runtime_manager=runtime
        )
        self._expr = MNN.expr
        return {"load s": time.perf_counter() - started}

    def run(self, x: np.ndarray) -> np.ndarray:
        given = self._expr.const(x, list(x.shape), self._expr.NCHW)
        made = self._module.onForward([given])
        y = made[0] if isinstance(made, list) else made
        return self._expr.convert(y, self._expr.NCHW).read()


PEERS: dict[str, type[Peer]] = {
    "convdsl": Convdsl,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "torch": Torch,
    "torch-compiled": TorchCompiled,
    "ncnn": Ncnn,
    "mnn": Mnn,
}


def missing(peer: str) -> list[str]:
    """The modules that a peer needs and this environment has not."""
    return [name for name in PEERS[peer].needs if importlib.util.find_spec(name) is None]


def _module(path: Path) -> Any:
    """The network of a file that `convdsl export --to pytorch` wrote: its last class."""
    from torch import nn

    space: dict[str, Any] = {"__name__": "exported"}
    exec(compile(path.read_text(), str(path), "exec"), space)
    classes = [c for c in space.values() if isinstance(c, type) and issubclass(c, nn.Module)]
    return classes[-1]()


def _convert(tool: str, *options: str, cwd: Path) -> None:
    command = [str(Path(sys.executable).parent / tool), *options]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tool} cannot convert the network:\n{done.stdout[-2000:]}{done.stderr}")
