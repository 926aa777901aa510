"""What every part of the printer writes with: types, constants, names, indices, addresses.

Index arithmetic is written where it belongs: each sum, product and pointer once, in the
outermost loop that knows its parts, before the inner loop that asks for it. LLVM is left
nothing to hoist and little to compare, which is most of what its compile time would go to.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from convdsl.kernel.nodes import Buffer, Kernel, Registers, ValueType
from convdsl.kernel.target import Target
from convdsl.tensor import Dim, DType, Symbol, bounds, floor_div, symbols_of
from convdsl.tensor.conversion import stored
from convdsl.tensor.dim import Atom, Coefficient, Floor, Monomial, make, terms_of

_ZEROS = ("0", "false", f"0x{0:016X}")

INT_TESTS = {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "eq": "eq", "ne": "ne"}
SCALARS = {
    DType.F16: "i16",  # its bits, as bf16's; `casts` widens them
    DType.BF16: "i16",
    DType.F32: "float",
    DType.F64: "double",
    DType.I8: "i8",
    DType.U8: "i8",
    DType.I32: "i32",
    DType.I64: "i64",
    DType.U32: "i32",
    DType.BOOL: "i1",
}
_MANGLED = {"float": "f32", "double": "f64"}


def type_of(type: ValueType) -> str:
    """LLVM's spelling of a type."""
    scalar = SCALARS[type.dtype]
    return scalar if type.lanes == 1 else f"<{type.lanes} x {scalar}>"


def memory_type(type: ValueType) -> ValueType:
    """How a value lies in memory: bools as bytes."""
    return ValueType(DType.I8, type.lanes) if type.dtype is DType.BOOL else type


def first_lanes(count: int, lanes: int) -> str:
    """A mask of the first lanes."""
    bits = ", ".join(f"i1 {'true' if lane < count else 'false'}" for lane in range(lanes))
    return f"<{lanes} x i1> <{bits}>"


def suffix(type: ValueType) -> str:
    """The mangling of an overloaded intrinsic."""
    scalar = _MANGLED.get(SCALARS[type.dtype], SCALARS[type.dtype])
    return scalar if type.lanes == 1 else f"v{type.lanes}{scalar}"


def literal(value: float, dtype: DType) -> str:
    """LLVM's spelling of a number: floats by their bits, f32 rounded."""
    if dtype is DType.BOOL:
        return "true" if value else "false"
    element = stored(value, dtype)
    if dtype in (DType.F16, DType.BF16):
        return str(int(element.view("uint16")))
    if not dtype.is_float:
        return str(int(element))
    (bits,) = struct.unpack("<Q", struct.pack("<d", float(element)))
    return f"0x{bits:016X}"


def vector_of(item: str, type: ValueType) -> str:
    """A constant with the same element in every lane."""
    if type.lanes == 1:
        return item
    if item in _ZEROS:
        return "zeroinitializer"
    return f"splat ({SCALARS[type.dtype]} {item})"


@dataclass(slots=True)
class Level:
    """A loop body, or one arm of a branch, under print.

    known: names of index values and pointers computed here, by what they are.
    before: while something inside is being printed, the lines just before it.
    """

    known: dict[Hashable, str] = field(default_factory=dict[Hashable, str])
    before: list[str] = field(default_factory=list[str])


