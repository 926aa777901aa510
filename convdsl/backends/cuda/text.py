"""Names, literals, types and indices of the loop IR as CUDA C."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from convdsl.tensor import HOST_DTYPES, Dim, DType, Symbol, bounds
from convdsl.tensor.conversion import stored
from convdsl.tensor.dim import Atom, Extremum, Floor, Monomial, terms_of

TYPES = {dtype: dtype.value for dtype in HOST_DTYPES} | {DType.TF32: "f32"}
"""Of values, by element type: arithmetic.cuh has most of these names."""

IN_MEMORY = TYPES | {DType.BOOL: "u8"}
"""Of elements in memory."""

VECTORS = {1: "uchar", 2: "ushort", 4: "float", 8: "double"}
"""CUDA's vectors of two and of four, by the bytes of an element: whatever it is, its bits move."""

WORDS = {2: "u32", 4: "uint2", 8: "uint4"}
"""Of so many halves, two in a word, the first one in its lower part: as tensor units take them."""

_INT_ENDS = -(1 << 31), (1 << 31) - 1
HALVES = (DType.F16, DType.BF16)


def name_of(name: str) -> str:
    """No name of C's, nor of what the source calls."""
    return f"{name}_"


def literal(value: float, dtype: DType) -> str:
    """A number, exactly."""
    if dtype is DType.BOOL:
        return "true" if value else "false"
    element = stored(value, dtype)
    if dtype in HALVES:
        return f"(({TYPES[dtype]}){int(element.view('uint16'))}u)"
    if dtype.is_float:
        return _float(float(element), dtype)
    whole = int(element)
    if dtype is DType.U32:
        return f"{whole}u"
    if dtype is not DType.I64:
        return f"(({TYPES[dtype]}){whole})"
    return f"((i64){whole}ll)" if whole > -(1 << 63) else "((i64)0x8000000000000000ull)"


def _float(value: float, dtype: DType) -> str:
    """The shortest decimals that are read as the number; what has none by its bits."""
    single = dtype.bytes == DType.F32.bytes
    if math.isfinite(value):
        text = str(np.float32(value)) if single else repr(value)
        text = text if any(c in text for c in ".e") else f"{text}.0"
        text = f"{text}f" if single else text
        return f"({text})" if text.startswith("-") else text
    bits = stored(value, dtype).view("uint32" if single else "uint64")
    call = "__int_as_float((int)" if single else "__longlong_as_double((i64)"
    return f"{call}0x{int(bits):x}{'u' if single else 'ull'})"


def index(dim: Dim) -> str:
    """An index as an int, or as an i64 where an int may be too short for a part of it."""
    return _sum(dim, _is_wide(dim))


def index_type(dim: Dim) -> str:
    """The type that `index` gives."""
    return "i64" if _is_wide(dim) else "int"


def divisible(dim: Dim, divisor: int) -> bool:
    """Whether an index is provably a multiple."""
    return all(isinstance(c, int) and c % divisor == 0 for _, c in terms_of(dim))


def _is_wide(dim: Dim) -> bool:
    """Whether some sum or product on the way could leave an int."""
    return _reach(dim) > _INT_ENDS[1]


def _reach(dim: Dim) -> float:
    """What no sum on the way to an index, nor any part of one, exceeds in size."""
    inner = (_atom_reach(atom) for monomial, _ in terms_of(dim) for atom, _ in monomial)
    return max(_size(dim), *inner, 0.0)


def _atom_reach(atom: Atom) -> float:
    match atom:
        case Symbol():
            return 0.0
        case Floor():
            moved = _moved(atom) * float(_divisor(atom))
            return max(_reach(atom.numerator), _size(atom.numerator) + moved)
        case Extremum():
            return max(map(_reach, atom.arguments))


def _size(dim: Dim) -> float:
    """What no sum of some of the terms exceeds in size."""
    return float(sum(abs(c) * _monomial_size(m) for m, c in terms_of(dim)))


def _monomial_size(monomial: Monomial) -> float:
    return math.prod(max(1.0, _atom_size(atom)) ** power for atom, power in monomial)


def _atom_size(atom: Atom) -> float:
    match atom:
        case Symbol():
            high = math.inf if atom.maximum is None else atom.maximum
            return max(abs(atom.minimum), abs(high))
        case Floor():
            _, high = bounds(atom.numerator)
            moved = _moved(atom)
            return math.inf if high is None else abs(high // _divisor(atom)) + 2.0 * moved
        case Extremum():
            return max(map(_size, atom.arguments))


def _sum(dim: Dim, wide: bool) -> str:
    """Terms with their signs between them."""
    text = ""
    for monomial, coefficient in terms_of(dim):
        if isinstance(coefficient, Fraction):
            raise TypeError(f"{dim}: an index with fractions")
        size, factors = abs(coefficient), [_atom(a, wide) for a, p in monomial for _ in range(p)]
        if size != 1 or not factors:
            factors.append(f"{size}ll" if wide and size > _INT_ENDS[1] else str(size))
        product = " * ".join(factors)
        if text:
            text += f" {'-' if coefficient < 0 else '+'} {product}"
        else:
            text = f"-{product}" if coefficient < 0 else product
    return text or "0"


def _atom(atom: Atom, wide: bool) -> str:
    match atom:
        case Symbol():
            name = name_of(atom.name)
            return f"(i64){name}" if wide else name
        case Floor():
            return _floor(atom, wide)
        case Extremum():
            first, *rest = (f"({_sum(argument, wide)})" for argument in atom.arguments)
            type = "i64" if wide else "int"
            call = f"{'least' if atom.kind == 'min' else 'largest'}<{type}>"
            for other in rest:
                first = f"{call}({first}, {other})"
            return first


def _floor(atom: Floor, wide: bool) -> str:
    """A quotient of what is not negative: unsigned, which is cheaper. What may be is moved up by a
    multiple of the divisor first, and the quotient back."""
    divisor, moved = _divisor(atom), _moved(atom)
    top = _sum(atom.numerator + moved * divisor, wide)
    unsigned, signed, mark = ("u64", "i64", "ull") if wide else ("unsigned", "int", "u")
    quotient = f"({signed})(({unsigned})({top}) / {divisor}{mark})"
    return f"({quotient} - {moved})" if moved else quotient


def _divisor(atom: Floor) -> int:
    if not isinstance(atom.denominator, int):
        raise TypeError(f"division by {atom.denominator}: kernels are made for bound shapes")
    return atom.denominator


def _moved(atom: Floor) -> int:
    """By how much a quotient is moved up to be of what is not negative."""
    low, _ = bounds(atom.numerator)
    if low is None:
        raise TypeError(f"{atom.numerator}: an index without a lower end")
    return -(low // _divisor(atom)) if low < 0 else 0
