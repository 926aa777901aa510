"""PTX text as C++ for the shim's machine: what is shipped, inline assembly included, executed.

A register is a variable of its bits, a label a label, an instruction a statement that calls
`ptx_machine.h`. What is not known here is refused by name: an opcode, a modifier, a directive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convdsl.kernel.group_mma import ACROSS, LINE

WIDTH = {"pred": "bool", "b8": "u8", "b16": "u16", "b32": "u32", "b64": "u64", "f32": "u32",
         "f64": "u64", "s16": "u16", "u16": "u16", "s32": "u32", "u32": "u32", "s64": "u64",
         "u64": "u64", "f16": "u16"}  # fmt: skip
"""Variables that hold registers, by the type that these are declared with."""

TYPES = ("u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "b8", "b16", "b32", "b64", "f32",
         "f64", "pred")  # fmt: skip

SPECIAL = {
    "%laneid": "laneid()",
    **{f"%{name}.{axis}": f"{cuda}.{axis}"
       for name, cuda in {"tid": "threadIdx", "ntid": "blockDim", "ctaid": "blockIdx",
                          "nctaid": "gridDim"}.items() for axis in "xyz"},
}  # fmt: skip


class UnknownPtx(AssertionError):
    """Text that the translator has no rule for."""


@dataclass(frozen=True)
class Instruction:
    """`opcode.modifiers operands`, under a predicate or not."""

    line: int
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]

    @property
    def type(self) -> str:
        return self.modifiers[-1]

    @property
    def text(self) -> str:
        return f"{'.'.join((self.opcode, *self.modifiers))} {', '.join(self.operands)}"

    def unknown(self) -> UnknownPtx:
        return UnknownPtx(f"line {self.line}: {self.text}")

    def only(self, *known: str) -> None:
        """Refuse modifiers other than these, and the type at the end."""
        if not set(self.modifiers[:-1]) <= set(known):
            raise self.unknown()


@dataclass
class Module:
    """What is declared outside of functions, or counted across them."""

    shared: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> number, bytes
    names: set[str] = field(default_factory=set)  # of registers that inline assembly declares
    granule: int = 4
    kernels: list[str] = field(default_factory=list)


Rule = Callable[[Instruction, Module], str]


def register(name: str) -> str:
    """The variable, or the label, that a name becomes."""
    return "r_" + name[1:] if name.startswith("%") else "n_" + name.replace("$", "_")


def value(operand: str, type: str, module: Module) -> str:
    """An operand as a value of a type."""
    if operand in SPECIAL:
        return f"static_cast<{type}>({SPECIAL[operand]})"
    if operand.startswith("%") or operand in module.names:
        return f"in<{type}>({register(operand)})" if type != "pred" else register(operand)
    if found := re.fullmatch(r"0[fF]([0-9A-Fa-f]{8})", operand):
        return f"in<{type}>(0x{found[1]}u)"
    if found := re.fullmatch(r"0[dD]([0-9A-Fa-f]{16})", operand):
        return f"in<{type}>(0x{found[1]}ull)"
    if found := re.fullmatch(r"(-?)(0[xX][0-9A-Fa-f]+|\d+)U?", operand):
        return f"static_cast<{type}>({found[1]}{found[2]}ull)"
    if operand in module.shared:
        return f"static_cast<{type}>({window(operand, module)})"
    raise UnknownPtx(f"operand {operand}")


def window(name: str, module: Module) -> str:
    return f"0x{(module.shared[name][0] + 1) << 20:x}u"


def written(operand: str, type: str, expression: str) -> str:
    if operand == "_":
        return f"{expression};"
    if type == "pred":
        return f"{register(operand)} = {expression};"
    return f"out({register(operand)}, static_cast<{type}>({expression}));"


def parts(operand: str) -> list[str]:
    """`{a, b}` as its members; anything else alone."""
    if operand.startswith("{"):
        return [part.strip() for part in operand[1:-1].split(",")]
    return [operand]


def flushed(i: Instruction, text: str, type: str) -> str:
    """An f32 as an instruction reads or writes it: with `ftz` what is denormal is a zero."""
    return f"flushed({text})" if type == "f32" and "ftz" in i.modifiers else text


def operands_of(i: Instruction, module: Module) -> str:
    """All that is read, as values of the instruction's type."""
    return ", ".join(flushed(i, value(o, i.type, module), i.type) for o in i.operands[1:])


