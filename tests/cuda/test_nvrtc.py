"""CUDA C to PTX, machine code and its text, without a card."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import convdsl
from convdsl.backends.cuda.disassembly import disassemble, find_disassembler, instructions
from convdsl.backends.cuda.nvrtc import Resources, compile_source, with_all_registers
from convdsl.diagnostics import InputError
from convdsl.kernel.cuda_binary import CudaBinary
from convdsl.kernel.cuda_module import Launch
from convdsl.kernel.cuda_target import ARCHITECTURES
from convdsl.kernel.program import Access, Argument, Place

pytestmark = pytest.mark.ladder(share=6)  # seconds each

SOURCE = r"""
extern "C" __global__ void __launch_bounds__(256) turned(float* a, const float* b) {
    __shared__ float s[256];
    s[threadIdx.x] = b[threadIdx.x];
    __syncthreads();
    a[threadIdx.x] = fmaf(s[255 - threadIdx.x], 2.0f, 1.0f);
}
extern "C" __global__ void local(float* a, int at) {
    float x[100];
#pragma unroll 1
    for (int i = 0; i < 100; i++) x[(i + at) % 100] = a[i];
    a[0] = x[at];
}
"""


@pytest.mark.dear
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_is_made(arch: str) -> None:
    made = compile_source(SOURCE, arch)
    assert f".target {arch}\n" in made.ptx
    assert ".entry turned" in made.ptx
    assert made.cubin.startswith(b"\x7fELF")
    assert made.resources["turned"].registers > 0
    assert made.resources["turned"] == Resources(made.resources["turned"].registers, 0, 0, 1024)
    assert made.resources["local"].local == 400
    text = disassemble(made.cubin)
    listed = instructions(text)
    assert set(listed) == {"turned", "local"}
    assert any(line.startswith("FFMA") for line in listed["turned"])
    assert any("BAR.SYNC" in line for line in listed["turned"])
    assert any(line.startswith("STL") for line in listed["local"])


def test_what_spills_may_have_all_registers() -> None:
    """Those functions alone, by their whole names."""
    source = "".join(
        f'extern "C" __global__ void __launch_bounds__({n}) {name}(float* a) {{ }}\n'
        for n, name in ((128, "conv_1"), (64, "conv_10"), (256, "conv_1_sum"))
    )
    assert with_all_registers(source, set()) == source
    told = with_all_registers(source, {"conv_1"})
    assert told == source.replace("(128)", "(128, 1)")


def test_the_last_byte_is_there() -> None:
    """ELF says how long it is: where its table of sections ends, or the last of its segments."""
    cubin = compile_source(SOURCE, "sm_90").cubin
    (sections,) = np.frombuffer(cubin[0x28:0x30], np.uint64)
    size, count = np.frombuffer(cubin[0x3A:0x3E], np.uint16)
    (segments,) = np.frombuffer(cubin[0x20:0x28], np.uint64)
    each, many = np.frombuffer(cubin[0x36:0x3A], np.uint16)
    ends = (int(sections) + int(size) * int(count), int(segments) + int(each) * int(many))
    assert len(cubin) == max(ends)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="unknown architecture `sm_33`; there are sm_75, sm_80"):
        compile_source(SOURCE, "sm_33")
    with pytest.raises(AssertionError, match="expected a"):
        compile_source('extern "C" __global__ void f() { int }', "sm_90")
    with pytest.raises(InputError, match="cannot read the machine code"):
        disassemble(b"\x7fELF and nothing more")


@pytest.mark.dear
@pytest.mark.parametrize(
    ("missing", "said"),
    [("cupy", "code for a card needs CuPy: pip install 'convdsl\\[cuda\\]'"),
     ("nvrtc", "code for a card needs NVRTC: pip install 'convdsl\\[cuda\\]'")],
)  # fmt: skip
def test_missing_packages(missing: str, said: str) -> None:
    """Told plainly, with what to do, in a process in which CuPy or the wheel cannot be had."""
    script = f"""
        import ctypes, re, sys
        import convdsl
        from convdsl.diagnostics import InputError
        if {missing!r} == "cupy":
            sys.modules["cupy"] = None
        else:
            import cupy.cuda
            class Broken:
                def getVersion(self):
                    raise RuntimeError("CuPy failed to load libnvrtc.so.13\\nand more")
            sys.modules["cupy.cuda.nvrtc"] = cupy.cuda.nvrtc = Broken()
        try:
            convdsl.emit("lenet5", "ptx")
        except InputError as error:
            assert re.match({said!r}, str(error)), error
            assert "\\n" not in str(error)
        else:
            raise SystemExit(1)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_without_a_disassembler(monkeypatch: pytest.MonkeyPatch) -> None:
    find_disassembler.cache_clear()
    monkeypatch.setattr("convdsl.backends.cuda.disassembly._TOOL", "no-such-tool")
    with pytest.raises(InputError, match="pip install nvidia-cuda-nvdisasm"):
        find_disassembler()
    find_disassembler.cache_clear()


def test_levels_of_a_card() -> None:
    """What a level shows, and that each target has its own."""
    assert "__global__" in convdsl.emit("lenet5", "cuda")
    assert ".target sm_80" in convdsl.emit("lenet5", "ptx", arch="sm_80")
    assert "FFMA" in convdsl.emit("lenet5", "sass")
    assert convdsl.emit("lenet5", "cubin").startswith(b"\x7fELF")
    assert "blocks" in convdsl.emit("lenet5", "loops", target="cuda")
    for level, more, said in (
        ("cuda", {"target": "cpu"}, "cpu has no cuda; below its loops there are llvm, asm, object"),
        ("llvm", {"target": "cuda"}, "cuda has no llvm"),
        ("ptx", {"arch": "sm_1"}, "unknown architecture `sm_1`; there are sm_75"),
        ("ptx", {"cpu": "x86-64-v3"}, "arch says which card"),
        ("ptx", {"arch": "sm_75", "precision": "high"}, "sm_75 multiplies no TF32"),
        ("asm", {"arch": "sm_90"}, "arch sm_90 says which card"),
        ("asm", {"precision": "high"}, "a processor computes in the type that the model says"),
        ("ptx", {"precision": "low"}, "unknown precision `low`; products are of highest"),
    ):
        with pytest.raises(InputError, match=said):
            convdsl.emit("lenet5", level, **more)


def test_binaries_as_bytes() -> None:
    argument = Argument(Place.ARENA, 0, 512, Access.UPDATE)
    launch = Launch("conv", (7, 2, 1), (256, 1, 1), 60000, (argument,), ("conv1", "relu"))
    made = CudaBinary("sm_90", b"\x7fELF\x00\xff", ".version 9", (launch, launch))
    data = made.to_bytes()
    assert CudaBinary.from_bytes(data) == made
    for cut in range(len(data)):
        with pytest.raises((ValueError, KeyError, TypeError)):
            CudaBinary.from_bytes(data[:cut])
