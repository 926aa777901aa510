"""Rules of PTX's arithmetic: numbers, bits, comparisons, moves and conversions."""

from __future__ import annotations

from cuda_shim.ptx_instructions import (
    Instruction,
    Module,
    Rule,
    flushed,
    operands_of,
    parts,
    register,
    value,
    window,
    written,
)


def calls(function: str, *known: str) -> Rule:
    """One function of the machine on operands of the instruction's type."""

    def rule(i: Instruction, module: Module) -> str:
        i.only(*known)
        made = f"{function}<{i.type}>({operands_of(i, module)})"
        return written(i.operands[0], i.type, flushed(i, made, i.type))

    return rule


def plain(function: str, *known: str) -> Rule:
    """A function of bits that is no template."""

    def rule(i: Instruction, module: Module) -> str:
        i.only(*known)
        made = f"{function}({operands_of(i, module)})"
        return written(i.operands[0], i.type, flushed(i, made, i.type))

    return rule


def multiply(i: Instruction, module: Module) -> str:
    i.only("lo", "hi", "wide", "rn", "ftz")
    a, b = (flushed(i, value(o, i.type, module), i.type) for o in i.operands[1:3])
    made, type = flushed(i, f"mul<{i.type}>({a}, {b})", i.type), i.type
    if "hi" in i.modifiers:
        made = f"mul_hi<{type}>({a}, {b})"
    if "wide" in i.modifiers:
        type = f"{i.type[0]}{2 * int(i.type[1:])}"
        made = f"mul_wide<{type}, {i.type}>({a}, {b})"
    if i.opcode == "mad":
        made = f"add<{type}>({made}, {value(i.operands[3], type, module)})"
    return written(i.operands[0], type, made)


def extremum(i: Instruction, module: Module) -> str:
    i.only("NaN", "ftz")
    nan = "_nan" if "NaN" in i.modifiers else ""
    made = f"{i.opcode}{nan}<{i.type}>({operands_of(i, module)})"
    return written(i.operands[0], i.type, made)


def logic(sign: str) -> Rule:
    def rule(i: Instruction, module: Module) -> str:
        i.only()
        a, b = (value(o, i.type, module) for o in i.operands[1:])
        return written(i.operands[0], i.type, f"{a} {sign} {b}")

    return rule


def negation(i: Instruction, module: Module) -> str:
    i.only()
    a = value(i.operands[1], i.type, module)
    return written(i.operands[0], i.type, f"!{a}" if i.type == "pred" else f"~{a}")


def shift(i: Instruction, module: Module) -> str:
    i.only()
    a, by = value(i.operands[1], i.type, module), value(i.operands[2], "u32", module)
    return written(i.operands[0], i.type, f"{i.opcode}<{i.type}>({a}, {by})")


def funnel(i: Instruction, module: Module) -> str:
    i.only("l", "r", "wrap", "clamp")
    by = value(i.operands[3], "u32", module)
    by = f"({by} & 31)" if "wrap" in i.modifiers else by
    a, b = (value(o, "b32", module) for o in i.operands[1:3])
    side = "left" if "l" in i.modifiers else "right"
    return written(i.operands[0], "b32", f"funnel_{side}({a}, {b}, {by})")


def bit_field(i: Instruction, module: Module) -> str:
    i.only()
    whole = 2 if i.opcode == "bfi" else 1
    given = [value(o, i.type, module) for o in i.operands[1 : 1 + whole]]
    given += [value(o, "u32", module) for o in i.operands[1 + whole :]]
    return written(i.operands[0], i.type, f"{i.opcode}<{i.type}>({', '.join(given)})")


def dot(i: Instruction, module: Module) -> str:
    part, a, b = i.modifiers
    given = ", ".join(value(o, "b32", module) for o in i.operands[1:])
    call = f"dp2a<{a[0]}16, {b[0]}8>({given}, {2 if part == 'hi' else 0})"
    return written(i.operands[0], "b32", call)


def counted(i: Instruction, module: Module) -> str:
    i.only()
    a = value(i.operands[1], "u" + i.type[1:], module)
    return written(i.operands[0], "u32", f"{i.opcode}({a})")


ORDERED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
           "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}  # fmt: skip