# Arithmetic


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


# Comparisons and choices

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


# Moves and conversions


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


def generic(i: Instruction, module: Module) -> str:
    """Only shared memory has addresses of another kind."""
    space = next(m for m in i.modifiers[:-1] if m != "to")
    x = value(i.operands[1], "u64", module)
    if space == "shared":
        x = f"static_cast<u32>({x})" if "to" in i.modifiers else f"(GENERIC | {x})"
    elif space not in ("global", "local"):
        raise i.unknown()
    return written(i.operands[0], i.type, x)


# Memory

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


# Threads together


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


def branch(i: Instruction, module: Module) -> str:
    return f"goto {register(i.operands[0])};"


def leave(i: Instruction, module: Module) -> str:
    return "return;"


def nothing(i: Instruction, module: Module) -> str:
    return ";"


_ROUNDED = ("rn", "ftz", "approx", "full")

RULES: dict[str, Rule] = {
    "wgmma": group_product,
    "fence": proxy_fence,
    "add": calls("add", "rn", "ftz"),
    "sub": calls("sub", "rn", "ftz"),
    "mul": multiply,
    "mad": multiply,
    "fma": calls("fma", "rn", "ftz"),
    "div": calls("divide", *_ROUNDED),
    "rem": calls("rem"),
    "min": extremum,
    "max": extremum,
    "abs": calls("abs", "ftz"),
    "neg": calls("neg", "ftz"),
    "copysign": calls("copysign"),
    "sqrt": calls("ptx::sqrt", *_ROUNDED),
    "rsqrt": calls("rsqrt", *_ROUNDED),
    "rcp": calls("rcp", *_ROUNDED),
    "ex2": plain("ex2", *_ROUNDED),
    "lg2": plain("lg2", *_ROUNDED),
    "sin": plain("ptx::sin", *_ROUNDED),
    "cos": plain("ptx::cos", *_ROUNDED),
    "tanh": plain("ptx::tanh", *_ROUNDED),
    "and": logic("&"),
    "or": logic("|"),
    "xor": logic("^"),
    "not": negation,
    "shl": shift,
    "shr": shift,
    "shf": funnel,
    "lop3": plain("lop3"),
    "prmt": plain("prmt"),
    "bfe": bit_field,
    "bfi": bit_field,
    "dp2a": dot,
    "popc": counted,
    "clz": counted,
    "brev": counted,
    "setp": comparison,
    "selp": choice,
    "mov": move,
    "cvt": conversion,
    "cvta": generic,
    "ld": load,
    "st": store,
    "cp": copy,
    "shfl": shuffle,
    "bar": barrier,
    "barrier": barrier,
    "mma": matrix_product,
    "ldmatrix": matrix_load,
    "bra": branch,
    "ret": leave,
    "exit": leave,
    "prefetch": nothing,
}
"""What each opcode becomes."""


# Text