class Printer:
    """Lines of one function, and what its loops have computed."""

    def __init__(self, kernel: Kernel, declarations: set[str], target: Target) -> None:
        self.kernel = kernel
        self.target = target
        self.declarations = declarations
        self.allocas: list[str] = []
        self.lines: list[str | list[str]] = []
        self.count = 0
        self.block = "entry"
        self.lets: dict[str, str] = {}
        self.bounded: dict[str, tuple[float, float]] = {}  # names of lets: their ends
        self.loaded: dict[str, str] = {}  # results of whole loads: from where
        self.picked: dict[str, tuple[str, str]] = {}  # results that are one of two, lane by lane
        self.levels = [Level()]
        self.indices: dict[str, str] = {}  # loop counters by name
        self.depths: dict[str, int] = {}  # the levels that know them
        self.pointers = {b.name: f"%b{i}" for i, b in enumerate(kernel.buffers)}

    # Pieces

    def fresh(self) -> str:
        """A name that nothing has yet."""
        self.count += 1
        return f"%t{self.count}"

    def put(self, text: str) -> None:
        """Write a line."""
        self.lines.append(f"  {text}")

    def result(self, text: str) -> str:
        """Write an instruction; the name of its result."""
        name = self.fresh()
        self.lines.append(f"  {name} = {text}")
        return name

    def label(self, name: str) -> None:
        """Begin a block."""
        self.lines.append(f"{name}:")
        self.block = name

    def text(self) -> list[str]:
        """All lines, those that inner levels sent outwards in their places."""
        flat: list[str] = []
        for line in self.lines:
            if isinstance(line, str):
                flat.append(line)
            else:
                flat.extend(line)
        return flat

    def register(self, registers: Registers, slot: int) -> str:
        """The alloca of a register."""
        return f"%r.{registers.name}.{slot}"

    def intrinsic(
        self, name: str, type: ValueType, arguments: Sequence[str], flags: str = ""
    ) -> str:
        """Call one of LLVM's functions for a type; the name of its result."""
        call = self.call(name, type, arguments)
        return self.result(call.replace("call ", f"call {flags} ", 1) if flags else call)

    def call(self, name: str, type: ValueType, arguments: Sequence[str]) -> str:
        """The text of such a call; declares the function."""
        full, text = f"@llvm.{name}.{suffix(type)}", type_of(type)
        self.declarations.add(f"declare {text} {full}({', '.join([text] * len(arguments))})")
        return f"call {text} {full}({', '.join([f'{text} {a}' for a in arguments])})"

    def masked_load(self, type: ValueType, where: str, count: int, other: str) -> str:
        """Load the first `count` lanes; the others are those of `other`."""
        text, kept = type_of(type), f"<{type.lanes} x i1>"
        full = f"@llvm.masked.load.{suffix(type)}.p0"
        self.declarations.add(f"declare {text} {full}(ptr, i32, {kept}, {text})")
        mask = first_lanes(count, type.lanes)
        return f"call {text} {full}(ptr {where}, i32 {type.dtype.bytes}, {mask}, {text} {other})"

    def masked_store(self, type: ValueType, value: str, where: str, count: int) -> str:
        """Store the first `count` lanes."""
        text, kept = type_of(type), f"<{type.lanes} x i1>"
        full = f"@llvm.masked.store.{suffix(type)}.p0"
        self.declarations.add(f"declare void {full}({text}, ptr, i32, {kept})")
        mask = first_lanes(count, type.lanes)
        return f"call void {full}({text} {value}, ptr {where}, i32 {type.dtype.bytes}, {mask})"

    # Levels

    def open_level(self) -> None:
        """Begin a loop body or an arm; what it sends outwards stands before it."""
        before: list[str] = []
        self.levels[-1].before = before
        self.lines.append(before)
        self.levels.append(Level())

    def close_level(self) -> None:
        """End it, and forget what it knew."""
        self.levels.pop()

    def computed(self, depth: int, text: str) -> str:
        """The result of an instruction written at a level."""
        if depth == len(self.levels) - 1:
            return self.result(text)
        name = self.fresh()
        self.levels[depth].before.append(f"  {name} = {text}")
        return name

    def once(self, depth: int, key: Hashable, text: str) -> str:
        """The same, known by `key` from now on."""
        known = self.levels[depth].known
        if key not in known:
            known[key] = self.computed(depth, text)
        return known[key]

    def depth(self, dim: Dim) -> int:
        """The outermost level that knows all counters in `dim`."""
        return max((self.depths[s.name] for s in symbols_of(dim)), default=0)

    # Indices

    def index(self, dim: Dim) -> str:
        """An i64. What varies is shared among indices that differ in their constants."""
        if isinstance(dim, int):
            return str(dim)
        varying, constant = _split(dim)
        name, depth, key = "", 0, dict[Monomial, Coefficient]()
        for depth, terms in self.parts(varying):
            key.update(terms)
            known, whole = self.levels[depth].known, frozenset(key.items())
            if whole not in known:
                total = self.sum_of(depth, terms)
                step = f"add nsw i64 {name}, {total}"
                known[whole] = self.computed(depth, step) if name else total
            name = known[whole]
        return self.once(depth, dim, f"add nsw i64 {name}, {constant}") if constant else name

    def parts(self, varying: Dim) -> list[tuple[int, dict[Monomial, Coefficient]]]:
        """The terms by the level that knows them, outermost first."""
        found: dict[int, dict[Monomial, Coefficient]] = {}
        for monomial, coefficient in terms_of(varying):
            depth = max(self.atom_depth(atom) for atom, _ in monomial)
            found.setdefault(depth, {})[monomial] = coefficient
        return sorted(found.items())

    def atom_depth(self, atom: Atom) -> int:
        """The outermost level that knows all counters of an atom."""
        if isinstance(atom, Symbol):
            return self.depths[atom.name]
        return self.depth(make({((atom, 1),): 1}))

    def sum_of(self, depth: int, terms: dict[Monomial, Coefficient]) -> str:
        """The sum of some terms, written at a level."""
        known, whole = self.levels[depth].known, frozenset(terms.items())
        if whole not in known:
            total = ""
            for monomial, coefficient in terms.items():
                if isinstance(coefficient, Fraction):
                    raise TypeError(f"{monomial}: an index with fractions")
                term = self.term(depth, monomial, coefficient)
                total = self.computed(depth, f"add nsw i64 {total}, {term}") if total else term
            known[whole] = total
        return known[whole]

    def term(self, depth: int, monomial: Monomial, coefficient: int) -> str:
        """A product of atoms and a number, written at a level."""
        key = (monomial, coefficient)
        known = self.levels[depth].known
        if key not in known:
            product = ""
            for atom, power in monomial:
                for _ in range(power):
                    factor = self.atom(atom)
                    product = (
                        self.computed(depth, f"mul nsw i64 {product}, {factor}")
                        if product
                        else factor
                    )
            if coefficient != 1:
                product = self.computed(depth, f"mul nsw i64 {product}, {coefficient}")
            known[key] = product
        return known[key]

    def atom(self, atom: Atom) -> str:
        """A counter; a floor or an extremum, written where its parts are known."""
        if isinstance(atom, Symbol):
            return self.indices[atom.name]
        depth = self.atom_depth(atom)
        known = self.levels[depth].known
        if atom not in known:
            if isinstance(atom, Floor):
                known[atom] = self.floor_div(depth, atom.numerator, atom.denominator)
            else:
                type = ValueType(DType.I64)
                first, *rest = [self.index(argument) for argument in atom.arguments]
                for other in rest:
                    first = self.computed(depth, self.call(f"s{atom.kind}", type, (first, other)))
                known[atom] = first
        return known[atom]

    def floor_div(self, depth: int, numerator: Dim, divisor: Dim) -> str:
        """The floor of a quotient by a positive number."""
        if not isinstance(divisor, int):
            raise TypeError(f"division by {divisor}: kernels are made for bound shapes")
        top = self.index(numerator)
        low, _ = bounds(numerator)
        if low is not None and low >= 0:
            return self.computed(depth, f"udiv i64 {top}, {divisor}")
        negative = self.computed(depth, f"icmp slt i64 {top}, 0")
        shift = self.computed(depth, f"select i1 {negative}, i64 {divisor - 1}, i64 0")
        moved = self.computed(depth, f"sub nsw i64 {top}, {shift}")
        return self.computed(depth, f"sdiv i64 {moved}, {divisor}")

    # Addresses

    def address(self, buffer: Buffer, dim: Dim) -> str:
        """A pointer to an element: pointers that differ by constants have one base."""
        scalar = "i8" if buffer.dtype is DType.BOOL else SCALARS[buffer.dtype]
        varying, constant = _split(dim)
        name, key = self.pointers[buffer.name], dict[Monomial, Coefficient]()
        for depth, terms in self.parts(varying):
            key.update(terms)
            whole, offset = (buffer.name, frozenset(key.items())), self.sum_of(depth, terms)
            step = f"getelementptr {scalar}, ptr {name}, i64 {offset}"
            name = self.once(depth, whole, step)
        if constant == 0:
            return name
        step = f"getelementptr {scalar}, ptr {name}, i64 {constant}"
        return self.once(len(self.levels) - 1, (buffer.name, dim), step)

    # Tests

    def test(self, op: str, a: Dim, b: Dim) -> str:
        """An i1. Tests that say the same of what varies are one: 16*i + 3 < 100 is i < 7."""
        varying, constant = _split(a - b)
        numbers = [c for _, c in terms_of(varying) if isinstance(c, int)]
        limit = -constant
        if op in ("le", "gt"):
            op, limit = {"le": "lt", "gt": "ge"}[op], limit + 1
        common = math.gcd(*numbers)
        if op in ("lt", "ge") and common > 1:
            varying, limit = floor_div(varying, common), -(-limit // common)
        depth = self.depth(varying)
        comparison = f"icmp {INT_TESTS[op]} i64 {self.index(varying)}, {limit}"
        return self.once(depth, (op, varying, limit), comparison)


def _split(dim: Dim) -> tuple[Dim, int]:
    """(what varies, the constant)."""
    if isinstance(dim, int):
        return 0, dim
    constant = dim.constant
    if isinstance(constant, Fraction):
        raise TypeError(f"{dim}: an index with fractions")
    return (dim - constant if constant else dim), constant