def comparison(i: Instruction, module: Module) -> str:
    compare, *rest = i.modifiers[:-1]
    rest = [m for m in rest if m != "ftz"]
    a, b = (flushed(i, value(o, i.type, module), i.type) for o in i.operands[1:3])
    if compare in ORDERED:
        test = f"({a} {ORDERED[compare]} {b})"
        if compare == "ne" and i.type in ("f32", "f64"):  # of numbers; `neu` holds of NaN as well
            test = f"({test} && {a} == {a} && {b} == {b})"
    elif compare[:-1] in ORDERED and compare[-1] == "u":
        test = f"({a} != {a} || {b} != {b} || {a} {ORDERED[compare[:-1]]} {b})"
    elif compare in ("num", "nan"):
        test = f"({a} == {a} && {b} == {b})"
        test = test if compare == "num" else f"!{test}"
    else:
        raise i.unknown()
    if rest:
        (how,) = rest
        sign = {"and": "&", "or": "|", "xor": "^"}[how]
        test = f"({test} {sign} {negated(i.operands[3])})"
    first, _, second = i.operands[0].partition("|")
    text = written(first, "pred", test)
    if second:
        raise i.unknown()
    return text


def negated(operand: str) -> str:
    return f"!{register(operand[1:])}" if operand.startswith("!") else register(operand)


def choice(i: Instruction, module: Module) -> str:
    i.only()
    a, b = (value(o, i.type, module) for o in i.operands[1:3])
    return written(i.operands[0], i.type, f"{register(i.operands[3])} ? {a} : {b}")


def move(i: Instruction, module: Module) -> str:
    i.only()
    to, given = i.operands
    if given.startswith("{"):
        members = parts(given)
        width = int(i.type[1:]) // len(members)
        packed = " | ".join(
            f"static_cast<u64>({value(m, f'b{width}', module)}) << {n * width}"
            for n, m in enumerate(members)
        )
        return written(to, i.type, packed)
    if to.startswith("{"):
        members = parts(to)
        width = int(i.type[1:]) // len(members)
        whole = value(given, i.type, module)
        return " ".join(
            written(m, f"b{width}", f"{whole} >> {n * width}") for n, m in enumerate(members)
        )
    if given in module.shared and i.type.endswith("64"):
        return written(to, i.type, f"{window(given, module)}")
    return written(to, i.type, value(given, i.type, module))


ROUNDINGS = {"rni": "nearest", "rmi": "down", "rpi": "up", "rzi": "cut"}
HALVES = {"f16": "Float16", "bf16": "BFloat16"}


def conversion(i: Instruction, module: Module) -> str:
    *how, to, source = i.modifiers
    how = [m for m in how if m != "ftz"]
    if to in ("f16x2", "bf16x2") and source == "f32" and how == ["rn"]:
        high, low = (flushed(i, value(o, "f32", module), "f32") for o in i.operands[1:])
        narrow = f"convdsl::{HALVES[to[:-2]]}::narrow"
        return written(i.operands[0], "b32", f"{narrow}({high}) << 16 | {narrow}({low})")
    if to == "tf32" and how == ["rna"]:
        x = value(i.operands[1], "f32", module)
        return written(i.operands[0], "f32", f"convdsl::to_tf32({x})")
    if to in HALVES and how == ["rn"]:
        x = flushed(i, value(i.operands[1], source, module), source)
        return written(i.operands[0], "b16", f"convdsl::{HALVES[to]}::narrow({x})")
    if source in HALVES and to == "f32" and not how:
        x = value(i.operands[1], "b16", module)
        return written(i.operands[0], "f32", f"convdsl::{HALVES[source]}::widen({x})")
    x = flushed(i, value(i.operands[1], source, module), source)
    floats = to[0] == "f", source[0] == "f"
    match floats, how:
        case (False, False), []:
            return written(i.operands[0], to, f"static_cast<{to}>({x})")
        case (True, False), ["rn"]:
            return written(i.operands[0], to, f"static_cast<{to}>({x})")
        case (True, True), [] | ["rn"]:
            return written(i.operands[0], to, flushed(i, f"static_cast<{to}>({x})", to))
        case (True, True), [rounding] if rounding in ROUNDINGS:
            return written(i.operands[0], to, f"{ROUNDINGS[rounding]}({x})")
        case (False, True), [rounding] if rounding in ROUNDINGS:
            return written(i.operands[0], to, f"to_integer<{to}>({ROUNDINGS[rounding]}({x}))")
        case _:
            raise i.unknown()
