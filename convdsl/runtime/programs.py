"""What an artifact says of each program in it: its ports, its memory, what it was made for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import ArtifactError
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.program import Port
from convdsl.kernel.target import Target
from convdsl.runtime import artifact
from convdsl.runtime.code import Code
from convdsl.runtime.targets import KINDS, kind_of
from convdsl.tensor import Dim, DType, TensorType, symbol
from convdsl.tensor.conversion import of_numpy

Array = npt.NDArray[Any]

ABI = 10
"""Raised when the context table, the entry point of compiled code, its signature, or what the
manifest must hold changes."""

SEVERAL_ABI = 11
"""Of artifacts for several sizes, which readers of one size refuse."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a program was made for: its inputs' names in order, sizes by symbol, and the values of
    inputs that decide shapes."""

    inputs: tuple[str, ...]
    binding: Mapping[str, int]
    values: Mapping[str, Array]

    def __str__(self) -> str:
        return ", ".join(f"{name} = {size}" for name, size in self.binding.items())


@dataclass(frozen=True, slots=True)
class Made:
    """A program that is kept: its code and weights, what it was made for, and its report."""

    code: Code
    weights: Array
    made_for: Signature
    report: Mapping[str, Any]


def sections_of(programs: Sequence[Made]) -> tuple[dict[str, memoryview], list[int]]:
    """The code of each program, and weights: one section for those in one memory, of which each
    program knows the beginning, or that are equal. And the number of each one's weights."""
    sections = {
        numbered("object", number): memoryview(program.code.object_code)
        for number, program in enumerate(programs)
    }
    held: dict[int, Array] = {}
    places: list[int] = []
    for number, program in enumerate(programs):
        mine = program.weights
        alike = (
            place
            for place, other in held.items()
            if other.ctypes.data == mine.ctypes.data or np.array_equal(other, mine)
        )
        places.append(next(alike, number))
        held[places[-1]] = max(held.get(places[-1], mine), mine, key=lambda array: array.nbytes)
    return sections | {numbered("weights", n): array.data for n, array in held.items()}, places


def numbered(section: str, number: int) -> str:
    """The first is called as in artifacts of one program."""
    return f"{section}{number or ''}"


def program_to_json(program: Made, target: Target | CudaTarget) -> dict[str, Any]:
    """What a manifest says of a program, besides what it says of the network."""
    code, made_for = program.code, program.made_for
    assert not code.sums, "what ranks train together is no artifact"
    return {
        "binding": dict(made_for.binding),
        "signature": list(made_for.inputs),
        "values": {name: _value_to_json(value) for name, value in made_for.values.items()},
        "entry": code.entry,
        "inputs": [_port_to_json(port) for port in code.inputs],
        "outputs": [_port_to_json(port) for port in code.outputs],
        "states": [_port_to_json(port) for port in code.states],
        "steps": code.steps,
        "arena_bytes": code.arena_bytes,
        "weight_bytes": code.weight_bytes,
        "private_bytes": code.private_bytes,
        "seal": seal(code, target),
        "report": dict(program.report),
    }


def check_interface(manifest: Mapping[str, Any]) -> None:
    """ArtifactError unless the code of an artifact is called as this convdsl calls it."""
    expected = SEVERAL_ABI if manifest.get("also") else ABI
    if manifest["abi"] != expected:
        raise ArtifactError(
            f"the artifact has code interface {manifest['abi']}, expected {expected}"
        )


def read_programs(
    manifest: Mapping[str, Any],
    sections: Mapping[str, memoryview],
    target: Target | CudaTarget,
) -> list[Made]:
    """The programs in an artifact, the first first. Raises ArtifactError, or what reading a
    manifest that makes no sense raises."""
    rows = [manifest, *manifest.get("also", ())]
    found: list[Made] = []
    for number, row in enumerate(rows):
        code = read_code(row, sections[numbered("object", number)])
        if row["seal"] != seal(code, target):
            raise ArtifactError("its machine code is not that of its manifest")
        place = whole(row["weights"]) if number else 0
        weights = np.frombuffer(sections[numbered("weights", place)], np.uint8)
        several = len(rows) > 1  # each knows the beginning of what all of them have
        shown = weights[: code.weight_bytes] if several else weights
        found.append(Made(code, shown, _read_signature(row, code), dict(row["report"])))
    if len({tuple(sorted(p.made_for.binding.items())) for p in found}) < len(found):
        raise ValueError("two programs for the same sizes")
    return found