_STATEMENT = re.compile(r"(?:@(!?)(%?\w+)\s+)?([a-z][a-z0-9]*)((?:\.[\w:]+)*)\s*(.*)", re.DOTALL)
_PARAMETER = re.compile(
    r"\.param\s+\.(u64|u32)(?:\s+\.ptr(?:\s+\.global)?\s+\.align\s+\d+)?\s+(\w+)"
)
_ENTRY = re.compile(r"\.visible\s+\.entry\s+(\w+)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Translated:
    """A module's functions in C++, with a table of its kernels, and their names."""

    source: str
    kernels: tuple[str, ...]


def translate(text: str) -> Translated:
    """PTX in C++. Raises UnknownPtx."""
    module = Module()
    lines = [re.sub(r"//.*", "", line) for line in text.splitlines()]
    sizes = [_bytes(line) for line in lines if re.search(r"\b(ld|st)\.(volatile\.)?shared", line)]
    module.granule = min(sizes, default=4)
    for line in lines:
        declare(line, module)
    starts = [at for at, line in enumerate(lines) if ".entry" in line]
    functions = [translate_function(lines, at, module) for at in starts]
    declarations = "".join(
        f'{{"{name}", {count}, {module.granule}}}, ' for name, (_, count) in module.shared.items()
    )
    head = '#include "ptx_machine.h"\n#include "kernels.h"\nusing namespace ptx;\n'
    head += f"static const Declaration declarations[] = {{{declarations}{{nullptr, 0, 4}}}};\n"
    table = "\n".join(f"CONVDSL_KERNEL({name})" for name in module.kernels)
    return Translated(f"{head}{''.join(functions)}{table}\n", tuple(module.kernels))


def _bytes(line: str) -> int:
    found = re.search(r"\.[busf](8|16|32|64)\s", line)
    if not found:
        raise UnknownPtx(line)
    return int(found[1]) // 8


def declare(line: str, module: Module) -> None:
    """Shared memory, wherever it is declared."""
    found = re.search(
        r"\.shared\s+\.align\s+\d+\s+\.[busf](\d+)\s+([\w$]+)(?:\[(\d*)\])?\s*;", line
    )
    if found:
        bits, name, count = found.groups()  # a variable of one element has no brackets
        many = 1 if count is None else int(count or 0)
        module.shared[name] = len(module.shared), int(bits) // 8 * many


def translate_function(lines: Sequence[str], start: int, module: Module) -> str:
    head = " ".join(lines[start:]).split("{", 1)[0]
    found = _ENTRY.search(head)
    if not found:
        raise UnknownPtx(head)
    name = found[1]
    module.kernels.append(name)
    parameters = [_PARAMETER.fullmatch(p.strip()) for p in found[2].split(",") if p.strip()]
    if None in parameters:
        raise UnknownPtx(found[2])
    given = ", ".join(f"{WIDTH[p[1]]} {p[2]}" for p in parameters if p)
    body = "\n".join(f"    {text}" for text in statements(lines, start, module))
    return f'extern "C" void {name}({given}) {{\n{body}\n}}\n'


def statements(lines: Sequence[str], start: int, module: Module) -> list[str]:
    """The body of the function that begins at a line, in C++."""
    made: list[str] = []
    depth, pending = 0, ""
    for number in range(start, len(lines)):
        pending = f"{pending} {lines[number].strip()}".strip()
        if depth == 0:
            _, opened, pending = pending.partition("{")
            depth += bool(opened)
        while pending:
            if label := re.match(r"([\w$]+):", pending):
                made.append(f"{register(label[1])}: ;")
                pending = pending[label.end() :].strip()
            elif pending.startswith("{"):
                depth, pending = depth + 1, pending[1:].strip()
                made.append("{")
            elif pending.startswith("}"):
                depth, pending = depth - 1, pending[1:].strip()
                if depth == 0:
                    return made
                made.append("}")
            elif ";" in pending:
                text, _, pending = pending.partition(";")
                made.append(statement(text.strip(), number + 1, module))
                pending = pending.strip()
            else:
                break  # goes on in the next line
    raise UnknownPtx("a function without an end")


def statement(text: str, line: int, module: Module) -> str:
    if text.startswith(".reg"):
        return registers(text, module)
    if text.startswith((".shared", ".pragma")) or not text:
        return ";"
    found = _STATEMENT.fullmatch(text)
    if not found or found[3] not in RULES:
        raise UnknownPtx(f"line {line}: {text}")
    inverted, predicate, opcode, modifiers, operands = found.groups()
    given = tuple(o.strip() for o in re.split(r",(?![^{\[]*[}\]])", operands) if o.strip())
    instruction = Instruction(line, opcode, tuple(modifiers.split(".")[1:]), given)
    made = RULES[opcode](instruction, module)
    if predicate:
        return f"if ({'!' if inverted else ''}{register(predicate)}) {{ {made} }}"
    return made


def registers(text: str, module: Module) -> str:
    """`.reg .b32 %r<97>;` as variables."""
    found = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text)
    if not found or found[1] not in WIDTH:
        raise UnknownPtx(text)
    names: list[str] = []
    for declared in found[2].split(","):
        many = re.fullmatch(r"(%?\w+)<(\d+)>", declared.strip())
        if many:
            names += [f"{register(many[1])}{n}" for n in range(int(many[2]))]
        else:
            module.names.add(declared.strip())
            names.append(register(declared.strip()))
    return f"[[maybe_unused]] {WIDTH[found[1]]} {', '.join(names)};"
