"""Rules of PTX's tensor units: products of warps and of warp groups, and what they load."""

from __future__ import annotations

import re

from convdsl.kernel.group_mma import ACROSS, LINE
from cuda_shim.ptx_instructions import (
    Instruction,
    Module,
    parts,
    register,
    value,
    written,
)
from cuda_shim.ptx_memory import address

PRODUCTS = {
    "m16n8k8.row.col.f32.tf32.tf32.f32": "convdsl::Tf32",
    "m16n8k8.row.col.f32.f16.f16.f32": "convdsl::Halves<convdsl::Float16, 8>",
    "m16n8k8.row.col.f32.bf16.bf16.f32": "convdsl::Halves<convdsl::BFloat16, 8>",
    "m16n8k16.row.col.f32.f16.f16.f32": "convdsl::Halves<convdsl::Float16, 16>",
    "m16n8k16.row.col.f32.bf16.bf16.f32": "convdsl::Halves<convdsl::BFloat16, 16>",
}


def matrix_product(i: Instruction, module: Module) -> str:
    kind = PRODUCTS.get(".".join(i.modifiers[2:]))
    if i.modifiers[:2] != ("sync", "aligned") or kind is None:
        raise i.unknown()
    d, a, b, c = map(parts, i.operands)
    arrays = ", ".join(
        f"{name}[] = {{{', '.join(value(m, 'b32', module) for m in members)}}}"
        for name, members in (("a", a), ("b", b))
    )
    floats = ", ".join(value(m, "f32", module) for m in c)
    results = " ".join(written(m, "f32", f"d[{n}]") for n, m in enumerate(d))
    call = f"convdsl::mma<{kind}>({i.line}, d, a, b, c);"
    return f"{{ u32 {arrays}; f32 c[] = {{{floats}}}, d[4]; {call} {results} }}"


GROUP_KINDS = {
    "k8.f32.tf32.tf32": "convdsl::Tf32",
    "k16.f32.bf16.bf16": "convdsl::Halves<convdsl::BFloat16, 16>",
    "k16.f32.f16.f16": "convdsl::Halves<convdsl::Float16, 16>",
}


def group_product(i: Instruction, module: Module) -> str:
    """wgmma: sums hold a product at once; that nobody reads them too early is for the shim to see,
    and for the interpreter."""
    what, *how = i.modifiers
    if how[:2] != ["sync", "aligned"]:
        raise i.unknown()
    match what:
        case "fence":
            return "convdsl_open_products();"
        case "commit_group":
            return "convdsl_commit_products();"
        case "wait_group":
            return f"convdsl_wait_products({value(i.operands[0], 'u32', module)});"
        case "mma_async":
            return _group_product(i, ".".join(how[2:]), module)
        case _:
            raise i.unknown()


def _group_product(i: Instruction, form: str, module: Module) -> str:
    found = re.fullmatch(r"m64n(64|128|192|256)(k.*)", form)
    kind = GROUP_KINDS.get(found[2]) if found else None
    d, a, b, added, *flags = i.operands
    halves = "tf32" not in form
    across = halves and flags == ["1", "1", "1", "1"]
    as_they_lie = ["1", "1", *(["1", "1"] if across else ["0", "0"] if halves else [])]
    asked_for = any(size == 0 for _, size in module.shared.values())
    if found is None or kind is None or flags != as_they_lie or not asked_for:
        raise i.unknown()
    sums, columns = parts(d), int(found[1])
    if len(sums) != columns // 2:
        raise i.unknown()
    floats = ", ".join(value(m, "f32", module) for m in sums)
    results = " ".join(written(m, "f32", f"d[{n}]") for n, m in enumerate(sums))
    apart = ACROSS * LINE if across else 0
    lines = ", ".join(f"lines_at({value(x, 'u64', module)}, {apart})" for x in (a, b))
    call = f"convdsl::begin_product<{kind}, {columns}, {apart}>({i.line}, d, {lines}, 1);"
    only = f'if (!{register(added)}) convdsl_fail("wgmma that adds to nothing");'
    return f"{{ {only} f32 d[] = {{{floats}}}; {call} {results} }}"


def proxy_fence(i: Instruction, module: Module) -> str:
    if i.modifiers != ("proxy", "async", "shared::cta"):
        raise i.unknown()
    return "convdsl_show_products();"


def matrix_load(i: Instruction, module: Module) -> str:
    i.only("sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta")
    counts = [m for m in i.modifiers if m in ("x1", "x2", "x4")]
    if i.type != "b16" or len(counts) != 1:
        raise i.unknown()
    count, transposed = counts[0], str("trans" in i.modifiers).lower()
    at = address(i.operands[1], "shared", module)
    results = " ".join(written(m, "b32", f"d[{n}]") for n, m in enumerate(parts(i.operands[0])))
    call = f"convdsl::ldmatrix<{count[1]}, {transposed}>({i.line}, d, {at}, laneid());"
    return f"{{ u32 d[4]; {call} {results} }}"
