"""Compiled networks on disk: what an artifact says, and running it without any front end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from convdsl.diagnostics import ArtifactError, InputError
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.program import Port
from convdsl.kernel.signature import Binding
from convdsl.kernel.target import Target
from convdsl.runtime import artifact
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode
from convdsl.runtime.cpu.team import team_size
from convdsl.runtime.cuda.program import CardCode
from convdsl.runtime.device import Device
from convdsl.runtime.executable import Array, Executable, Facts, Runner, Values
from convdsl.runtime.state import State
from convdsl.runtime.targets import KINDS, find_device, kind_of
from convdsl.tensor import DType, TensorType
from convdsl.tensor.conversion import of_numpy

ABI = 10
"""Raised when the context table, the entry point of compiled code, its signature, or what the
manifest must hold changes."""


_SENSELESS = (
    *(KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError),
    InputError,
)  # what reading a manifest that makes no sense may raise


@dataclass(frozen=True, slots=True)
class Signature:
    """What a program was made for: its inputs' names in order, sizes by symbol, and the values of
    inputs that decide shapes."""

    inputs: tuple[str, ...]
    binding: Mapping[str, int]
    values: Mapping[str, Array]


def save_program(
    path: Path,
    loaded: LoadedCode | CardCode,
    target: Target | CudaTarget,
    facts: Facts,
    made_for: Signature,
    threads: int,
    report: Mapping[str, Any],
    made_by: str,
    state: Mapping[str, Array],
) -> None:
    """Write one specialisation, and the state as it is, as an artifact, whole or not at all."""
    code, kind = loaded.code, kind_of(target)
    manifest = {
        "abi": ABI,
        "kind": kind,
        "made_by": made_by,
        "model": facts.name,
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
        "target": KINDS[kind].to_json(target),
        "proof": KINDS[kind].proof(target),
        "seal": _seal(code, target),
        "threads": threads,
        "preprocessing": facts.preprocessing,
        "labels": None if facts.labels is None else list(facts.labels),
        "notes": list(facts.notes),
        "winograd": facts.winograd,
        "report": dict(report),
    }
    sections = {"object": memoryview(code.object_code), "weights": memoryview(loaded.weights.data)}
    for slot, port in enumerate(code.states):
        sections[f"state{slot}"] = state[port.name].reshape(-1).view(np.uint8).data
    artifact.write(path, sections, manifest)


def load_executable(
    path: str | Path, threads: int | None = None, device: str | None = None
) -> Executable:
    """The network in an artifact, verified. Raises ArtifactError where it is damaged, of another
    version, or made for a processor that this one cannot stand in for; InputError where it runs on
    a card and there is none. `device` says which card (`cuda:1`), where there are several."""
    if not isinstance(path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArtifactError(f"{path!r} is no path of an artifact")
    path = Path(path)
    manifest, sections = artifact.read(path)
    try:
        kind = str(manifest.get("kind", "cpu"))
        name, place = find_device(device or kind)
        code, target = _read_code(manifest, kind, sections)
        weights = np.frombuffer(sections["weights"], np.uint8)
        state = _read_state(code, sections, place)
        facts = _read_facts(manifest)
        made_for = _read_signature(manifest, code)
        default_threads = team_size(_whole(manifest["threads"]))
        proven, seal = str(manifest["proof"]), manifest["seal"]
        made_by, report = str(manifest["made_by"]), dict(manifest["report"])
    except _SENSELESS as error:
        raise ArtifactError(f"{path} holds no complete manifest: {error!r}") from None
    if name != kind:
        raise InputError(f"{path} is compiled for {kind}: it does not run on {device}")
    KINDS[kind].check(target, place, str(path), proven)
    if seal != _seal(code, target):
        raise ArtifactError(f"{path} is damaged: its machine code is not that of its manifest")
    loaded = KINDS[kind].load(code, weights, place)

    def specialise(binding: Binding, values: Values) -> Runner:
        for name, value in values.items():
            if not np.array_equal(value, made_for.values[name]):
                raise InputError(
                    f"{path} was compiled for {name} = {made_for.values[name].tolist()}, "
                    f"not {value.tolist()}"
                )
        return loaded

    def save(binding: Binding, values: Values, where: Path) -> None:
        specialise(binding, values)
        held = executable.state.copy()
        save_program(where, loaded, target, facts, made_for, default_threads, report, made_by, held)

    available = team_size(None)
    team = min(default_threads, available) if threads is None else team_size(threads)
    decided = {name: Port(name, _type_of(value)) for name, value in made_for.values.items()}
    by_name = {port.name: port for port in code.inputs} | decided
    inputs = [by_name[name] for name in made_for.inputs]
    executable = Executable(
        facts, inputs, code.outputs, team, specialise, save, tuple(decided), state, place
    )
    sizes = (
        ", ".join(f"{name} = {size}" for name, size in made_for.binding.items()) or "these sizes"
    )
    executable.remedy = (
        f"help: {path} is compiled for {sizes}; `convdsl compile` with --batch or --input makes one"
        " for others"
    )
    return executable


def read_report(path: str | Path) -> dict[str, Any]:
    """The report (JSON form) that an artifact carries."""
    report = artifact.read(Path(path)).manifest.get("report")
    if not isinstance(report, dict):
        raise ArtifactError(f"{path} carries no report")
    return report  # pyright: ignore[reportUnknownVariableType]


def described(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What an artifact says of itself, for people and programs; ArtifactError where it says too
    little."""
    try:
        ports = {
            kind: {p.name: str(p.type) for p in map(_port_from_json, manifest[kind])}
            for kind in ("inputs", "outputs")
        }
        total = dict(manifest["report"])["total"]
        prepared = cast("dict[str, Any]", manifest["preprocessing"] or {})
        steps = cast("list[dict[str, Any]]", prepared.get("steps", []))
        target = cast("dict[str, Any]", manifest["target"])
        return {
            "model": str(manifest["model"]),
            **ports,
            "sizes": dict(manifest["binding"]),
            "kind": str(manifest.get("kind", "cpu")),
            "target": {name: part for name, part in target.items() if name != "features"},
            "threads": manifest["threads"],
            "made by": str(manifest["made_by"]),
            "params": total["params"],
            "macs": total["macs"],
            "weight bytes": manifest["weight_bytes"],
            "arena bytes": manifest["arena_bytes"],
            "file bytes": path.stat().st_size,
            "states": len(manifest["states"]),
            "classes": len(manifest["labels"] or ()),
            "preprocessing": [str(step["name"]) for step in steps],
            "notes": list(manifest["notes"]),
        }
    except _SENSELESS as error:
        raise ArtifactError(f"{path} holds no complete manifest: {error!r}") from None


