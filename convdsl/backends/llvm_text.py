"""What every part of the printer writes with: types, constants, names, indices, addresses."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from fractions import Fraction

from convdsl.kernel.nodes import Buffer, Kernel, Registers, ValueType
from convdsl.tensor import Dim, DType, Symbol, SymDim, bounds
from convdsl.tensor.dim import Atom, Floor

SCALARS = {DType.F32: "float", DType.F64: "double", DType.I64: "i64", DType.BOOL: "i1"}


def type_of(type: ValueType) -> str:
    scalar = SCALARS[type.dtype]
    return scalar if type.lanes == 1 else f"<{type.lanes} x {scalar}>"


def suffix(type: ValueType) -> str:
    """The mangling of an overloaded intrinsic."""
    scalar = {DType.F32: "f32", DType.F64: "f64", DType.I64: "i64", DType.BOOL: "i1"}[type.dtype]
    return scalar if type.lanes == 1 else f"v{type.lanes}{scalar}"


def literal(value: float, dtype: DType) -> str:
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if dtype is DType.I64:
        return str(int(value))
    if dtype is DType.F32:
        try:
            value = struct.unpack("f", struct.pack("f", value))[0]
        except OverflowError:
            value = math.copysign(math.inf, value)
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return f"0x{bits:016X}"


def vector_of(item: str, type: ValueType) -> str:
    """A constant with the same element in every lane."""
    if type.lanes == 1:
        return item
    scalar = SCALARS[type.dtype]
    return f"<{', '.join([f'{scalar} {item}'] * type.lanes)}>"


class Printer:
    """Lines of one function, and what its blocks have computed."""

    def __init__(self, kernel: Kernel, declarations: set[str]) -> None:
        self.kernel = kernel
        self.declarations = declarations
        self.allocas: list[str] = []
        self.lines: list[str] = []
        self.count = 0
        self.lets: dict[str, str] = {}
        self.indices: dict[str, str] = {}
        # Index values by what they are, one dict a block; inner blocks see those around them.
        self.computed: list[dict[Dim, str]] = [{}]
        self.pointers = {b.name: f"%b{i}" for i, b in enumerate(kernel.buffers)}

    # Pieces

    def alloca(self, name: str, type: str) -> None:
        self.allocas.append(f"  {name} = alloca {type}")

    def fresh(self) -> str:
        self.count += 1
        return f"%t{self.count}"

    def put(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def result(self, text: str) -> str:
        name = self.fresh()
        self.put(f"{name} = {text}")
        return name

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def register(self, registers: Registers, slot: int) -> str:
        return f"%r.{registers.name}.{slot}"

    def intrinsic(self, name: str, type: ValueType, arguments: Sequence[str]) -> str:
        full, text = f"@llvm.{name}.{suffix(type)}", type_of(type)
        self.declarations.add(f"declare {text} {full}({', '.join([text] * len(arguments))})")
        return self.result(f"call {text} {full}({', '.join(f'{text} {a}' for a in arguments)})")

    # Indices

    def index(self, dim: Dim) -> str:
        if isinstance(dim, int):
            return str(dim)
        constant = dim.constant
        varying = dim - constant if isinstance(constant, int) else dim
        known = next((block[varying] for block in self.computed if varying in block), None)
        if known is None:
            known = self.computed[-1][varying] = self.sum_of_terms(varying)
        return known if constant == 0 else self.result(f"add nsw i64 {known}, {constant}")

    def sum_of_terms(self, dim: Dim) -> str:
        total: str | None = None
        for monomial, coefficient in dim.terms if isinstance(dim, SymDim) else ():
            if isinstance(coefficient, Fraction):
                raise TypeError(f"{dim}: an index with fractions")
            total = self.add(total, self.term(monomial, coefficient))
        assert total is not None
        return total

    def term(self, monomial: tuple[tuple[Atom, int], ...], coefficient: int) -> str:
        product: str | None = None
        for atom, power in monomial:
            for _ in range(power):
                factor = self.atom(atom)
                product = (
                    factor if product is None else self.result(f"mul nsw i64 {product}, {factor}")
                )
        if product is None:
            return str(coefficient)
        if coefficient == 1:
            return product
        return self.result(f"mul nsw i64 {product}, {coefficient}")

    def add(self, a: str | None, b: str) -> str:
        return b if a is None else self.result(f"add nsw i64 {a}, {b}")

    def atom(self, atom: Atom) -> str:
        if isinstance(atom, Symbol):
            return self.indices[atom.name]
        if isinstance(atom, Floor):
            return self.floor_div(atom.numerator, atom.denominator)
        type = ValueType(DType.I64)
        first, *rest = (self.index(argument) for argument in atom.arguments)
        for other in rest:
            first = self.intrinsic(f"s{atom.kind}", type, (first, other))
        return first

    def floor_div(self, numerator: Dim, divisor: Dim) -> str:
        if not isinstance(divisor, int):
            raise TypeError(f"division by {divisor}: kernels are made for bound shapes")
        top = self.index(numerator)
        low, _ = bounds(numerator)
        if low is not None and low >= 0:
            return self.result(f"udiv i64 {top}, {divisor}")
        negative = self.result(f"icmp slt i64 {top}, 0")
        shift = self.result(f"select i1 {negative}, i64 {divisor - 1}, i64 0")
        return self.result(f"sdiv i64 {self.result(f'sub nsw i64 {top}, {shift}')}, {divisor}")

    def address(self, buffer: Buffer, index: str, inbounds: bool = True) -> str:
        scalar = "i8" if buffer.dtype is DType.BOOL else SCALARS[buffer.dtype]
        base = self.pointers[buffer.name]
        word = "inbounds " if inbounds else ""
        return self.result(f"getelementptr {word}{scalar}, ptr {base}, i64 {index}")
