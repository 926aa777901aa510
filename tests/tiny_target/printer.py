"""Loop IR as Python source, and programs made of it: no NumPy, no compiler, scalars only.

Numbers are Python's: floats are doubles, rounded to their element type where they are stored or
cast. Memory is bytes, buffers are typed windows on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from convdsl.kernel.nodes import (
    Binary,
    Cast,
    Compare,
    Const,
    Fma,
    For,
    Get,
    If,
    IndexAsValue,
    IndexTest,
    Kernel,
    Let,
    Load,
    Parallel,
    Prefetch,
    Select,
    Set,
    Splat,
    Statement,
    Store,
    Unary,
    Value,
    Var,
)
from convdsl.kernel.program import Argument, Place, Program
from convdsl.kernel.scalar import COMPARISONS, FUNCTIONS, LIFTS
from convdsl.kernel.verify import KernelError
from convdsl.tensor import Dim, DType, Symbol
from convdsl.tensor.dim import Floor, terms_of

FORMATS = {DType.F32: "f", DType.F64: "d", DType.I64: "q", DType.BOOL: "?"}
"""Element types as `memoryview` spells them."""


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1, b)


def _extremum(pick: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: math.nan if a != a or b != b else pick(a, b)


def _rounding(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: float(function(x)) if math.isfinite(x) else x


def _as_f32(x: float) -> float:
    window = memoryview(bytearray(4)).cast("f")
    window[0] = x
    return window[0]


def _power_of_two(x: float) -> float:
    return math.ldexp(1.0, int(x)) if math.isfinite(x) else math.nan


NAMES: dict[str, Any] = {
    "div": _divide,
    "max": _extremum(max),
    "min": _extremum(min),
    "abs": abs,
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else math.nan,
    "floor": _rounding(math.floor),
    "ceil": _rounding(math.ceil),
    "round": _rounding(round),
    "copysign": math.copysign,
    "isnan": math.isnan,
    "quotient": lambda a, b: -(-a // b) if (a < 0) != (b < 0) else a // b,
    "pow2": _power_of_two,
    "lift": lambda x, factor, lift: round(x * factor) + lift if math.isfinite(x) else x,
    "pow2_lifted": lambda x, lift: _power_of_two(x - lift),
    "scale": lambda x, n: x * _power_of_two(n),
    "exponent": lambda x: float(math.frexp(x)[1]),
    "mantissa": lambda x: math.frexp(x)[0],
    "index_min": min,
    "index_max": max,
    "f32": _as_f32,
}
"""What the printed source calls."""

_INFIX = {"add": "+", "sub": "-", "mul": "*", "and": "and", "or": "or", "xor": "!="}
_PREFIX = {"neg": "-", "not": "not "}


def print_program(program: Program) -> str:
    """A module with `run(inputs, outputs, weights, arena)`, all of them writable bytes."""
    lines = [line for kernel in program.kernels for line in _kernel(kernel)]
    lines.append("def run(inputs, outputs, weights, arena):")
    kernels = {kernel.name: kernel for kernel in program.kernels}
    for step in program.steps:
        buffers = kernels[step.kernel].buffers
        windows = [
            f"memoryview({_memory(argument)})[{argument.offset}:"
            f"{argument.offset + buffer.size * buffer.dtype.bytes}].cast('{FORMATS[buffer.dtype]}')"
            for argument, buffer in zip(step.arguments, buffers, strict=True)
        ]
        lines.append(f"    {step.kernel}({', '.join(windows)})")
    return "\n".join(lines)


def run_program(
    program: Program, inputs: Sequence[bytes], weights: bytearray, output_sizes: Sequence[int]
) -> list[bytearray]:
    """Execute what is printed, on an arena that starts out as NaN. The outputs' bytes."""
    space = dict(NAMES)
    exec(compile(print_program(program), program.name, "exec"), space)
    outputs = [bytearray(size) for size in output_sizes]
    space["run"](inputs, outputs, weights, bytearray(b"\xff" * program.arena_bytes))
    return outputs


def _memory(argument: Argument) -> str:
    match argument.place:
        case Place.INPUT:
            return f"inputs[{argument.slot}]"
        case Place.OUTPUT:
            return f"outputs[{argument.slot}]"
        case Place.WEIGHTS:
            return "weights"
        case Place.ARENA:
            return "arena"
        case Place.STATE:
            raise KernelError("the tiny target keeps nothing from call to call")


def _kernel(kernel: Kernel) -> list[str]:
    head = f"def {kernel.name}({', '.join(_name(b.name) for b in kernel.buffers)}):"
    lines = [f"    {_name(r.name)} = [0] * {r.count}" for r in kernel.registers]
    return [head, *lines, *_body(kernel.body, 1), ""]


def _name(name: str) -> str:
    """No name of Python's, nor of what the source calls."""
    return f"{name}_"


def _body(body: tuple[Statement, ...], depth: int) -> list[str]:
    return [line for s in body for line in _statement(s, depth)] or [f"{'    ' * depth}pass"]


