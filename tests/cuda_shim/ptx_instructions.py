"""Instructions of PTX, what they name, and operands as values of the shim's machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

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
