"""NVRTC through CuPy: CUDA C -> PTX and machine code. Needs no card and no driver."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from convdsl.diagnostics import InputError
from convdsl.forking import compiling
from convdsl.kernel.cuda_target import ARCHITECTURES

ADVICE = "pip install 'convdsl[cuda]' (cupy-cuda13x and nvidia-cuda-nvrtc)"
"""How to get what compiles for cards."""

_OPTIONS = (
    "--fmad=false",  # the IR says where a product and a sum are rounded once (ADR 46)
    "--prec-div=true",
    "--prec-sqrt=true",
    "--ftz=true",  # denormals are zeros, as on the processor (ADR 87)
    "--ptxas-options=-v",  # what each function takes, in the log
)

_BOUNDS = re.compile(r"__launch_bounds__\((\d+)\) (\w+)\(")
_ENTRY = re.compile(r"Compiling entry function '([^']+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_SERIALISED = re.compile(r"\(C75\d\d\).*serialized.*in the function '([^']+)'")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a function takes: registers of a thread; bytes of a thread that are spilled, stored
    and loaded together, and in local memory; bytes of shared memory that it declares; and whether
    its products of warp groups wait for each other, which ptxas has them do where it cannot tell
    that nothing touches their sums."""

    registers: int
    spills: int
    local: int
    shared: int
    serialised: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """What NVRTC makes of a source; resources by function."""

    ptx: str
    cubin: bytes
    log: str
    resources: Mapping[str, Resources]


def _nvrtc() -> ModuleType:
    """CuPy's binding, found to work. InputError where a package is missing."""
    try:
        from cupy.cuda import nvrtc  # pyright: ignore[reportMissingModuleSource]
    except ImportError as error:
        raise InputError(f"code for a card needs CuPy: {ADVICE} ({error})") from None
    try:
        nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        raise InputError(f"code for a card needs NVRTC: {ADVICE} ({_first_line(error)})") from None
    return nvrtc


@lru_cache(maxsize=1)
def nvrtc_version() -> str:
    """Of the wheel, where there is one, without loading it: part of every cache key."""
    try:
        return f"NVRTC {version('nvidia-cuda-nvrtc')}"
    except PackageNotFoundError:
        return f"NVRTC {'.'.join(map(str, _nvrtc().getVersion()))}"


def check_nvrtc() -> str:
    """The versions of what compiles, found to load. InputError where something is missing."""
    numbers = ".".join(map(str, _nvrtc().getVersion()))
    return f"NVRTC {numbers}, for {', '.join(ARCHITECTURES)}"


def compile_source(source: str, arch: str) -> Compiled:
    """PTX and cubin of a source for an architecture such as `sm_90`. InputError for one that NVRTC
    does not serve, and where it is missing; AssertionError for a source that is not CUDA C."""
    if arch not in ARCHITECTURES:
        raise InputError(f"unknown architecture `{arch}`; there are {', '.join(ARCHITECTURES)}")
    nvrtc = _nvrtc()
    with compiling():
        made = _compiled(nvrtc, source, arch)
        spilling = {name for name, used in made.resources.items() if used.spills}
        again = with_all_registers(source, spilling)
        if again == source:
            return made
        return min(made, _compiled(nvrtc, again, arch), key=_spilled)


def with_all_registers(source: str, functions: Set[str]) -> str:
    """A source some of whose functions say that a multiprocessor need hold one block of them. Where
    nothing is said ptxas aims at more, and now and then spills a few bytes for that; told so it
    takes what registers a thread can have, which is why it is not told of all."""

    def told(found: re.Match[str]) -> str:
        threads, name = found.groups()
        return f"__launch_bounds__({threads}, 1) {name}(" if name in functions else found[0]

    return _BOUNDS.sub(told, source)


def _spilled(made: Compiled) -> int:
    return sum(used.spills for used in made.resources.values())


def _compiled(nvrtc: ModuleType, source: str, arch: str) -> Compiled:
    program = nvrtc.createProgram(source, "program.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={arch}", *_OPTIONS))
        log = _text(nvrtc.getProgramLog(program))
        ptx = _text(nvrtc.getPTX(program))
        cubin = nvrtc.getCUBIN(program) + b"\0"  # CuPy takes it for a string, and drops its end
    except nvrtc.NVRTCError as error:
        log = _text(nvrtc.getProgramLog(program))
        if "INVALID_OPTION" in str(error):
            raise InputError(f"{nvrtc_version()} makes no code for {arch}: {error}") from None
        raise AssertionError(f"the source for {arch} does not compile: {error}\n{log}") from None
    finally:
        nvrtc.destroyProgram(program)
    return Compiled(ptx, cubin, log, _resources(log))


def _text(value: str | bytes) -> str:
    """What C strings come as, without the zero at their end."""
    text = value.decode() if isinstance(value, bytes) else value
    return text.rstrip("\0")


def _resources(log: str) -> dict[str, Resources]:
    """What `-v` had ptxas say of each function."""
    found: dict[str, Resources] = {}
    serialised = set(_SERIALISED.findall(log))
    _, *parts = _ENTRY.split(log)
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        stack, used, shared = _STACK.search(text), _USED.search(text), _SHARED.search(text)
        local, stores, loads = (0, 0, 0) if stack is None else map(int, stack.groups())
        registers = 0 if used is None else int(used[1])
        declared = 0 if shared is None else int(shared[1])
        waits = name in serialised
        found[name] = Resources(registers, stores + loads, local, declared, waits)
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
