"""Compiled networks on disk: what an artifact says, and running it without any front end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convdsl.diagnostics import ArtifactError
from convdsl.kernel.program import Port
from convdsl.kernel.target import Target
from convdsl.runtime import artifact
from convdsl.runtime.cpu import Code, LoadedCode, check_processor
from convdsl.runtime.executable import Binding, Executable, Facts, Runner
from convdsl.runtime.team import available_threads
from convdsl.tensor import DType, TensorType

ABI = 3
"""Raised when the context table or the entry point of compiled code changes."""


def save_program(
    path: Path,
    loaded: LoadedCode,
    target: Target,
    facts: Facts,
    binding: Mapping[str, int],
    threads: int,
    report: Mapping[str, Any],
    made_by: str,
) -> None:
    """Write one specialisation as an artifact, whole or not at all."""
    code = loaded.code
    manifest = {
        "abi": ABI,
        "made_by": made_by,
        "model": facts.name,
        "binding": dict(binding),
        "entry": code.entry,
        "inputs": [_port_to_json(port) for port in code.inputs],
        "outputs": [_port_to_json(port) for port in code.outputs],
        "steps": code.steps,
        "arena_bytes": code.arena_bytes,
        "weight_bytes": code.weight_bytes,
        "target": {
            "triple": target.triple,
            "cpu": target.cpu,
            "features": target.features,
            "vector_bytes": target.vector_bytes,
            "vector_registers": target.vector_registers,
        },
        "threads": threads,
        "preprocessing": facts.preprocessing,
        "labels": None if facts.labels is None else list(facts.labels),
        "notes": list(facts.notes),
        "report": dict(report),
    }
    sections = {"object": memoryview(code.object_code), "weights": memoryview(loaded.weights.data)}
    artifact.write(path, sections, manifest)


def load_executable(path: str | Path, threads: int | None = None) -> Executable:
    """The network in an artifact, verified. Raises ArtifactError where it is damaged, of another
    version, or made for a processor that this one cannot stand in for."""
    path = Path(path)
    manifest, sections = artifact.read(path)
    try:
        code, target = _read_code(manifest, sections)
        facts = _read_facts(manifest)
        default_threads = int(manifest["threads"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} holds no complete manifest: {error!r}") from None
    check_processor(target, str(path))
    weights = np.frombuffer(sections["weights"], np.uint8)
    loaded = LoadedCode(code, weights)

    def specialise(binding: Binding) -> Runner:
        return loaded

    def save(binding: Binding, where: Path) -> None:
        made_by, report = str(manifest["made_by"]), manifest["report"]
        bound = manifest["binding"]
        save_program(where, loaded, target, facts, bound, default_threads, report, made_by)

    team = threads or min(default_threads, available_threads())
    return Executable(facts, code.inputs, code.outputs, team, specialise, save)


def read_report(path: str | Path) -> dict[str, Any]:
    """The report (JSON form) that an artifact carries."""
    report = artifact.read(Path(path)).manifest.get("report")
    if not isinstance(report, dict):
        raise ArtifactError(f"{path} carries no report")
    return report  # pyright: ignore[reportUnknownVariableType]


def is_artifact(path: str | Path) -> bool:
    """Whether a file begins as an artifact does."""
    try:
        if not Path(path).is_file():  # opening a FIFO would wait for its writer
            return False
        with Path(path).open("rb") as file:
            return file.read(len(artifact.MAGIC)) == artifact.MAGIC
    except (OSError, ValueError):
        return False


def _read_code(
    manifest: Mapping[str, Any], sections: Mapping[str, memoryview]
) -> tuple[Code, Target]:
    if manifest["abi"] != ABI:
        raise ArtifactError(f"the artifact has code interface {manifest['abi']}, expected {ABI}")
    code = Code(
        bytes(sections["object"]),
        str(manifest["entry"]),
        tuple(map(_port_from_json, manifest["inputs"])),
        tuple(map(_port_from_json, manifest["outputs"])),
        int(manifest["arena_bytes"]),
        int(manifest["weight_bytes"]),
        int(manifest["steps"]),
    )
    if code.arena_bytes < 0 or code.weight_bytes < 0:
        raise ValueError("negative size of memory")
    made_for = manifest["target"]
    target = Target(
        str(made_for["triple"]),
        str(made_for["cpu"]),
        str(made_for["features"]),
        int(made_for["vector_bytes"]),
        int(made_for["vector_registers"]),
    )
    return code, target


def _read_facts(manifest: Mapping[str, Any]) -> Facts:
    labels = manifest["labels"]
    return Facts(
        str(manifest["model"]),
        manifest["preprocessing"],
        None if labels is None else tuple(map(str, labels)),
        tuple(map(str, manifest["notes"])),
    )


def _port_to_json(port: Port) -> dict[str, Any]:
    shape = list(port.type.shape)
    return {"name": port.name, "dtype": port.type.dtype.value, "shape": shape}


def _port_from_json(data: Mapping[str, Any]) -> Port:
    shape = tuple(int(extent) for extent in data["shape"])
    if any(extent < 0 for extent in shape):
        raise ValueError(f"negative size in {data['name']}")
    return Port(str(data["name"]), TensorType(DType(data["dtype"]), shape))
