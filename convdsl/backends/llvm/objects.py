"""LLVM through llvmlite: which processor there is, and IR -> machine code."""

from __future__ import annotations

import os
import re
import tempfile
from functools import lru_cache

import llvmlite
import llvmlite.binding as llvm

from convdsl.backends.llvm.caches import caches_of_system
from convdsl.diagnostics import InputError
from convdsl.forking import compiling
from convdsl.kernel.caches import TYPICAL
from convdsl.kernel.target import Target
from convdsl.spelling import nearest


@lru_cache(maxsize=1)
def _start() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def llvm_version() -> str:
    """llvmlite's and LLVM's versions: part of every cache key."""
    numbers = ".".join(map(str, llvm.llvm_version_info))
    return f"llvmlite {llvmlite.__version__}, LLVM {numbers}"


def host_triple() -> str:
    """LLVM's name for this machine and system."""
    return llvm.get_process_triple()


@lru_cache(maxsize=32)
def find_target(cpu: str = "native", triple: str | None = None) -> Target:
    """The named processor, or the one this runs on; one of another architecture or system as
    TRIPLE:NAME. InputError for a name LLVM does not know."""
    if ":" in cpu:
        triple, _, cpu = cpu.partition(":")
        cpu = "" if cpu == "native" else cpu
    with compiling():
        _start()
        return _found(cpu, triple or host_triple())


def _found(cpu: str, triple: str) -> Target:
    _code_generator(triple)
    if cpu == "native":
        # The name alone can be wrong by a generation in virtual machines: take features as well.
        name, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        caches = caches_of_system()
    else:
        if cpu in ("", "help") or not _is_known(triple, cpu):
            raise InputError(
                f"unknown processor `{cpu}` for {triple.partition('-')[0]}; known are native, "
                "x86-64-v2, x86-64-v3, x86-64-v4 and LLVM's names such as skylake or znver4, for "
                f"another architecture as aarch64-linux-gnu:cortex-a76{_level(cpu)}"
            )
        name, features, caches = cpu, "", TYPICAL
    assembly = _probe(triple, name, features)
    halves = re.search(r"\bv?cvtps2ph|\bfcvtn", assembly) is not None
    return Target(triple, name, features, *_vectors(triple, assembly), caches, halves)


_LEVELS = {
    "avx": "x86-64-v3",
    "avx2": "x86-64-v3",
    "fma": "x86-64-v3",
    "sse4.2": "x86-64-v2",
    "avx512": "x86-64-v4",
    "avx512f": "x86-64-v4",
    "x86-64-v1": "x86-64-v2",
    "x86_64": "x86-64-v2",
    "amd64": "x86-64-v2",
    "arm64": "aarch64-linux-gnu:generic",
    "aarch64": "aarch64-linux-gnu:generic",
}
"""What asks for the code that is meant, by what stands in a processor's place."""


def _level(cpu: str) -> str:
    meant = _LEVELS.get(cpu.lower())
    if meant is not None:
        return f"\nhelp: for {cpu} write {meant}"
    near = nearest(cpu, _USUAL)
    return f"; did you mean {near}?" if near is not None else ""


_USUAL = (
    *("nehalem", "westmere", "sandybridge", "ivybridge", "haswell", "broadwell", "skylake"),
    *("skylake-avx512", "cascadelake", "cooperlake", "cannonlake", "icelake-client"),
    *("icelake-server", "tigerlake", "rocketlake", "alderlake", "raptorlake", "sapphirerapids"),
    *("emeraldrapids", "graniterapids", "meteorlake", "znver1", "znver2", "znver3", "znver4"),
    *("znver5", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "cortex-a78"),
    *("neoverse-n1", "neoverse-n2", "neoverse-v1", "neoverse-v2", "apple-m1", "apple-m2"),
    *("generic", "native", "x86-64-v2", "x86-64-v3", "x86-64-v4"),
)
"""Processors that are often named; LLVM knows more, and lists them on no call."""


def _probe(triple: str, cpu: str, features: str) -> str:
    """The code that LLVM makes for a wide addition, and for making f16 of f32."""
    ir = f"""target triple = "{triple}"
    define <16 x float> @wide(<16 x float> %a) #0 {{
      %b = fadd <16 x float> %a, %a
      ret <16 x float> %b
    }}
    define <4 x half> @narrow(<4 x float> %a) {{
      %b = fptrunc <4 x float> %a to <4 x half>
      ret <4 x half> %b
    }}
    attributes #0 = {{ "prefer-vector-width"="512" "min-legal-vector-width"="512" }}"""
    return _machine(triple, cpu, features).emit_assembly(llvm.parse_assembly(ir))


def _vectors(triple: str, assembly: str) -> tuple[int, int]:
    """(vector bytes, vector registers)."""
    if triple.startswith(("x86_64", "i686", "i386")):
        if re.search(r"\bzmm\d|%zmm", assembly):
            return 64, 32
        return (32, 16) if re.search(r"\bymm\d|%ymm", assembly) else (16, 16)
    return 16, 32


def _machine(triple: str, cpu: str, features: str) -> llvm.TargetMachine:
    """A new one each time: an execution engine takes it over (reuse crashes the process)."""
    return _code_generator(triple).create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="pic", codemodel="default"
    )


def _code_generator(triple: str) -> llvm.Target:
    _start()
    try:
        return llvm.Target.from_triple(triple)
    except RuntimeError:
        raise InputError(f"LLVM has no code generator for {triple}") from None


def _is_known(triple: str, cpu: str) -> bool:
    """Whether LLVM recognises the name. It says so only on the standard error stream."""
    kind = _code_generator(triple)
    with tempfile.TemporaryFile() as heard:
        saved = os.dup(2)
        try:
            os.dup2(heard.fileno(), 2)
            kind.create_target_machine(cpu=cpu)
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        heard.seek(0)
        return b"not a recognized processor" not in heard.read()


def optimise(ir: str, target: Target) -> llvm.ModuleRef:
    """Parsed, verified, registers made values. The printer leaves nothing else to gain: the
    passes of LLVM's -O2 take ten times as long and make code of the same speed (ADR 48)."""
    module = llvm.parse_assembly(ir)
    module.verify()
    machine = _machine(target.triple, target.cpu, target.features)
    module.data_layout = str(machine.target_data)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.run(module, builder)
    return module


def emit_object(ir: str, target: Target) -> bytes:
    """Relocatable machine code."""
    with compiling():
        return emit_for_another(ir, target)


def emit_for_another(ir: str, target: Target) -> bytes:
    """Relocatable machine code, for a thread that is `compiling` until this is done: forks wait for
    that one. If they waited for both, a fork that has begun would keep this one out, for which that
    one would wait, and the fork for it."""
    machine = _machine(target.triple, target.cpu, target.features)
    return machine.emit_object(optimise(ir, target))


def emit_assembly(ir: str, target: Target) -> str:
    """What `emit_object` makes, as text."""
    with compiling():
        machine = _machine(target.triple, target.cpu, target.features)
        return machine.emit_assembly(optimise(ir, target))
