"""Rules of PTX's memory, and of what threads hand each other there or meet at."""

from __future__ import annotations

import re

from cuda_shim.ptx_instructions import (
    Instruction,
    Module,
    UnknownPtx,
    parts,
    register,
    value,
    written,
)


def generic(i: Instruction, module: Module) -> str:
    """Only shared memory has addresses of another kind."""
    space = next(m for m in i.modifiers[:-1] if m != "to")
    x = value(i.operands[1], "u64", module)
    if space == "shared":
        x = f"static_cast<u32>({x})" if "to" in i.modifiers else f"(GENERIC | {x})"
    elif space not in ("global", "local"):
        raise i.unknown()
    return written(i.operands[0], i.type, x)


_IGNORED = {"nc", "volatile", "weak", "cta", "L1::no_allocate", "L1::evict_last", "L2::128B",
            "L2::256B"}  # fmt: skip
"""What does not say what is loaded or stored."""


def address(operand: str, space: str, module: Module) -> str:
    found = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+)\s*)?\]", operand)
    if not found:
        raise UnknownPtx(f"address {operand}")
    base, offset = found[1], found[2] or "0"
    if space.startswith("shared"):
        return f"shared_at(declarations, {value(base, 'u32', module)} + static_cast<u32>({offset}))"
    if not base.startswith("%") and base not in module.names:
        raise UnknownPtx(f"address {operand}")
    pointer = f"in<u64>({register(base)}) + ({offset}ll)"
    if space == "global":
        return f"reinterpret_cast<char *>({pointer})"
    return f"generic_at(declarations, {pointer})"


def space_of(i: Instruction) -> tuple[str, int]:
    """(state space, elements)"""
    space, count = "", 1
    for m in i.modifiers[:-1]:
        if m in ("global", "shared", "shared::cta", "param", "local"):
            space = m
        elif m in ("v2", "v4", "v8"):
            count = int(m[1])
        elif m not in _IGNORED:
            raise i.unknown()
    return space, count


def load(i: Instruction, module: Module) -> str:
    space, count = space_of(i)
    if space == "param":
        found = re.fullmatch(r"\[(\w+)\]", i.operands[1])
        if not found:
            raise i.unknown()
        return written(i.operands[0], i.type, f"in<{i.type}>({found[1]})")
    at = address(i.operands[1], space, module)
    members = parts(i.operands[0])
    loads = " ".join(
        written(m, i.type, f"get<{i.type}>(at, {lane})") for lane, m in enumerate(members)
    )
    return f"{{ char *at = {at}; convdsl_touch(at, {count} * sizeof({i.type}), 0); {loads} }}"


def store(i: Instruction, module: Module) -> str:
    space, count = space_of(i)
    at = address(i.operands[0], space, module)
    stores = " ".join(
        f"put<{i.type}>(at, {value(m, i.type, module)}, {lane});"
        for lane, m in enumerate(parts(i.operands[1]))
    )
    return f"{{ char *at = {at}; convdsl_touch(at, {count} * sizeof({i.type}), 1); {stores} }}"


def copy(i: Instruction, module: Module) -> str:
    if i.modifiers[0] != "async":
        raise i.unknown()
    match [m for m in i.modifiers[1:] if not m.startswith("L2::")]:
        case ["ca" | "cg", "shared" | "shared::cta", "global"]:
            to, source, *sizes = i.operands
            size = value(sizes[0], "u32", module)
            valid = value(sizes[1], "u32", module) if len(sizes) > 1 else size
            given = address(to, "shared", module), address(source, "global", module)
            return f"convdsl_copy({', '.join(given)}, {size}, {valid});"
        case ["commit_group"]:
            return "convdsl_commit();"
        case ["wait_group"]:
            return f"convdsl_wait({value(i.operands[0], 'u32', module)});"
        case ["wait_all"]:
            return "convdsl_commit(); convdsl_wait(0);"
        case _:
            raise i.unknown()


def shuffle(i: Instruction, module: Module) -> str:
    if i.modifiers[0] != "sync" or i.type != "b32":
        raise i.unknown()
    first, _, second = i.operands[0].partition("|")
    given = ", ".join(value(o, "b32", module) for o in i.operands[1:])
    inside = f"{register(second)} = inside;" if second else ""
    call = f"shfl({i.line}, {i.modifiers[1].upper()}, {given}, inside)"
    return f"{{ bool inside = false; {written(first, 'b32', call)} {inside} }}"


def barrier(i: Instruction, module: Module) -> str:
    match (i.opcode, i.modifiers, i.operands):
        case ("bar", ("warp", "sync"), (mask,)):
            lanes = value(mask, "u32", module)
            return f"{{ int none; convdsl_meet({lanes}, {i.line}, &none, nothing); }}"
        case ("bar" | "barrier", ("sync",) | ("sync", "aligned") | ("cta", "sync"), ("0",)):
            return f"convdsl_barrier({i.line});"
        case _:
            raise i.unknown()
