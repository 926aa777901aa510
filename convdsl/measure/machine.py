"""This machine, measured once and remembered: the figures that predictions are made of.

They lie in the user's cache folder beside the cached code, under a key that names the processor
with all its features, how many of them this process may use, and the versions that the
measuring kernels came from. What is damaged, or was measured elsewhere, is measured again.
Nothing here ever decides how code is made (ADR 65).
"""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, fields, replace
from typing import cast

from convdsl import __version__
from convdsl.analysis.machine import MEASURED, Machine
from convdsl.backends.llvm import objects as llvm
from convdsl.measure.peak import MEMORY_BYTES, measure_l2, measure_l3, measure_memory, measure_peak
from convdsl.runtime.cache import ObjectCache, default_directory
from convdsl.runtime.cpu.processor import identity, refusal
from convdsl.runtime.cpu.team import available_threads
from convdsl.tensor import DType

_METHOD = 2
"""Raised when the kernels, or what the figures mean, change."""

_MULTIPLY_ADDS = 2
"""Of vectors, in a cycle: what the schedules reckon with (schedules.cpu.tiles)."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a team of threads reaches at best, all of them together. Per second."""

    flops: float  # two for each multiply-add
    memory_bytes: float  # read from memory
    l2_bytes: float  # read from the second-level caches
    l3_bytes: float  # read from what lies just beyond those

    def clock(self, threads: int, lanes: int) -> float:
        """Cycles per second of one thread, such that the multiply-add kernel takes as many cycles
        as the schedules would predict for it."""
        return self.flops / threads / (2 * _MULTIPLY_ADDS * lanes)


def figures(
    threads: int, cpu: str = "native", dtype: DType = DType.F32, *, anew: bool = False
) -> Figures:
    """Those remembered, or measured now. Of a processor whose code does not run here: what this
    one's would be, were its vectors as wide."""
    target = llvm.find_target(cpu)
    if cpu != "native" and refusal(target):
        found = figures(threads, "native", dtype, anew=anew)
        wider = target.lanes(dtype) / llvm.find_target().lanes(dtype)
        return replace(found, flops=wider * found.flops)
    cache = _cache()
    key = _key(threads, cpu, dtype)
    known = None if anew else _read(cache.get(key))
    if known is not None:
        return known
    found = Figures(
        measure_peak(threads, cpu, dtype) * 1e9,
        measure_memory(threads, cpu),
        measure_l2(threads, cpu),
        measure_l3(threads, cpu),
    )
    cache.put(key, json.dumps(asdict(found)).encode())
    return found


def remembered(threads: int) -> Figures | None:
    """Those of native code and f32, if they have been measured."""
    return _read(_cache().get(_key(threads, "native", DType.F32)))


def this_machine() -> Machine:
    """For the roofline: all processors that this process may use."""
    threads = available_threads()
    return _machine(figures(threads), threads)


def known_machine() -> Machine | None:
    """The same, if it has been measured."""
    threads = available_threads()
    found = remembered(threads)
    return None if found is None else _machine(found, threads)


def _machine(found: Figures, threads: int) -> Machine:
    source = (
        f"best of short runs on {threads} threads: f32 multiply-adds, "
        f"reading {MEMORY_BYTES >> 20} MiB; kept (convdsl doctor --measure measures anew)"
    )
    return Machine(MEASURED, found.flops, found.memory_bytes, source)


def _cache() -> ObjectCache:
    return ObjectCache(default_directory().parent / "machine")


def _key(threads: int, cpu: str, dtype: DType) -> str:
    return "\n".join(
        (
            f"figures {_METHOD}, convdsl {__version__}, {llvm.llvm_version()}",
            repr(llvm.find_target(cpu)),
            identity() or f"{platform.node()} {platform.machine()} {platform.processor()}",
            f"{available_threads()} of {os.cpu_count()} processors, {platform.release()}",
            f"{threads} threads, {dtype.value}",
        )
    )


def _read(entry: bytes | None) -> Figures | None:
    """What an entry says, if it says it whole."""
    try:
        told: object = json.loads(entry or b"null")
    except ValueError:
        return None
    names = [field.name for field in fields(Figures)]
    if not isinstance(told, dict):
        return None
    by_name = cast("dict[str, object]", told)
    values = [by_name.get(name) for name in names]
    numbers = [value for value in values if isinstance(value, float) and 0 < value < math.inf]
    return Figures(*numbers) if len(numbers) == len(names) == len(by_name) else None
