"""Which launch fails, found by running a call again step by step.

A card that refuses a launch goes on with others; the call is run again where it is. One that did
not survive a kernel (an address of nobody's) is lost to its process, with all that lies on it: the
call is run again in a new process, from what the host still holds.

    python -m convdsl.runtime.cuda.rerun FOLDER     the new process: what `Case.keep` wrote
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.children import running
from convdsl.kernel.cuda_binary import CudaBinary
from convdsl.kernel.cuda_module import Launch
from convdsl.kernel.program import Port
from convdsl.runtime.code import Code
from convdsl.runtime.cuda.card import card_errors, cupy, find_card
from convdsl.runtime.cuda.launching import Addresses, Functions
from convdsl.tensor import DType, TensorType

Array = npt.NDArray[Any]

_PATIENCE = 300.0
"""Seconds that a new process is given: a driver that was lost may take its time."""

_BINARY, _FACTS, _WEIGHTS = "binary", "facts.json", "weights.npy"


@dataclass(frozen=True, slots=True)
class Failure:
    """The launch that failed, by its number, and what was said of it."""

    number: int
    error: str


def step_by_step(
    functions: Functions, launches: Sequence[Launch], addresses: Addresses, stream: Any
) -> Failure | None:
    """Launch after launch, each waited for, up to the one that fails."""
    errors = card_errors(cupy())
    for number, launch in enumerate(launches):
        try:
            functions.launch(launch, addresses, stream)
            stream.synchronize()
        except errors as error:
            return Failure(number, str(error))
    return None


@dataclass(frozen=True)
class Case:
    """A call as the host has it: None for states that lay on the card alone, which begin as zeros.
    What a kernel does wrong follows from where it reads and writes, hardly ever from what."""

    code: Code
    weights: npt.NDArray[np.uint8]
    device: int
    inputs: Sequence[Array]
    states: Sequence[Array | None]

    def run(self) -> Failure | None:
        """Run it on the card of this process, which is a new one."""
        found = cupy()
        with found.cuda.Device(self.device):
            binary = CudaBinary.from_bytes(self.code.object_code)
            functions = Functions(found, binary, find_card(self.device))
            sizes = (len(self.weights), self.code.arena_bytes)
            held = [found.cuda.alloc(max(size, 1)) for size in sizes]
            if len(self.weights):
                held[0].copy_from_host(self.weights.ctypes.data, len(self.weights))
            inputs = [_placed(found, array) for array in self.inputs]
            outputs = [_placed(found, _zeros(port)) for port in self.code.outputs]
            states = [
                _placed(found, _zeros(port) if array is None else array)
                for port, array in zip(self.code.states, self.states, strict=True)
            ]
            places = (tuple(int(a.data.ptr) for a in of) for of in (inputs, outputs, states))
            addresses = Addresses(int(held[0].ptr), int(held[1].ptr), *places)
            stream = found.cuda.get_current_stream()
            return step_by_step(functions, functions.launches, addresses, stream)

    def run_in_a_new_process(self) -> Failure | None:
        """The same in a process that has lost nothing yet. None also where that cannot be."""
        with TemporaryDirectory(prefix="convdsl-rerun-") as folder:
            try:
                self.keep(Path(folder))
                said = answer(folder)
                return None if said["number"] is None else Failure(said["number"], said["error"])
            except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
                return None  # what failed first is what is told

    # As files

    def keep(self, folder: Path) -> None:
        """Write it down."""
        (folder / _BINARY).write_bytes(self.code.object_code)
        np.save(folder / _WEIGHTS, self.weights)
        for kind, arrays in (("input", self.inputs), ("state", self.states)):
            for number, array in enumerate(arrays):
                if array is not None:
                    np.save(folder / f"{kind}{number}.npy", array)
        facts = {
            "arena": self.code.arena_bytes,
            "device": self.device,
            **{name: [_said(port) for port in ports] for name, ports in self._ports().items()},
        }
        (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")

    def _ports(self) -> dict[str, tuple[Port, ...]]:
        code = self.code
        return {"inputs": code.inputs, "outputs": code.outputs, "states": code.states}

    @staticmethod
    def kept(folder: Path) -> Case:
        """What was written down."""
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        ports = {name: tuple(map(_port, facts[name])) for name in ("inputs", "outputs", "states")}
        weights = np.load(folder / _WEIGHTS)
        code = Code(
            (folder / _BINARY).read_bytes(),
            "",
            ports["inputs"],
            ports["outputs"],
            facts["arena"],
            len(weights),
            1,
            ports["states"],
        )
        files = [folder / f"state{number}.npy" for number in range(len(ports["states"]))]
        return Case(
            code,
            weights,
            facts["device"],
            [np.load(folder / f"input{number}.npy") for number in range(len(ports["inputs"]))],
            [np.load(file) if file.exists() else None for file in files],
        )


def answer(folder: str) -> dict[str, Any]:
    """What a new process says of what a folder holds."""
    command = running("convdsl.runtime.cuda.rerun", folder)
    made = subprocess.run(  # noqa: S603  our own module, no shell
        command, capture_output=True, timeout=_PATIENCE, check=True
    )
    said: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return said


def main(folder: str) -> str:
    """Run what a folder holds; the number of the launch that failed and the error, as JSON."""
    found = Case.kept(Path(folder)).run()
    said = (None, "") if found is None else (found.number, found.error)
    return json.dumps({"number": said[0], "error": said[1]})


def _zeros(port: Port) -> Array:
    return np.zeros(port.type.sizes, port.type.dtype.numpy)


def _placed(found: Any, array: Array) -> Any:
    made = found.empty(array.shape, array.dtype)
    made.set(np.asarray(array, order="C"))
    return made


def _said(port: Port) -> list[Any]:
    return [port.name, str(port.type.dtype), list(port.type.sizes)]


def _port(said: list[Any]) -> Port:
    name, dtype, sizes = said
    return Port(name, TensorType(DType(dtype), tuple(sizes)))


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1])}\n")