def open_ports(
    ports: Sequence[Sequence[Port]], bindings: Sequence[Mapping[str, int]]
) -> tuple[Port, ...]:
    """The ports of programs for several sizes as those of one network: an extent in which they
    differ is the symbol that has its values, else one of its own."""
    made: list[Port] = []
    for alike in zip(*ports, strict=True):
        name, types = alike[0].name, [port.type for port in alike]
        if {(port.name, port.type.dtype) for port in alike} != {(name, types[0].dtype)}:
            raise ValueError("programs of different networks")
        shape = tuple(
            _extent(sizes, bindings, f"{name}{axis}")
            for axis, sizes in enumerate(zip(*(type.sizes for type in types), strict=True))
        )
        made.append(Port(name, TensorType(types[0].dtype, shape)))
    return tuple(made)


def _extent(sizes: Sequence[int], bindings: Sequence[Mapping[str, int]], own: str) -> Dim:
    if len(set(sizes)) == 1:
        return sizes[0]
    same = (n for n in bindings[0] if all(b[n] == s for b, s in zip(bindings, sizes, strict=True)))
    return symbol(next(same, own))


def read_code(row: Mapping[str, Any], object_code: memoryview) -> Code:
    """The program of a row. Raises what a row that makes no sense raises."""
    return Code(
        bytes(object_code),
        str(row["entry"]),
        tuple(map(port_from_json, row["inputs"])),
        tuple(map(port_from_json, row["outputs"])),
        whole(row["arena_bytes"]),
        whole(row["weight_bytes"]),
        whole(row["steps"]),
        tuple(map(port_from_json, row["states"])),
        whole(row["private_bytes"]),
    )


def seal(code: Code, target: Target | CudaTarget) -> str:
    """SHA-256 of the machine code and of all that it takes for granted: code that stands beside
    another program's manifest is never called. No signature either: whoever writes an artifact can
    compute it."""
    facts = {
        "abi": ABI,
        "object": artifact.digest_of(memoryview(code.object_code)),
        "entry": code.entry,
        "ports": [
            [_port_to_json(port) for port in ports]
            for ports in (code.inputs, code.outputs, code.states)
        ],
        "sizes": [code.arena_bytes, code.weight_bytes, code.private_bytes, code.steps],
        "target": KINDS[kind_of(target)].sealed(target),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def whole(value: Any) -> int:
    """A whole number that JSON writes as one."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _read_signature(row: Mapping[str, Any], code: Code) -> Signature:
    values = {
        str(name): np.asarray(value["elements"], DType(value["dtype"]).numpy)
        for name, value in row["values"].items()
    }
    inputs = tuple(map(str, row["signature"]))
    if sorted(inputs) != sorted([*values, *(port.name for port in code.inputs)]):
        raise ValueError("the signature is not that of the program")
    binding = {str(name): whole(size) for name, size in row["binding"].items()}
    return Signature(inputs, binding, values)


def type_of(value: Array) -> TensorType:
    """Of an input that decides shapes."""
    return TensorType(of_numpy(value.dtype), value.shape)


def _value_to_json(value: Array) -> dict[str, Any]:
    return {"dtype": type_of(value).dtype.value, "elements": value.tolist()}


def _port_to_json(port: Port) -> dict[str, Any]:
    shape = list(port.type.shape)
    return {"name": port.name, "dtype": port.type.dtype.value, "shape": shape}


def port_from_json(data: Mapping[str, Any]) -> Port:
    """Raises what a port that makes no sense raises."""
    shape = tuple(whole(extent) for extent in data["shape"])
    if any(extent < 0 for extent in shape):
        raise ValueError(f"negative size in {data['name']}")
    return Port(str(data["name"]), TensorType(DType(data["dtype"]), shape))
