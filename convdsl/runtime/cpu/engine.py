"""What needs LLVM at run time: the processor it sees here, and code that `mapping` does not take.

Loading LLVM costs a tenth of a second and 40 MB, so this module is imported only where that
cannot be helped.
"""

from __future__ import annotations

import llvmlite.binding as llvm


def host() -> tuple[str, str, dict[str, bool]]:
    """(architecture, processor, features) of this machine, in LLVM's names."""
    architecture = llvm.get_process_triple().split("-")[0]
    return architecture, llvm.get_host_cpu_name(), dict(llvm.get_host_cpu_features())


def load(object_code: bytes, entry: str) -> tuple[int, object]:
    """(address of the entry, what keeps the code mapped)."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), opt=3, jit=True
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_code))
    engine.finalize_object()
    return engine.get_function_address(entry), engine