def is_artifact(path: str | Path) -> bool:
    """Whether a file begins as an artifact does."""
    try:
        if not Path(path).is_file():  # opening a FIFO would wait for its writer
            return False
        with Path(path).open("rb") as file:
            return file.read(len(artifact.MAGIC)) == artifact.MAGIC
    except (OSError, ValueError):
        return False


def _seal(code: Code, target: Target | CudaTarget) -> str:
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


def _whole(value: Any) -> int:
    """A whole number that JSON writes as one."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _read_code(
    manifest: Mapping[str, Any], kind: str, sections: Mapping[str, memoryview]
) -> tuple[Code, Target | CudaTarget]:
    if manifest["abi"] != ABI:
        raise ArtifactError(f"the artifact has code interface {manifest['abi']}, expected {ABI}")
    code = Code(
        bytes(sections["object"]),
        str(manifest["entry"]),
        tuple(map(_port_from_json, manifest["inputs"])),
        tuple(map(_port_from_json, manifest["outputs"])),
        _whole(manifest["arena_bytes"]),
        _whole(manifest["weight_bytes"]),
        _whole(manifest["steps"]),
        tuple(map(_port_from_json, manifest["states"])),
        _whole(manifest["private_bytes"]),
    )
    return code, KINDS[kind].from_json(manifest["target"])


def _read_state(code: Code, sections: Mapping[str, memoryview], device: Device) -> State:
    arrays: dict[str, Array] = {}
    for slot, port in enumerate(code.states):
        flat = np.frombuffer(sections[f"state{slot}"], port.type.dtype.numpy)
        arrays[port.name] = flat.reshape(port.type.sizes)
    return State(code.states, arrays, device)


def _read_facts(manifest: Mapping[str, Any]) -> Facts:
    labels, preprocessing = manifest["labels"], manifest["preprocessing"]
    if not isinstance(preprocessing, dict | None) or not isinstance(labels, list | None):
        raise TypeError("labels are a list, preprocessing is an object")
    return Facts(
        str(manifest["model"]),
        cast("dict[str, Any] | None", preprocessing),
        None if labels is None else tuple(map(str, cast("list[Any]", labels))),
        tuple(map(str, manifest["notes"])),
        bool(manifest["winograd"]),
    )


def _read_signature(manifest: Mapping[str, Any], code: Code) -> Signature:
    values = {
        str(name): np.asarray(value["elements"], DType(value["dtype"]).numpy)
        for name, value in manifest["values"].items()
    }
    inputs = tuple(map(str, manifest["signature"]))
    if sorted(inputs) != sorted([*values, *(port.name for port in code.inputs)]):
        raise ValueError("the signature is not that of the program")
    binding = {str(name): _whole(size) for name, size in manifest["binding"].items()}
    return Signature(inputs, binding, values)


def _type_of(value: Array) -> TensorType:
    return TensorType(of_numpy(value.dtype), value.shape)


def _value_to_json(value: Array) -> dict[str, Any]:
    return {"dtype": _type_of(value).dtype.value, "elements": value.tolist()}


def _port_to_json(port: Port) -> dict[str, Any]:
    shape = list(port.type.shape)
    return {"name": port.name, "dtype": port.type.dtype.value, "shape": shape}


def _port_from_json(data: Mapping[str, Any]) -> Port:
    shape = tuple(_whole(extent) for extent in data["shape"])
    if any(extent < 0 for extent in shape):
        raise ValueError(f"negative size in {data['name']}")
    return Port(str(data["name"]), TensorType(DType(data["dtype"]), shape))
