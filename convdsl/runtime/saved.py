"""Compiled networks on disk: what an artifact says, and running it without any front end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from convdsl.calling import suggests
from convdsl.diagnostics import ArtifactError, InputError
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.program import Port
from convdsl.kernel.signature import Binding, bind_shapes, samples_of
from convdsl.kernel.target import Target
from convdsl.places import check_name
from convdsl.runtime import artifact
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.team import team_size
from convdsl.runtime.device import Device
from convdsl.runtime.executable import Array, Executable, Facts, Runner, Values
from convdsl.runtime.programs import (
    ABI,
    SEVERAL_ABI,
    Made,
    check_interface,
    open_ports,
    port_from_json,
    program_to_json,
    read_programs,
    sections_of,
    type_of,
    whole,
)
from convdsl.runtime.state import State
from convdsl.runtime.targets import KINDS, find_device, kind_of

_SENSELESS = (
    *(KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError),
    InputError,
)  # what reading a manifest that makes no sense may raise


def save_programs(
    path: Path,
    programs: Sequence[Made],
    target: Target | CudaTarget,
    facts: Facts,
    threads: int,
    made_by: str,
    state: Mapping[str, Array],
) -> None:
    """Write specialisations of a network, and its state as it is, as an artifact, whole or not at
    all. The first stands where the one of an artifact of one size does."""
    check_name("an artifact", path, ".cdsl", is_said=True)
    kind, several = kind_of(target), len(programs) > 1
    sections, places = sections_of(programs)
    first, *others = (program_to_json(program, target) for program in programs)
    manifest = {
        "abi": SEVERAL_ABI if several else ABI,
        "kind": kind,
        "made_by": made_by,
        "model": facts.name,
        **first,
        "target": KINDS[kind].to_json(target),
        "proof": KINDS[kind].proof(target),
        "threads": threads,
        "preprocessing": facts.preprocessing,
        "labels": None if facts.labels is None else list(facts.labels),
        "notes": list(facts.notes),
        "winograd": facts.winograd,
        "apart": facts.apart,
    }
    if several:
        rows = zip(others, places[1:], strict=True)
        manifest["also"] = [row | {"weights": place} for row, place in rows]
    for slot, port in enumerate(programs[0].code.states):
        sections[f"state{slot}"] = state[port.name].reshape(-1).view(np.uint8).data
    artifact.write(path, sections, manifest)


@suggests
def load_executable(
    path: str | Path, threads: int | None = None, device: str | None = None
) -> Executable:
    """The network in an artifact, verified. Raises ArtifactError where it is damaged, of another
    version, or made for a processor that this one cannot stand in for; InputError where it runs on
    a card and there is none. `device` says which card (`cuda:1`), where there are several."""
    if not isinstance(path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArtifactError(f"{path!r} is no path of an artifact")
    asked = None if device is None else find_device(device)
    path = Path(path)
    manifest, sections = artifact.read(path)
    try:
        check_interface(manifest)
        kind = str(manifest.get("kind", "cpu"))
        name, place = asked or find_device(kind)
        target = KINDS[kind].from_json(manifest["target"])
        default_threads = team_size(whole(manifest["threads"]))
        facts, proven = _read_facts(manifest), str(manifest["proof"])
        made_by = str(manifest["made_by"])
    except _SENSELESS as error:
        raise ArtifactError(f"{path} holds no complete manifest: {error!r}") from None
    if name != kind:
        raise InputError(f"{path} is compiled for {kind}: it does not run on {device}")
    KINDS[kind].check(target, place, str(path), proven)
    try:
        programs = read_programs(manifest, sections, target)
        state = _read_state(programs[0].code, sections, place)
        inputs, outputs = _ports(programs)
        sizes = [bind_shapes(inputs, _shapes(program)) for program in programs]
    except ArtifactError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from None
    except _SENSELESS as error:
        raise ArtifactError(f"{path} holds no complete manifest: {error!r}") from None
    loaded = [KINDS[kind].load(program.code, program.weights, place, None) for program in programs]
    values_made_for = programs[0].made_for.values

    def number(binding: Binding, values: Values) -> int:
        for name, value in values.items():
            if not np.array_equal(value, values_made_for[name]):
                raise InputError(
                    f"{path} was compiled for {name} = {values_made_for[name].tolist()}, "
                    f"not {value.tolist()}"
                )
        if binding not in sizes:
            said = ", ".join(f"{name} = {size}" for name, size in binding.items())
            raise InputError(f"there is no code for {said}\n{executable.remedy}")
        return sizes.index(binding)

    def specialise(binding: Binding, values: Values) -> Runner:
        return loaded[number(binding, values)]

    def save(bindings: Sequence[Binding], values: Values, where: Path) -> None:
        chosen = [programs[number(binding, values)] for binding in bindings]
        held = executable.state.copy()
        save_programs(where, chosen, target, facts, default_threads, made_by, held)

    available = team_size(None)
    team = min(default_threads, available) if threads is None else team_size(threads)
    executable = Executable(
        facts, inputs, outputs, team, specialise, save, tuple(values_made_for), state, place
    )
    executable.remedy = _remedy(path, programs)
    executable.made_for = tuple(dict(program.made_for.binding) for program in programs)
    return executable


def _ports(programs: Sequence[Made]) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of the network: those of one program, or what several have in common."""
    ordered: list[list[Port]] = []
    for program in programs:
        made_for = program.made_for
        decided = {name: Port(name, type_of(value)) for name, value in made_for.values.items()}
        by_name = {port.name: port for port in program.code.inputs} | decided
        ordered.append([by_name[name] for name in made_for.inputs])
    if len(programs) == 1:
        return tuple(ordered[0]), programs[0].code.outputs
    if any(p.code.states != programs[0].code.states for p in programs):
        raise ValueError("programs of different networks")
    bindings = [program.made_for.binding for program in programs]
    outputs = [program.code.outputs for program in programs]
    return open_ports(ordered, bindings), open_ports(outputs, bindings)