def _statement(statement: Statement, depth: int) -> list[str]:
    pad = "    " * depth
    match statement:
        case Let():
            return [f"{pad}{_name(statement.var.name)} = {_value(statement.value)}"]
        case Set():
            at = f"{_name(statement.registers.name)}[{statement.slot}]"
            return [f"{pad}{at} = {_value(statement.value)}"]
        case Store():
            at = f"{_name(statement.buffer.name)}[{_index(statement.index)}]"
            return [f"{pad}{at} = {_value(statement.value)}"]
        case Prefetch():
            return []
        case For():
            ranges = f"range({_index(statement.start)}, {_index(statement.stop)})"
            head = f"{pad}for {_name(statement.var.name)} in {ranges}:"
            return [head, *_body(statement.body, depth + 1)]
        case Parallel():
            lines: list[str] = []
            for var, extent in zip(statement.vars, statement.extents, strict=True):
                lines.append(f"{'    ' * depth}for {_name(var.name)} in range({extent}):")
                depth += 1
            return lines + _body(statement.body, depth)
        case If():
            lines = [f"{pad}if {_value(statement.test)}:", *_body(statement.then, depth + 1)]
            if statement.otherwise:
                lines += [f"{pad}else:", *_body(statement.otherwise, depth + 1)]
            return lines
        case _:
            raise KernelError(f"{type(statement).__name__} in a program of loops")


def _value(value: Value) -> str:
    if value.type.lanes != 1:
        raise KernelError(f"{value.type}: the tiny target has no vectors")
    match value:
        case Const():
            return _literal(value.value, value.type.dtype)
        case Var():
            return _name(value.name)
        case Load():
            text = f"{_name(value.buffer.name)}[{_index(value.index)}]"
            tests = " and ".join(map(_value, value.guards))
            other = _literal(value.otherwise, value.type.dtype)
            return f"({text} if {tests} else {other})" if tests else text
        case Get():
            return f"{_name(value.registers.name)}[{value.slot}]"
        case Unary(op="pow2_lifted"):
            return f"pow2_lifted({_value(value.x)}, {LIFTS[value.type.dtype]})"
        case Binary(op="lift"):
            return f"lift({_value(value.a)}, {_value(value.b)}, {LIFTS[value.type.dtype]})"
        case Unary():
            return _call(value.op, value.x)
        case Binary() | Compare():
            return _call(value.op, value.a, value.b)
        case Fma():
            a, b, c = map(_value, (value.a, value.b, value.c))
            return f"({a} * {b} + {c})"
        case Select():
            yes, condition, no = map(_value, (value.yes, value.condition, value.no))
            return f"({yes} if {condition} else {no})"
        case Cast():
            return _cast(_value(value.x), value.type.dtype)
        case IndexAsValue():
            return _cast(_index(value.index), value.type.dtype)
        case IndexTest():
            return f"({_index(value.a)} {FUNCTIONS[value.op].sign} {_index(value.b)})"
        case Splat():
            return _value(value.x)
        case _:
            raise KernelError(f"{type(value).__name__} in a program of scalars")


def _literal(value: float, dtype: DType) -> str:
    return f"float('{value}')" if dtype.is_float else repr(value)


def _call(op: str, *operands: Value) -> str:
    parts = [_value(operand) for operand in operands]
    if op in COMPARISONS:
        return f"({parts[0]} {FUNCTIONS[op].sign} {parts[1]})"
    if op in _INFIX:
        return f"({parts[0]} {_INFIX[op]} {parts[1]})"
    if op in _PREFIX:
        return f"({_PREFIX[op]}{parts[0]})"
    if op not in NAMES:
        raise KernelError(f"the tiny target has no {op}")
    return f"{op}({', '.join(parts)})"


def _cast(text: str, dtype: DType) -> str:
    return f"{_CASTS[dtype]}({text})"


_CASTS = {DType.F32: "f32", DType.F64: "float", DType.I64: "int", DType.BOOL: "bool"}


def _index(dim: Dim) -> str:
    """An index as Python's integer arithmetic, all over one denominator."""
    parts = [(monomial, Fraction(coefficient)) for monomial, coefficient in terms_of(dim)]
    scale = math.lcm(*(coefficient.denominator for _, coefficient in parts))
    terms: list[str] = []
    for monomial, coefficient in parts:
        factors = [str(int(coefficient * scale))]
        for atom, power in monomial:
            if isinstance(atom, Symbol):
                text = _name(atom.name)
            elif isinstance(atom, Floor):
                text = f"({_index(atom.numerator)} // {_index(atom.denominator)})"
            else:
                text = f"index_{atom.kind}({', '.join(map(_index, atom.arguments))})"
            factors += [text] * power
        terms.append("*".join(factors))
    total = f"({' + '.join(terms) or '0'})"
    return total if scale == 1 else f"({total} // {scale})"
