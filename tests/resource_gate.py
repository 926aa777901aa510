"""What each distinct kernel takes on a card: compiled once for an architecture, kept on disk.

Networks share kernels, since sizes are baked into them and layers repeat; names do not count. What
NVRTC said of a function is kept by its text, the text before it, the architecture and the compiler,
so that a run that was interrupted goes on where it stopped, and two processes share what they do.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from cuda_shim.modules import folder

from convdsl.backends.cuda import nvrtc
from convdsl.backends.cuda.nvrtc import Resources, compile_source, nvrtc_version

_FUNCTION = re.compile(r'^(extern "C" __global__ void __launch_bounds__\([^)]*\)) (\w+)', re.M)
_SAME = "kernel"


@dataclass(frozen=True)
class Gate:
    """What was looked at: kernels of how many programs, how many were compiled anew and in how many
    seconds; and what must not be: what is spilled, or in local memory, and products of
    warp groups that wait for each other."""

    programs: int
    kernels: int
    compiled: int
    seconds: float
    findings: tuple[str, ...]

    @staticmethod
    def of_all(gates: Iterable[Gate]) -> Gate:
        """Sums."""
        found = list(gates)
        return Gate(
            sum(gate.programs for gate in found),
            sum(gate.kernels for gate in found),
            sum(gate.compiled for gate in found),
            sum(gate.seconds for gate in found),
            tuple(finding for gate in found for finding in gate.findings),
        )

    def __str__(self) -> str:
        return (
            f"{self.kernels} kernels of {self.programs} programs, {self.compiled} distinct ones "
            f"compiled in {self.seconds:.0f} s; {len(self.findings)} are not as they must be"
        )


def check_resources(sources: Mapping[str, str], arch: str) -> Gate:
    """Kernels of modules, by what to call these, for one architecture."""
    kernels = compiled = 0
    seconds, findings = 0.0, list[str]()
    for program, source in sources.items():
        for name, text in functions_of(source).items():
            began = time.perf_counter()
            used, fresh = resources_of(text, arch)
            kernels += 1
            if fresh:
                compiled, seconds = compiled + 1, seconds + time.perf_counter() - began
            if used.spills or used.local or used.serialised:
                findings.append(f"{program}, {arch}, {name}: {used}")
    return Gate(len(sources), kernels, compiled, seconds, tuple(findings))


def functions_of(source: str) -> dict[str, str]:
    """Each function of a module by its name, as a module of its own in which it is called as all
    others are."""
    head, *parts = _FUNCTION.split(source)
    return {
        name: f"{head}{bounds} {_SAME}{rest}"
        for bounds, name, rest in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def resources_of(text: str, arch: str) -> tuple[Resources, bool]:
    """Of a function alone in its module, and whether it had to be compiled."""
    said = hashlib.sha256()
    for part in (text, arch, nvrtc_version(), _how()):
        said.update(part.encode() + b"\0")
    path = _results() / f"{said.hexdigest()[:32]}.json"
    if path.exists():
        return Resources(**json.loads(path.read_text())), False
    used = compile_source(text, arch).resources[_SAME]
    fresh = path.with_suffix(f".{time.monotonic_ns()}")
    fresh.write_text(json.dumps(asdict(used)))
    fresh.replace(path)
    return used, True


@cache
def _how() -> str:
    """What decides how a source is compiled."""
    return Path(nvrtc.__file__).read_text()


@cache
def _results() -> Path:
    place = folder() / "resources"
    place.mkdir(exist_ok=True)
    return place
