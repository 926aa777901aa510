"""Look at the processor, threads, the code cache and the optional packages.

Exit code 1 where something keeps convdsl from working as it should.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

from convdsl.cli import console, listing
from convdsl.cli.options import add_format

PACKAGES = ("numpy", "llvmlite", "networkx", "safetensors", "lark", "rich")
"""What convdsl cannot do without, by distribution."""

EXTRAS = {
    "images": ("PIL", "pillow", "photos for classify"),
    "onnx": ("onnx", "onnx", "ONNX files"),
    "plot": ("matplotlib", "matplotlib", "curves of training runs as PNG"),
    "lsp": ("pygls", "pygls", "findings and shapes in an editor"),
    "serve": ("uvicorn", "uvicorn", "networks over HTTP"),
    "mpi": ("mpi4py", "mpi4py", "training by several processes"),
    "cuda": ("cupy", "cupy-cuda13x", "NVIDIA GPUs"),
}
"""Optional packages: import name, distribution, purpose; the key is convdsl's extra."""


class Finding(NamedTuple):
    """One line of the examination."""

    what: str
    value: str
    advice: str = ""  # what to do about it, where it is a problem


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clear-cache", action="store_true", help="forget all cached code first")
    parser.add_argument(
        "--measure", action="store_true", help="measure anew what this machine reaches at best"
    )
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl.runtime.cache import ObjectCache

    if options.clear_cache:
        ObjectCache().clear()
    findings = [
        *_software(),
        *_processor(),
        *_threads(),
        *_speed(options.measure),
        *_cache(),
        *_cards(),
        *_extras(),
    ]
    problems = [finding for finding in findings if finding.advice]
    rows = [finding._asdict() for finding in findings]
    if options.format == "table" and not problems:
        rows = [{name: row[name] for name in row if name != "advice"} for row in rows]
    listing.show(rows, options.format, spare=())
    if not problems:
        console.note("everything is as it should be")
    return 1 if problems else 0


def _software() -> list[Finding]:
    from convdsl import __version__

    there: list[str] = []
    missing: list[str] = []
    for name in PACKAGES:
        try:
            there.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    packages = ", ".join(there)
    advice = f"pip install {' '.join(missing)}" if missing else ""
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return [
        Finding("convdsl", __version__),
        Finding("python", python),
        Finding("packages", packages, advice),
    ]


def _processor() -> list[Finding]:
    from convdsl.backends.llvm import objects as llvm
    from convdsl.tensor import DType

    target = llvm.find_target()
    lanes = target.lanes(DType.F32)
    advice = "no vectors: code will be slow" if lanes < 4 else ""
    first, second = target.caches.l1_bytes >> 10, target.caches.l2_bytes >> 10
    return [
        Finding("compiler", llvm.llvm_version()),
        Finding("processor", f"{target.cpu} ({target.triple})"),
        Finding("vectors", f"{target.vector_bytes * 8} bits, {lanes} float32 lanes", advice),
        Finding("caches of a core", f"{first:,} KB of data, second level {second:,} KB"),
    ]


def _threads() -> list[Finding]:
    from convdsl.runtime.cpu.team import available_threads

    return [Finding("threads", f"{available_threads()} (a team of this size unless --threads)")]


def _speed(measure: bool) -> list[Finding]:
    """What rooflines and predicted times are made of: one thread, and all."""
    from convdsl.measure.machine import figures, remembered
    from convdsl.runtime.cpu.team import available_threads

    findings: list[Finding] = []
    for threads in sorted({1, available_threads()}):
        found = figures(threads, anew=True) if measure else remembered(threads)
        value = "not measured yet: --measure does it now, others when they need it"
        if found is not None:
            value = (
                f"{found.flops / 1e9:,.1f} GFLOP/s; reading {found.memory_bytes / 1e9:,.1f} GB/s "
                f"from memory, {found.l3_bytes / 1e9:,.1f} from the third-level and "
                f"{found.l2_bytes / 1e9:,.1f} from the second-level cache"
            )
        findings.append(Finding(f"speed on {threads} thread{'s' * (threads > 1)}", value))
    return findings


def _cache() -> list[Finding]:
    from convdsl.runtime.cache import ObjectCache

    cache = ObjectCache()
    problem = cache.problem
    if problem is not None:
        return [Finding("code cache", "off", problem)]
    size = (
        f"entries {len(cache.entries())}, {cache.size() / 1e6:,.1f} of {cache.limit / 1e6:,.0f} MB"
    )
    return [Finding("code cache", f"{cache.directory}: {size}")]


def _cards() -> list[Finding]:
    """What compiles for NVIDIA cards and what runs on them: none of it need be here."""
    from convdsl.backends.cuda.disassembly import find_disassembler
    from convdsl.backends.cuda.nvrtc import check_nvrtc
    from convdsl.diagnostics import InputError
    from convdsl.runtime.cuda.card import find_card, find_cards

    def told(ask: Callable[[], str]) -> str:
        try:
            return ask()
        except InputError as error:
            return str(error)

    findings = [
        Finding("compiler for cards", told(check_nvrtc)),
        Finding("their machine code", told(lambda: str(find_disassembler()))),
    ]
    try:
        numbers = find_cards()
    except InputError as error:
        return [*findings, Finding("card", str(error))]
    for number in numbers:
        card = find_card(number)
        value = f"{card.name}, {card.arch}, {card.memory_bytes / 1e9:,.1f} GB"
        findings.append(Finding(f"card cuda:{number}", value))
    return findings


def _extras() -> list[Finding]:
    return [
        Finding(f"extra {extra}", _installed(module, distribution, extra, purpose))
        for extra, (module, distribution, purpose) in EXTRAS.items()
    ]


def _installed(module: str, distribution: str, extra: str, purpose: str) -> str:
    if find_spec(module) is None:
        return f"not installed ({purpose}): pip install 'convdsl[{extra}]'"
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return f"{module}, from elsewhere"
