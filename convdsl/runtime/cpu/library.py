"""A compiled network as a shared library with a C header: no Python, no LLVM where it runs.

    int net_create(net **made, int threads);
    int net_run(net *network, const float *x, float *logits);
    void net_destroy(net *network);

The machine code is that of an artifact; library.c has memory and threads, and a C compiler, $CC or
cc, puts them together with the weights. Only the functions of the header can be seen from
outside, so that any number of networks live in one process.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.kernel import cpu_abi
from convdsl.kernel.program import Port
from convdsl.kernel.target import Target
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.processor import LEVELS
from convdsl.runtime.whole_files import write_whole
from convdsl.tensor import DType

C_TYPES: Mapping[DType, str] = {
    DType.F16: "uint16_t",
    DType.BF16: "uint16_t",
    DType.F32: "float",
    DType.F64: "double",
    DType.I8: "int8_t",
    DType.U8: "uint8_t",
    DType.I32: "int32_t",
    DType.I64: "int64_t",
    DType.U32: "uint32_t",
    DType.BOOL: "uint8_t",
}
"""What elements are in C: of f16 and bf16 their bits, of bool a byte that is 0 or 1."""

_FLAGS = ("-O2", "-std=c11", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread")
_STATE_ALIGNMENT = 64

_COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}
"""Cross compilers as Debian calls them."""

# Vector extensions that GCC and Clang ask the processor for by LLVM's names.
_ASKED = ("sse4.2", "avx", "avx2", "fma", "bmi", "bmi2", "avx512f", "avx512bw", "avx512cd")
_ASKED_TOO = ("avx512dq", "avx512vl")

# Names that C keeps for itself.
_KEYWORDS = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
    ]
)


def write_library(
    path: Path,
    name: str,
    code: Code,
    weights: npt.NDArray[np.uint8],
    states: Sequence[npt.NDArray[Any]],
    target: Target,
    made_by: str,
) -> Path:
    """Write `path`, a shared library, and beside it its header, whose path is returned. `states`
    are what calls change, as they are before the first. InputError without a C compiler."""
    compiler = _compiler(target)
    if path.suffix == ".h" or not path.name or path.is_dir():
        raise InputError(f"{path}: name the library, say libnet.so; net.h is written beside it")
    header = path.with_name(header_name(path))
    net = identifier(name)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "net.o").write_bytes(code.object_code)
        weights.tofile(here / "weights.bin")
        (here / "states.bin").write_bytes(_state_bytes(states))
        (here / "program.h").write_text(_program(net, code, target, header.name), encoding="utf-8")
        (here / header.name).write_text(_header(net, code, made_by), encoding="utf-8")
        (here / "exported").write_text(f"{{ global: {net}_*; local: *; }};\n", encoding="ascii")
        (here / "blobs.c").write_text(_BLOBS, encoding="ascii")
        (here / "library.c").write_text(_source(), encoding="utf-8")
        _compile(compiler, here)
        try:
            write_whole(path, [(here / "made.so").read_bytes()])
            write_whole(header, [(here / header.name).read_bytes()])
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    return header


def header_name(library: Path) -> str:
    """`net.h` of libnet.so, as `-lnet` finds that; versions, as of libnet.so.1, are no part of it.
    What goes on behind `lib` without a letter, or is the word library, is called so itself."""
    stem = re.sub(r"\.(so|dylib|dll)(\.[0-9]+)+$", "", library.name)
    stem = library.stem if stem == library.name else stem
    short = stem.removeprefix("lib")
    return f"{short if short[:1].isalpha() and short != 'rary' else stem}.h"


_BLOBS = """\
#define BLOB(name, file)                                                      \\
    __asm__(".section .rodata\\n.balign 64\\n.globl " #name "\\n.hidden " #name \\
            "\\n" #name ":\\n.incbin \\"" file "\\"\\n.byte 0\\n.previous");
BLOB(net_weights, "weights.bin")
BLOB(net_states, "states.bin")
"""


def _source() -> str:
    return files("convdsl.runtime.cpu").joinpath("library.c").read_text(encoding="utf-8")


def _compiler(target: Target) -> list[str]:
    """The command of a C compiler for the target."""
    given = os.environ.get("CC")
    if given:
        return shlex.split(given)
    here = os.uname().machine == target.architecture
    names = ("cc", "gcc", "clang") if here else (_COMPILERS.get(target.architecture, ""),)
    for name in names:
        if name and shutil.which(name):
            return [name]
    wanted = " or ".join(filter(None, names)) or "a cross compiler"
    raise InputError(
        f"a library for {target.architecture} is put together by a C compiler, and there is no "
        f"{wanted}: install one (Debian: gcc), or name it in CC"
    )


def _compile(compiler: Sequence[str], folder: Path) -> None:
    command = [*compiler, *_FLAGS, "library.c", "blobs.c", "net.o", "-lm", "-o", "made.so"]
    command.append("-Wl,--version-script=exported,-z,noexecstack")
    named = f"the C compiler {shlex.join(compiler)}{' (CC)' if os.environ.get('CC') else ''}"
    try:
        done = subprocess.run(  # noqa: S603 (the user's own compiler, of their PATH or CC)
            command, cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise InputError(
            f"cannot run {named}: {error.strerror or error}\nhelp: CC names another, else cc is run"
        ) from None
    if done.returncode or not (folder / "made.so").is_file():
        said = (done.stderr.strip() or done.stdout.strip())[:2000]
        how = f"failed with {done.returncode}" if done.returncode else "made no library"
        raise InputError(f"{named} {how}" + (f":\n{said}" if said else " and said nothing"))


def identifier(name: str) -> str:
    """What C can call a network."""
    made = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"net_{made}" if not made or made[0].isdigit() or made in _KEYWORDS else made


def _names(ports: Sequence[Port], taken: str) -> list[str]:
    """Parameters, all different, none of them C's or `taken`."""
    found: list[str] = []
    for port in ports:
        name = identifier(port.name)
        while name in (taken, *found):
            name = f"{name}_"
        found.append(name)
    return found


def _header(net: str, code: Code, made_by: str) -> str:
    guard = f"{net.upper()}_H"
    lines = [f" *   {port.name}: {port.type}" for port in code.inputs]
    outs = [f" *   {port.name}: {port.type}" for port in code.outputs]
    return "\n".join(
        (
            f"/* {net}: a network as a library, made by {made_by}.",
            " *",
            " * Inputs, row by row (C order), which are only read:",
            *lines,
            " * Outputs, memory of the caller's that is written:",
            *outs,
            " *",
            " * Functions return 0, or a code that the last puts into words. One network serves",
            " * any number of threads at once; memory is taken with the first calls and kept.",
            " */",
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stdint.h>",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            f"typedef struct {net} {net};",
            "",
            *_sizes(net, code),
            "",
            "/* A network that runs on up to so many threads, the caller's among them. */",
            f"int {net}_create({net} **made, int threads);",
            _prototype(net, code) + ";",
            "/* After the last call has returned. */",
            f"void {net}_destroy({net} *network);",
            "/* What a code means. */",
            f"const char *{net}_message(int code);",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        )
    )


def _sizes(net: str, code: Code) -> list[str]:
    """The elements of each array, as macros."""
    ports = (*code.inputs, *code.outputs)
    names = _names(ports, "network")
    return [
        f"#define {net.upper()}_{name.upper()}_ELEMENTS {math.prod(port.type.sizes)}"
        for name, port in zip(names, ports, strict=True)
    ]


def _prototype(net: str, code: Code) -> str:
    ports = (*code.inputs, *code.outputs)
    parameters = [
        f"{'const ' if number < len(code.inputs) else ''}{C_TYPES[port.type.dtype]} *{name}"
        for number, (name, port) in enumerate(zip(_names(ports, "network"), ports, strict=True))
    ]
    return f"int {net}_run({', '.join([f'{net} *network', *parameters])})"


def _program(net: str, code: Code, target: Target, header: str) -> str:
    """What library.c must know of one network."""
    ports = (*code.inputs, *code.outputs)
    names = _names(ports, "network")
    given = ", ".join(f"(void *){name}" for name in names)
    run = f"void *const ports[] = {{{given}}}; return run(network, ports);"
    functions = (
        f"EXPORT int {net}_create({net} **made, int threads) {{ return create(made, threads); }}",
        f"EXPORT {_prototype(net, code)} {{ {run} }}",
        f"EXPORT void {net}_destroy({net} *network) {{ destroy(network); }}",
        f"EXPORT const char *{net}_message(int code) {{ return message(code); }}",
    )
    offsets, state_bytes = _state_offsets(code.states)
    facts = {
        "TYPE": net,
        "ENTRY": code.entry,
        "ARENA_BYTES": f"(size_t){code.arena_bytes}",
        "PRIVATE_BYTES": code.private_bytes,
        "COUNTERS": code.steps * cpu_abi.COUNTERS_PER_STEP,
        "CALLER_PORTS": len(ports),
        "PORT_COUNT": len(ports) + len(code.states),
        "STATE_BYTES": state_bytes,
        "STATE_OFFSETS": "{" + ", ".join(map(str, (*offsets, 0))) + "}",
        "YIELD": cpu_abi.YIELD,
        "TEAM_SIZE": cpu_abi.TEAM_SIZE,
        "WEIGHTS": cpu_abi.WEIGHTS,
        "ARENA": cpu_abi.ARENA,
        "COUNTERS_SLOT": cpu_abi.COUNTERS,
        "PORTS": cpu_abi.PORTS,
        "RUNS_HERE": _runs_here(target),
        "FUNCTIONS": " \\\n".join(functions),
    }
    defined = (f"#define NET_{name} {value}" for name, value in facts.items())
    visible = '#define EXPORT __attribute__((visibility("default")))'
    return "\n".join((f'#include "{header}"', visible, *defined, ""))


def _runs_here(target: Target) -> str:
    """A test of the processor, in C."""
    wanted = LEVELS.get(target.cpu, frozenset[str]())
    wanted |= {f[1:] for f in target.features.split(",") if f.startswith("+")}
    asked = [name for name in (*_ASKED, *_ASKED_TOO) if name in wanted]
    if target.architecture != "x86_64" or not asked:
        return "1"
    tests = (f'__builtin_cpu_supports("{name}")' for name in asked)
    return f"(__builtin_cpu_init(), {' && '.join(tests)})"


def _state_offsets(states: Sequence[Port]) -> tuple[list[int], int]:
    """Where each state begins, and where the last one ends."""
    offsets: list[int] = []
    end = 0
    for port in states:
        offsets.append(end)
        size = math.prod(port.type.sizes) * port.type.dtype.bytes
        end += -(-size // _STATE_ALIGNMENT) * _STATE_ALIGNMENT
    return offsets, end


def _state_bytes(states: Sequence[npt.NDArray[Any]]) -> bytes:
    parts = (np.ascontiguousarray(array).tobytes() for array in states)
    return b"".join(part + bytes(-len(part) % _STATE_ALIGNMENT) for part in parts)
