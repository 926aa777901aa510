"""Whether code that was made for a processor can run on this one."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from convdsl.diagnostics import ArtifactError
from convdsl.kernel.target import Target

# What the levels of the x86-64 psABI demand, in LLVM's names.
LEVELS = {
    "x86-64": frozenset(["sse2"]),
    "x86-64-v2": frozenset(["sse4.2", "ssse3", "popcnt", "cx16"]),
    "x86-64-v3": frozenset(["avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe", "popcnt"]),
    "x86-64-v4": frozenset(
        ["avx2", "fma", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]
    ),
}

# Where Linux calls a feature otherwise than LLVM does.
_LINUX_NAMES = {"sse4.2": "sse4_2", "bmi": "bmi1", "lzcnt": "abm"}

_TELLING = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part")
_TELLING_MORE = ("CPU architecture", "CPU variant", "CPU revision", "Features")


@lru_cache(maxsize=1)
def identity() -> str:
    """This processor, as Linux describes it with all its features; empty where it does not.
    Code that runs here runs wherever the text is the same."""
    lines = [f"{key}: {value}" for key, value in _facts() if key in _TELLING + _TELLING_MORE]
    told = any(line.startswith(("flags:", "Features:")) for line in lines)
    return "\n".join([platform.machine(), *lines]) if told else ""


def proof(target: Target) -> str:
    """That this processor can run code made for `target`, for `check_processor` to find again;
    empty where it cannot, or nothing tells it from others."""
    try:
        check_processor(target, "")
    except ArtifactError:
        return ""
    return _proven(target)


def _proven(target: Target) -> str:
    return f"{target.instructions} on\n{identity()}" if identity() else ""


def check_processor(target: Target, what: str, proven: str = "") -> None:
    """ArtifactError unless this processor can run code made for `target`.

    LLVM is asked only where neither a proof (see above) nor Linux's list of features settles it.
    """
    if proven and proven == _proven(target):
        return
    wanted = LEVELS.get(target.cpu)
    if target.architecture == platform.machine() and wanted is not None and not target.features:
        have = _flags()
        if all(_LINUX_NAMES.get(feature, feature) in have for feature in wanted):
            return
    _ask_llvm(target, what)


def refusal(target: Target) -> str:
    """Why this processor cannot run code that was made here for `target`; empty where it can. Of a
    processor that is only a name (`haswell`), all that is known is how wide its vectors are."""
    from convdsl.runtime.cpu import engine

    here, name, features = engine.host()
    try:
        if target.architecture != here or target.features or target.cpu in LEVELS:
            check_processor(target, "the code")
        elif here == "x86_64" and target.vector_bytes > _vector_bytes(features):
            raise ArtifactError(f"the code is made for {target.cpu}, this is {name}")
    except ArtifactError as error:
        return f"{error}; `native` makes code for it"
    return ""


def _vector_bytes(features: Mapping[str, bool]) -> int:
    widths = {"avx512f": 64, "avx2": 32}
    return next((w for feature, w in widths.items() if features.get(feature, False)), 16)


def _ask_llvm(target: Target, what: str) -> None:
    from convdsl.runtime.cpu import engine

    here, name, features = engine.host()
    if target.architecture != here:
        raise ArtifactError(f"{what} is made for {target.architecture}, this is {here}")
    if target.features:
        wanted = {f[1:] for f in target.features.split(",") if f.startswith("+")}
    elif target.cpu in LEVELS:
        wanted = set(LEVELS[target.cpu])
    elif target.cpu == name:
        return
    else:
        raise ArtifactError(f"{what} is made for the processor {target.cpu}, this is {name}")
    missing = sorted(feature for feature in wanted if not features.get(feature, False))
    if missing:
        raise ArtifactError(
            f"{what} is made for {target.cpu} and needs {', '.join(missing)}, "
            f"which this processor ({name}) does not have"
        )


def _flags() -> frozenset[str]:
    return frozenset(word for key, value in _facts() if key == "flags" for word in value.split())


@lru_cache(maxsize=1)
def _facts() -> tuple[tuple[str, str], ...]:
    """(key, value) of the first processor in /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ()
    lines = text.split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return tuple((key.strip(), value.strip()) for key, colon, value in pairs if colon)
