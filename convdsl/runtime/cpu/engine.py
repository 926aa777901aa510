"""What needs LLVM at run time: the processor it sees here, and code that `mapping` does not take.

Loading LLVM costs a tenth of a second and 40 MB, so this module is imported only where that
cannot be helped.
"""

from __future__ import annotations

from collections.abc import Sequence

import llvmlite.binding as llvm

from convdsl.diagnostics import ArtifactError


def host() -> tuple[str, str, dict[str, bool]]:
    """(architecture, processor, features) of this machine, in LLVM's names."""
    architecture = llvm.get_process_triple().split("-")[0]
    return architecture, llvm.get_host_cpu_name(), dict(llvm.get_host_cpu_features())


def load(object_code: bytes, entry: str, elsewhere: Sequence[str]) -> tuple[int, object]:
    """(address of the entry, what keeps the code mapped). ArtifactError where the code needs
    something, by the names in `elsewhere`, that is not here: LLVM would end the process."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), opt=3, jit=True
    )
    missing = [name for name in elsewhere if llvm.address_of_symbol(name) is None]
    if missing:
        raise ArtifactError(f"the machine code needs {', '.join(missing)}, which is not here")
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    try:
        engine.add_object_file(llvm.ObjectFileRef.from_data(object_code))
    except ValueError as error:
        raise ArtifactError(f"LLVM cannot load the machine code: {error}") from None
    engine.finalize_object()
    address = engine.get_function_address(entry)
    if not address:
        raise ArtifactError(f"the machine code has no function {entry!r}")
    return address, engine