def _shapes(program: Made) -> dict[str, tuple[int, ...]]:
    values = program.made_for.values
    shapes = {port.name: port.type.sizes for port in program.code.inputs}
    return shapes | {name: value.shape for name, value in values.items()}


def _remedy(path: Path, programs: Sequence[Made]) -> str:
    sizes = " and for ".join(str(program.made_for) or "these sizes" for program in programs)
    return (
        f"help: {path} is compiled for {sizes}; `convdsl compile` with --batch or --input makes one"
        " for others, with --batch 1,8 for several"
    )


def read_report(path: str | Path, batch: int | None = None) -> dict[str, Any]:
    """The report (JSON form) that an artifact carries: of its first program, or of the one for a
    batch. InputError where there is none."""
    return read_reports(path, batch)[0][1]


def read_reports(
    path: str | Path, batch: int | None = None
) -> list[tuple[dict[str, int], dict[str, Any]]]:
    """The sizes and the reports of all programs, or of those for a batch."""
    manifest = artifact.read(Path(path)).manifest
    try:
        rows = [manifest, *manifest.get("also", ())]
        held = [(dict(row["binding"]), row.get("report")) for row in rows]
        there = [samples_of(binding) for binding, _ in held]
    except _SENSELESS as error:
        raise ArtifactError(f"{path} holds no complete manifest: {error!r}") from None
    fitting = [row for row, size in zip(held, there, strict=True) if batch in (None, size)]
    if not fitting:
        said = ", ".join(map(str, there))
        raise InputError(f"{path} has no code for --batch {batch}, only for {said}")
    if not all(isinstance(report, dict) for _, report in fitting):
        raise ArtifactError(f"{path} carries no report")
    return cast("list[tuple[dict[str, int], dict[str, Any]]]", fitting)


def described(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What an artifact says of itself, for people and programs; ArtifactError where it says too
    little."""
    try:
        ports = {
            kind: {p.name: str(p.type) for p in map(port_from_json, manifest[kind])}
            for kind in ("inputs", "outputs")
        }
        rows: list[Mapping[str, Any]] = [manifest, *manifest.get("also", ())]
        total = dict(manifest["report"])["total"]
        prepared = cast("dict[str, Any]", manifest["preprocessing"] or {})
        steps = cast("list[dict[str, Any]]", prepared.get("steps", []))
        target = cast("dict[str, Any]", manifest["target"])
        return {
            "model": str(manifest["model"]),
            **ports,
            "sizes": dict(manifest["binding"]),
            "also for": [dict(row["binding"]) for row in rows[1:]],
            "kind": str(manifest.get("kind", "cpu")),
            "target": {name: part for name, part in target.items() if name != "features"},
            "threads": manifest["threads"],
            "made by": str(manifest["made_by"]),
            "params": total["params"],
            "macs": total["macs"],
            "weight bytes": sum(added for _, added in _weight_bytes(rows)),
            "as the text": total["weight_bytes"],
            "as code reads them": [
                {**sizes, "bytes" if number == 0 else "more bytes": added}
                for number, (sizes, added) in enumerate(_weight_bytes(rows))
            ],
            "arena bytes": max(whole(row["arena_bytes"]) for row in rows),
            "file bytes": path.stat().st_size,
            "states": len(manifest["states"]),
            "classes": len(manifest["labels"] or ()),
            "preprocessing": [str(step["name"]) for step in steps],
            "notes": list(manifest["notes"]),
        }
    except _SENSELESS as error:
        raise ArtifactError(f"{path} holds no complete manifest: {error!r}") from None


def _weight_bytes(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, int], int]]:
    """By sizes, what their program adds to the weight memories: programs that share one know its
    beginning."""
    held: dict[int, int] = {}
    found: list[tuple[Mapping[str, int], int]] = []
    for row in rows:
        place, bytes = row.get("weights", 0), whole(row["weight_bytes"])
        found.append((dict(row["binding"]), max(0, bytes - held.get(place, 0))))
        held[place] = max(held.get(place, 0), bytes)
    return found


def is_artifact(path: str | Path) -> bool:
    """Whether a file begins as an artifact does."""
    try:
        if not Path(path).is_file():  # opening a FIFO would wait for its writer
            return False
        with Path(path).open("rb") as file:
            return file.read(len(artifact.MAGIC)) == artifact.MAGIC
    except (OSError, ValueError):
        return False


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
        bool(manifest.get("apart", False)),  # what older files do not say is not known
    )
