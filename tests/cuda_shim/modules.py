"""CUDA C compiled for a processor: one library for a module, kept by its content."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cuda_shim.ptx import translate

HERE = Path(__file__).parent
FLAGS = ["-std=c++20", "-Og", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti",
         "-ffp-contract=off", "-fno-strict-aliasing", "-march=native"]  # fmt: skip
NOTED = ["-fsanitize=thread"]
"""Every access calls the engine's ledger: g++ inserts the calls, its run-time library stays out."""
LINKED = ["-shared", "-nostdlib", "-Wl,-Bsymbolic", "-Wl,-rpath,$ORIGIN"]


KEPT = 7 * 24 * 3600
"""Seconds after which a library is forgotten."""


class ShimError(AssertionError):
    """The module is not CUDA C as the shim knows it."""


@dataclass(frozen=True)
class Library:
    """A compiled module: its kernels by name, and what launches them."""

    kernels: dict[str, int]
    launch: ctypes._CFuncPtr


@functools.lru_cache(maxsize=64)
def compile_module(source: str, *, noted: bool) -> Library:
    """`source` as a library, for which every launch of a program asks. With notes each access is
    checked, at ten times the time."""
    return _compiled(_as_cpp(source), tuple(kernel_names(source)), tuple(NOTED) if noted else ())


@functools.lru_cache(maxsize=64)
def compile_ptx(text: str) -> Library:
    """PTX as a library; its accesses are noted where a launch asks for it."""
    translated = translate(text)
    return _compiled(translated.source, translated.kernels, ())


_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")
_SHARED = re.compile(
    r"(extern\s+)?__shared__\s+(?:__align__\(\d+\)\s*)?([\w ]+?)\s+(\w+)\s*\[([^\]]*)\];"
)


def kernel_names(source: str) -> list[str]:
    return _KERNEL.findall(source)


def _as_cpp(source: str) -> str:
    """The very source, declarations of shared memory given a place in the block that runs, and a
    table of the kernels."""
    declarations = iter(range(1 << 30))

    def place(found: re.Match[str]) -> str:
        dynamic, element, name, count = found.groups()
        if dynamic:
            return f"CONVDSL_DYNAMIC_SHARED({element}, {name});"
        return f"CONVDSL_SHARED({next(declarations)}, {element}, {name}, {count});"

    body = _SHARED.sub(place, source)
    if "__shared__" in body:
        raise ShimError("a declaration of shared memory that the shim does not know")
    table = "\n".join(f"CONVDSL_KERNEL({name})" for name in kernel_names(source))
    return (
        f'#include "convdsl_shim.h"\n#line 1 "module.cu"\n{body}\n#include "kernels.h"\n{table}\n'
    )


@functools.cache
def folder() -> Path:
    """Where libraries of this machine are kept; CONVDSL_SHIM_CACHE names another place."""
    given = os.environ.get("CONVDSL_SHIM_CACHE")
    place = Path(given or Path(tempfile.gettempdir()) / f"convdsl-shim-{os.getuid()}")
    place.mkdir(mode=0o700, exist_ok=True, parents=True)
    for path in place.glob("*.[os]*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else tidies up
            if path.stat().st_mtime < time.time() - KEPT:
                path.unlink()
    return place


@functools.cache
def _key_of_shim() -> bytes:
    parts = [p.read_bytes() for p in sorted(HERE.iterdir()) if p.suffix in (".h", ".cpp")]
    version = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    return b"\0".join([*parts, version, " ".join(FLAGS).encode()])


def _named(content: bytes) -> str:
    return hashlib.sha256(_key_of_shim() + content).hexdigest()[:32]


def _run(command: list[str], stdin: str = "") -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShimError(f"{' '.join(command)}\n{done.stderr[:4000]}")


def _made(path: Path, command: list[str], stdin: str = "") -> Path:
    """`path`, made by a command that ends in -o unless it is there; written whole or not at all."""
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as inner:
            fresh = Path(inner) / path.name
            _run([*command, "-o", str(fresh)], stdin)
            fresh.replace(path)
    return path


@functools.cache
def _engine() -> Path:
    """A library of its own: linking it, and with it the run-time library of C++, to every module
    took half as long as compiling it."""
    path = folder() / f"engine-{_named(b'engine')}.so"
    flags = [*FLAGS, "-O2", "-fvisibility=default", "-shared", "-Wl,-Bsymbolic"]
    made = _made(path, ["g++", *flags, f"-Wl,-soname,{path.name}", str(HERE / "engine.cpp")])
    made.touch()  # it is there for as long as those that need it
    return made


def _compiled(source: str, kernels: tuple[str, ...], flags: tuple[str, ...]) -> Library:
    name = _named("\0".join((source, *flags)).encode())
    library, engine = folder() / f"{name}.so", _engine()
    if not library.exists():
        command = ["g++", *FLAGS, *flags, "-I", str(HERE), "-x", "c++", "-c", "-"]
        with tempfile.TemporaryDirectory(dir=folder()) as inner:
            module = Path(inner) / "module.o"
            _run([*command, "-o", str(module)], source)
            _made(library, ["g++", *LINKED, str(module), str(engine), "-lgcc"])
    loaded = ctypes.CDLL(str(library), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    addresses = {
        name: ctypes.cast(getattr(loaded, f"convdsl_kernel_{name}"), ctypes.c_void_p).value or 0
        for name in kernels
    }
    return Library(addresses, loaded.convdsl_launch)


if sys.platform != "linux":
    raise ShimError("the shim runs on Linux")
