"""From a model to machine code with its weights: passes, lowering, printing, the code cache."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.analysis.samples import batch_of, samples_are_apart
from convdsl.diagnostics import InputError
from convdsl.forking import CYCLES
from convdsl.ir.canonical import canonical_text
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.kernel.cpu_abi import ENTRY
from convdsl.kernel.program import AllReduce, Joint, Port
from convdsl.lowering.lower import Lowered, lower
from convdsl.lowering.packing import Packing, Shelf, pack_weights
from convdsl.lowering.recipe import packings_from_json, packings_to_json
from convdsl.lowering.rounds import in_rounds, whole_port
from convdsl.passes import PASSES, Observer, Pass
from convdsl.passes import run as run_passes
from convdsl.runtime.cache import ObjectCache, sources
from convdsl.runtime.code import Code, check_memory
from convdsl.runtime.cpu.code import LoadedCode, aligned
from convdsl.runtime.device import HOST, Device
from convdsl.runtime.targets import KINDS, kind_of
from convdsl.schedules.machine import Machine
from convdsl.tensor import DType
from convdsl.toolchain import Toolchain

if TYPE_CHECKING:
    from convdsl.runtime.cuda.program import CardCode

_LENGTH = struct.Struct("<Q")
_SOURCES = ("tensor", "kernel", "ir", "ops", "passes", "schedules", "lowering", "backends")


@dataclass(frozen=True)
class Plan:
    """A model on its way to machine code: everything but the sizes and the weights. `tuning` says
    which schedules were found best for some tasks (measure.tuning); `team` how many threads are
    expected, though any number can run the code."""

    model: Model
    toolchain: Toolchain[Any]
    passes: tuple[Pass, ...] = PASSES
    verify: bool = False
    observer: Observer | None = None
    tuning: Mapping[str, str] = field(default_factory=dict[str, str])
    team: int = 1

    @property
    def machine(self) -> Machine:
        """What lowering knows of the target."""
        return self.toolchain.machine.preferring(self.tuning)

    def graph(self, binding: Mapping[str, int]) -> Graph:
        """Bind the sizes, run the passes."""
        graph = self.model.settled(binding).graph
        graph = graph.bind(binding) if binding else graph
        return run_passes(graph, self.passes, verify=self.verify, observer=self.observer)

    def rounds(self, binding: Mapping[str, int]) -> tuple[Mapping[str, int], int]:
        """The sizes that kernels are made for, and how many rounds of these there are: samples of a
        batch that do not depend on each other need not be met at once."""
        model, machine = self.model, self.machine
        batch = None if model.reread is not None else batch_of(model.graph)
        samples = 1 if batch is None else binding.get(batch.name, 1)
        if batch is None or samples == 1 or model.graph.updates:
            return binding, 1
        one = model.graph.bind({**binding, batch.name: 1})
        at_once = machine.samples_at_once(one, samples, self.team)
        if at_once == samples or not samples_are_apart(model):
            return binding, 1
        return {**binding, batch.name: at_once}, samples // at_once

    def lower(self, binding: Mapping[str, int]) -> Lowered:
        """Bind the sizes, run the passes, and make kernels."""
        binding, rounds = self.rounds(binding)
        return in_rounds(lower(self.graph(binding), self.machine, self.model.name), rounds)

    def arena_bytes(self, binding: Mapping[str, int]) -> int:
        """Scratch memory of a call on one thread."""
        return self.lower(binding).program.scratch_bytes(1)

    def load(
        self,
        binding: Mapping[str, int],
        arrays: Mapping[str, Any],
        cache: ObjectCache | None,
        device: Device = HOST,
    ) -> LoadedCode | CardCode:
        """Machine code with its weights, ready to run on a device."""
        target = self.toolchain.target
        return KINDS[kind_of(target)].load(*self.make(binding, arrays, cache), device, target)

    def make(
        self, binding: Mapping[str, int], arrays: Mapping[str, Any], cache: ObjectCache | None
    ) -> tuple[Code, npt.NDArray[np.uint8]]:
        """Machine code and packed weights. What was made of an equal graph for an equal target
        before is taken from the cache; only the weights are packed anew."""
        return CYCLES.during(lambda: self._make(binding, arrays, cache))

    def _make(
        self, binding: Mapping[str, int], arrays: Mapping[str, Any], cache: ObjectCache | None
    ) -> tuple[Code, npt.NDArray[np.uint8]]:
        binding, rounds = self.rounds(binding)
        graph = self.graph(binding)
        key = "" if cache is None else key_of(graph, self.toolchain.version, self.machine, rounds)
        kept = _kept(cache, key, graph, self.machine, rounds)
        if kept is not None:
            code, packings = kept
            return code, _packed(graph, packings, code, arrays)
        with self.toolchain.compiler() as compiler:
            lowered = lower(graph, self.machine, self.model.name, certain=compiler.add)
            lowered = in_rounds(lowered, rounds)
            program = lowered.program
            packing = _Packing(graph, lowered.packings, Code.of(program, b""), arrays)
            code = Code.of(program, compiler.object_code(program))
        if cache is not None:
            cache.put(key, _entry(code, graph, self.machine, lowered.packings))
        return code, packing.result()


def make_several(
    plans: Sequence[tuple[Plan, Mapping[str, int]]],
    arrays: Mapping[str, Any],
    cache: ObjectCache | None,
) -> tuple[tuple[Code, ...], npt.NDArray[np.uint8]]:
    """Machine code for several sizes of one model, and one weight memory, of which each program
    knows its first `weight_bytes`: what sizes pack alike is there once."""
    return CYCLES.during(lambda: _make_several(plans, arrays, cache))


def _make_several(
    plans: Sequence[tuple[Plan, Mapping[str, int]]],
    arrays: Mapping[str, Any],
    cache: ObjectCache | None,
) -> tuple[tuple[Code, ...], npt.NDArray[np.uint8]]:
    shelf, keys, codes = Shelf(), ["several"], list[Code]()
    todo: list[tuple[Graph, list[Packing], int]] = []
    for plan, binding in plans:
        own, rounds = plan.rounds(binding)
        graph, machine, start = plan.graph(own), plan.machine, shelf.bytes
        keys.append(key_of(graph, plan.toolchain.version, machine, rounds))
        key = "\n\n".join(keys)  # where weights lie follows from what was there before
        kept = _kept(cache, key, graph, machine, rounds)
        if kept is not None:
            code, packings = kept
            packings = shelf.place(packings, machine.alignment)
        else:
            with plan.toolchain.compiler() as compiler:
                lowered = lower(graph, machine, plan.model.name, shelf, compiler.add)
                lowered = in_rounds(lowered, rounds)
                program, packings = lowered.program, lowered.packings
                code = Code.of(program, compiler.object_code(program))
            if cache is not None:
                cache.put(key, _entry(code, graph, machine, packings))
        check_memory(code.scratch_bytes(1), code.weight_bytes)
        fresh = [replace(p, offset=p.offset - start) for p in packings if p.offset >= start]
        todo.append((graph, fresh, start))
        codes.append(code)
    weights = aligned(shelf.bytes)
    for (graph, fresh, start), code in zip(todo, codes, strict=True):
        pack_weights(graph, fresh, arrays, weights[start : code.weight_bytes])
    return tuple(codes), weights


Tuner: TypeAlias = Callable[[Plan, Mapping[str, int], Mapping[str, Any], int], Mapping[str, str]]
"""From a plan, sizes, weights and a number of threads to the schedules to prefer, by task."""


@dataclass(frozen=True)
class Maker:
    """Makes programs of a model: of the plan that sizes come to, with the weights that
    `arrays_of` binds to a model whose sizes are settled."""

    plan: Plan
    arrays_of: Callable[[Model], Mapping[str, Any]]
    cache: ObjectCache | None
    tuner: Tuner | None
    team: int

    def load(
        self, binding: Mapping[str, int], values: Mapping[str, Any], device: Device
    ) -> LoadedCode | CardCode:
        """The program for these sizes, and values of inputs that decide shapes."""
        plan, arrays = self._planned(binding, values)
        return plan.load(binding, arrays, self.cache, device)

    def make(
        self, bindings: Sequence[Mapping[str, int]], values: Mapping[str, Any]
    ) -> list[tuple[Code, npt.NDArray[np.uint8]]]:
        """Code and weights for several sizes. They share a weight memory where they are of one
        graph: a file that is read anew for each may have other weights."""
        planned = [self._planned(binding, values) for binding in bindings]
        if all(plan.model is self.plan.model for plan, _ in planned):
            plans = [(plan, at) for (plan, _), at in zip(planned, bindings, strict=True)]
            codes, weights = make_several(plans, planned[0][1], self.cache)
            return [(code, weights[: code.weight_bytes]) for code in codes]
        each = zip(planned, bindings, strict=True)
        return [plan.make(at, arrays, self.cache) for (plan, arrays), at in each]

    def _planned(
        self, binding: Mapping[str, int], values: Mapping[str, Any]
    ) -> tuple[Plan, Mapping[str, Any]]:
        settled = self.plan.model.settled(binding, values)
        arrays, made = self.arrays_of(settled), replace(self.plan, model=settled)
        if self.tuner is not None:
            made = replace(made, tuning=self.tuner(made, binding, arrays, self.team))
        return made, arrays


class _Packing(threading.Thread):
    """Weights being packed while the compiler works."""

    def __init__(
        self, graph: Graph, packings: tuple[Packing, ...], code: Code, arrays: Mapping[str, Any]
    ) -> None:
        check_memory(code.scratch_bytes(1), code.weight_bytes)
        super().__init__(name="convdsl-packing")
        self._work = (graph, packings, code, arrays)
        self._weights: npt.NDArray[np.uint8] | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._weights = _packed(*self._work)
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
            self._error = error

    def result(self) -> npt.NDArray[np.uint8]:
        self.join()
        if self._error is not None:
            raise self._error
        assert self._weights is not None
        return self._weights


def _packed(
    graph: Graph, packings: tuple[Packing, ...], code: Code, arrays: Mapping[str, Any]
) -> npt.NDArray[np.uint8]:
    check_memory(code.scratch_bytes(1), code.weight_bytes)
    weights = aligned(code.weight_bytes)
    pack_weights(graph, packings, arrays, weights)
    return weights


# The code cache. A key is everything that machine code and packings follow from.


def key_of(graph: Graph, version: str, machine: Machine, rounds: int = 1) -> str:
    """Everything that the code of a graph, made by a toolchain of that version, follows from."""
    made_for = (version, machine.name, machine.facts, *(["rounds", str(rounds)] * (rounds > 1)))
    return "\n".join((_fingerprint(), *made_for, canonical_text(graph)))


@lru_cache(maxsize=1)
def _fingerprint() -> str:
    """All rooms between the graph and the machine code."""
    return sources(_SOURCES, ("__init__.py", "toolchain.py", "compilation.py"))


def _entry(code: Code, graph: Graph, machine: Machine, packings: tuple[Packing, ...]) -> bytes:
    """A program as the cache keeps it."""
    facts = {
        "arena_bytes": code.arena_bytes,
        "weight_bytes": code.weight_bytes,
        "private_bytes": code.private_bytes,
        "steps": code.steps,
        "sums": [(s.begin, s.end, s.offset, s.elements, s.dtype.value) for s in code.sums],
        "joint": None if code.joint is None else (code.joint.runs, code.joint.digest),
        "packings": packings_to_json(graph, machine, packings),
    }
    text = json.dumps(facts).encode()
    return b"".join((_LENGTH.pack(len(text)), text, code.object_code))


def _kept(
    cache: ObjectCache | None, key: str, graph: Graph, machine: Machine, rounds: int
) -> tuple[Code, tuple[Packing, ...]] | None:
    """What was made before. What makes no sense, though it is whole, is made again."""
    entry = None if cache is None else cache.get(key)
    try:
        return None if entry is None else _read(entry, graph, machine, rounds)
    except (struct.error, ValueError, LookupError, TypeError, InputError):
        return None


def _read(
    entry: bytes, graph: Graph, machine: Machine, rounds: int
) -> tuple[Code, tuple[Packing, ...]]:
    (length,) = _LENGTH.unpack_from(entry)
    end = _LENGTH.size + length
    facts = json.loads(entry[_LENGTH.size : end])
    code = Code(
        entry[end:],
        ENTRY,
        tuple(whole_port(Port(n, value.type), rounds) for n, value in graph.inputs.items()),
        tuple(whole_port(Port(n, value.type), rounds) for n, value in graph.outputs.items()),
        facts["arena_bytes"],
        facts["weight_bytes"],
        facts["steps"],
        tuple(Port(key, value.type) for key, value in graph.updates.items()),
        facts["private_bytes"],
        tuple(AllReduce(a, b, c, d, DType(dtype)) for a, b, c, d, dtype in facts["sums"]),
        None if facts["joint"] is None else _joint(*facts["joint"]),
    )
    return code, packings_from_json(graph, machine, facts["packings"])


def _joint(runs: Iterable[tuple[int, int]], digest: int) -> Joint:
    return Joint(tuple((first, last) for first, last in runs), digest)
