"""PTX text as C++ for the shim's machine: what is shipped, inline assembly included, executed.

A register is a variable of its bits, a label a label, an instruction a statement that calls
`ptx_machine.h`. What is not known here is refused by name: an opcode, a modifier, a directive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cuda_shim.ptx_arithmetic import (
    bit_field,
    calls,
    choice,
    comparison,
    conversion,
    counted,
    dot,
    extremum,
    funnel,
    logic,
    move,
    multiply,
    negation,
    plain,
    shift,
)
from cuda_shim.ptx_instructions import (
    WIDTH,
    Instruction,
    Module,
    Rule,
    UnknownPtx,
    register,
)
from cuda_shim.ptx_memory import barrier, copy, generic, load, shuffle, store
from cuda_shim.ptx_products import group_product, matrix_load, matrix_product, proxy_fence


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
