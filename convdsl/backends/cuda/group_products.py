"""The functions that begin products of warp groups: one for each form, inline assembly.

Only machine code for sm_90a has the instruction (`__CUDA_ARCH_FEAT_SM90_ALL`).
"""

from __future__ import annotations

from collections.abc import Iterable

from convdsl.kernel.group_mma import ATOM, LINE, GroupForm
from convdsl.tensor import DType

_FIELD = 16
"""What the fields of a descriptor count in, in bytes."""

_SWIZZLED = 1 << 62
"""Pieces of sixteen bytes change places among eight lines of 128."""

_FIELDS = ATOM // _FIELD << 32 | _SWIZZLED
"""Of all factors: how far eight lines and the next eight are apart, and how they lie."""

_HEAD = f"""
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// What wgmma knows of a factor (PTX ISA 8.5, 9.7.15.5.1, "Matrix Descriptor Format")
// APART: bytes from a block of 64 rows to the next one, where they lie across
template <int APART> ON_CARD u64 lines_at(const void* from) {{
    unsigned at = (unsigned)__cvta_generic_to_shared(from);
    u64 apart = APART == 0 ? 1 : APART / {_FIELD};
    return (u64)((at & 0x3ffff) / {_FIELD}) | apart << 16 | {_FIELDS:#x}ull;
}}
ON_CARD void open_products() {{ asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }}
ON_CARD void commit_products() {{ asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }}
template <int LEFT> ON_CARD void wait_products() {{
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(LEFT) : "memory");
}}
// No reader of sums goes ahead of a wait
template <int COUNT> ON_CARD void settled(f32* sums) {{
    #pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(sums[i]) :: "memory");
}}
ON_CARD void show_products() {{ asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }}
"""

_TAIL = "#endif\n"


def name_of_form(form: GroupForm) -> str:
    """What the function is called."""
    return f"group_mma_{str(form).replace('.', '_')}"


def group_products(forms: Iterable[GroupForm]) -> str:
    """The functions of these forms, and those around them."""
    return "".join((_HEAD, *map(_function, forms), _TAIL))


def _function(form: GroupForm) -> str:
    count = form.sums
    kind = "tf32" if form.dtype is DType.F32 else str(form.dtype)
    instruction = f"wgmma.mma_async.sync.aligned.m64n{form.columns}k{form.k}.f32.{kind}.{kind}"
    registers = _lines([f"%{i}" for i in range(count)], ', "\n        "')
    sums = _lines([f'"+f"(sums[{i}])' for i in range(count)], ",\n          ")
    # added to what is there, neither factor negated; halves may lie across
    across = "1" if form.across else "0"
    flags = "p, 1, 1" if form.dtype is DType.F32 else f"p, 1, 1, {across}, {across}"
    at = f"lines_at<{form.across * LINE}>"
    return f"""ON_CARD void {name_of_form(form)}(f32* sums, const void* a, const void* b) {{
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, 1, 0; "
        "{instruction} "
        "{{{registers}}}, "
        "%{count}, %{count + 1}, {flags}; }}"
        : {sums}
        : "l"({at}(a)), "l"({at}(b)));
}}
"""


def _lines(parts: list[str], between: str) -> str:
    """Eight to a line."""
    rows = [", ".join(parts[first : first + 8]) for first in range(0, len(parts), 8)]
    return between.join(rows)
