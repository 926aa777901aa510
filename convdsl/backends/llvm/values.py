"""Values of the loop IR as LLVM instructions."""

from __future__ import annotations

import math
from collections.abc import Iterable

from convdsl.backends.llvm.casts import CastPrinter
from convdsl.backends.llvm.text import (
    INT_TESTS,
    SCALARS,
    literal,
    memory_type,
    suffix,
    type_of,
    vector_of,
)
from convdsl.kernel.nodes import (
    Binary,
    Cast,
    Compare,
    Const,
    Fma,
    Gather,
    Get,
    IndexAsValue,
    IndexTest,
    Lane,
    Load,
    ReduceLanes,
    Select,
    Shuffle,
    Splat,
    Unary,
    Value,
    ValueType,
    Var,
)
from convdsl.kernel.scalar import LIFTS
from convdsl.tensor import Dim, DType, Kind

_FLOAT_TESTS = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_OPS = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "and": "and",
    "or": "or",
    "xor": "xor",
}
_FLOAT_REDUCTIONS = {"sum": ("fadd", -0.0), "prod": ("fmul", 1.0)}
_INT_REDUCTIONS = {
    "sum": "add",
    "prod": "mul",
    "max": "smax",
    "min": "smin",
    "any": "or",
    "all": "and",
}
_INTRINSICS = {"abs": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "round": "rint"}
# (bits, mantissa bits, exponent bias)
_FLOAT_FORMAT = {DType.F32: (32, 23, 127), DType.F64: (64, 52, 1023)}


def _test(compare: Compare) -> str:
    """The instruction that compares, but for its operands."""
    dtype = compare.a.type.dtype
    if dtype.is_float:
        return f"fcmp {_FLOAT_TESTS[compare.op]}"
    test = INT_TESTS[compare.op]
    return f"icmp {test}" if dtype.kind is Kind.SIGNED else f"icmp {test.replace('s', 'u')}"


class ValuePrinter(CastPrinter):
    """Prints what a value needs and returns its name."""

    def load(self, load: Load) -> str:
        """A load; where a guard fails the buffer's start is loaded and not used."""
        where, type, test = self.address(load.buffer, load.index), load.type, None
        for guard in load.guards:
            here = self.value(guard)
            test = here if test is None else self.result(f"and i1 {test}, {here}")
        if test is not None:
            start = self.pointers[load.buffer.name]
            where = self.result(f"select i1 {test}, ptr {where}, ptr {start}")
        memory = memory_type(type)
        if load.count == type.lanes:
            # A volatile load is not merged with others, and still becomes an operand of its user.
            word = "load volatile" if load.afresh else "load"
            text = f"{word} {type_of(memory)}, ptr {where}, align {memory.dtype.bytes}"
            value = self.result(text)
            self.loaded[value] = where
        else:
            other = vector_of(literal(load.otherwise, memory.dtype), memory)
            value = self.result(self.masked_load(memory, where, load.count, other))
        if memory != type:
            value = self.result(f"trunc {type_of(memory)} {value} to {type_of(type)}")
        if test is None:
            return value
        other = vector_of(literal(load.otherwise, type.dtype), type)
        text = type_of(type)
        return self.result(f"select i1 {test}, {text} {value}, {text} {other}")

    def value(self, value: Value) -> str:
        """Print what a value needs; its name, or the constant itself."""
        text = type_of(value.type)
        match value:
            case Const():
                return vector_of(literal(value.value, value.type.dtype), value.type)
            case Var():
                return self.lets[value.name]
            case Load():
                return self.load(value)
            case Get():
                where = self.register(value.registers, value.slot)
                return self.result(f"load {text}, ptr {where}")
            case Unary():
                return self.unary(value)
            case Binary():
                return self.binary(value)
            case Fma():
                parts = [self.value(v) for v in (value.a, value.b, value.c)]
                return self.intrinsic("fmuladd", value.type, parts)
            case Compare():
                a, b = self.value(value.a), self.value(value.b)
                return self.result(f"{_test(value)} {type_of(value.a.type)} {a}, {b}")
            case Select():
                test, yes, no = map(self.value, (value.condition, value.yes, value.no))
                return self.one_of(yes, no, test, value.type, value.condition.type)
            case Cast():
                return self.cast(self.value(value.x), value.x.type, value.type)
            case Splat():
                return self.splat(self.value(value.x), value.type)
            case Lane():
                return self.lane(self.value(value.x), value)
            case Shuffle():
                return self.shuffle(value)
            case Gather():
                return self.gather(value)
            case IndexAsValue():
                return self.index_as_value(value)
            case IndexTest():
                return self.test(value.op, value.a, value.b)
            case ReduceLanes():
                return self.reduce_lanes(value)

    def splat(self, scalar: str, type: ValueType) -> str:
        """A scalar in every lane."""
        if type.lanes == 1:
            return scalar
        text = type_of(type)
        one = self.result(f"insertelement {text} poison, {SCALARS[type.dtype]} {scalar}, i64 0")
        zeros = f"<{type.lanes} x i32> zeroinitializer"
        return self.result(f"shufflevector {text} {one}, {text} poison, {zeros}")

    def gather(self, gather: Gather) -> str:
        """A vector put together lane by lane."""
        text, scalar = type_of(gather.type), SCALARS[gather.type.dtype]
        vector = "poison"
        for lane, value in enumerate(gather.lanes):
            item = self.value(value)
            vector = self.result(f"insertelement {text} {vector}, {scalar} {item}, i64 {lane}")
        return vector

    def shuffle(self, value: Shuffle) -> str:
        """Lanes of two vectors."""
        a, b, text = self.value(value.a), self.value(value.b), type_of(value.a.type)
        lanes = ", ".join(f"i32 {lane}" for lane in value.lanes)
        return self.result(
            f"shufflevector {text} {a}, {text} {b}, <{len(value.lanes)} x i32> <{lanes}>"
        )

    def lane(self, x: str, value: Lane) -> str:
        """One element of a vector."""
        type = value.x.type
        if type.lanes == 1:
            return x
        return self.result(f"extractelement {type_of(type)} {x}, i64 {value.lane}")

    def lane_indices(self, base: Dim, step: int, type: ValueType) -> str:
        """base + lane * step in i64."""
        start = self.splat(self.index(base), type)
        if type.lanes == 1:
            return start
        offsets = ", ".join(f"i64 {lane * step}" for lane in range(type.lanes))
        return self.result(f"add {type_of(type)} {start}, <{offsets}>")

    def index_as_value(self, value: IndexAsValue) -> str:
        """An index as a number of the type."""
        integers = ValueType(DType.I64, value.type.lanes)
        at = self.lane_indices(value.index, value.step, integers)
        return self.cast(at, integers, value.type)

    def unary(self, value: Unary) -> str:
        """A primitive of one operand."""
        x, type = self.value(value.x), value.x.type
        text = type_of(type)
        match value.op:
            case "neg" if type.dtype.is_float:
                return self.result(f"fneg {text} {x}")
            case "neg":
                return self.result(f"sub {text} {vector_of('0', type)}, {x}")
            case "not":
                ones = "true" if type.dtype is DType.BOOL else "-1"
                return self.result(f"xor {text} {x}, {vector_of(ones, type)}")
            case "isnan":
                return self.result(f"fcmp uno {text} {x}, {x}")
            case "abs" if type.dtype.kind is Kind.UNSIGNED:
                return x
            case "abs" if not type.dtype.is_float:
                negative = self.result(f"sub {text} {vector_of('0', type)}, {x}")
                return self.intrinsic("smax", type, (x, negative))
            case "pow2" | "pow2_lifted" | "exponent" | "mantissa":
                return self.float_bits(value.op, x, type)
            case "order":
                return self.order(x, type)
            case _:
                return self.intrinsic(_INTRINSICS[value.op], type, (x,))

    def float_bits(self, op: str, x: str, type: ValueType) -> str:
        """Parts of a number. Whole numbers become bits and bits whole numbers by adding what has
        them in its last places: few processors convert vectors of 64-bit integers."""
        width, digits, bias = _FLOAT_FORMAT[type.dtype]
        lanes, text = type.lanes, type_of(type)
        integer = f"i{width}" if lanes == 1 else f"<{lanes} x i{width}>"

        def constant(number: int) -> str:
            return str(number) if lanes == 1 else f"splat (i{width} {number})"

        def number(value: float) -> str:
            return vector_of(literal(value, type.dtype), type)

        if op in ("pow2", "pow2_lifted"):
            if op == "pow2":
                x = self.result(f"fadd {text} {x}, {number(LIFTS[type.dtype])}")
            bits = self.result(f"bitcast {text} {x} to {integer}")
            shifted = self.result(f"shl {integer} {bits}, {constant(digits)}")
            return self.result(f"bitcast {integer} {shifted} to {text}")
        bits = self.result(f"bitcast {text} {x} to {integer}")
        if op == "exponent":
            shifted = self.result(f"lshr {integer} {bits}, {constant(digits)}")
            unit = constant((bias + digits) << digits)  # 2**digits
            whole = self.result(f"or {integer} {shifted}, {unit}")
            found = self.result(f"bitcast {integer} {whole} to {text}")
            return self.result(f"fsub {text} {found}, {number(2**digits + bias - 1)}")
        kept = self.result(f"and {integer} {bits}, {constant((1 << digits) - 1)}")
        half = self.result(f"or {integer} {kept}, {constant((bias - 1) << digits)}")
        return self.result(f"bitcast {integer} {half} to {text}")

    def order(self, x: str, type: ValueType) -> str:
        """Where numbers stand among all: of negative ones all bits but the sign are turned around.
        Adding a zero leaves one zero of the two."""
        width, lanes, text = _FLOAT_FORMAT[type.dtype][0], type.lanes, type_of(type)
        integer = f"i{width}" if lanes == 1 else f"<{lanes} x i{width}>"
        flags, whole = (type_of(ValueType(d, lanes)) for d in (DType.BOOL, DType.I64))

        def constant(number: int) -> str:
            return str(number) if lanes == 1 else f"splat (i{width} {number})"

        sum = self.result(f"fadd {text} {x}, {vector_of(literal(0.0, type.dtype), type)}")
        bits = self.result(f"bitcast {text} {sum} to {integer}")
        sign = self.result(f"ashr {integer} {bits}, {constant(width - 1)}")
        turned = self.result(f"lshr {integer} {sign}, {constant(1)}")
        ordered = self.result(f"xor {integer} {bits}, {turned}")
        none = self.result(f"fcmp uno {text} {sum}, {sum}")
        last = constant((1 << (width - 1)) - 1)
        found = self.result(f"select {flags} {none}, {integer} {last}, {integer} {ordered}")
        return found if width == 64 else self.result(f"sext {integer} {found} to {whole}")

    def binary(self, value: Binary) -> str:
        """A primitive of two operands."""
        a, b, type = self.value(value.a), self.value(value.b), value.type
        text, op = type_of(type), value.op
        if op in ("max", "min"):
            return self.extremum(value, a, b)
        if op == "copysign":
            return self.intrinsic(op, type, (a, b))
        if op == "scale":
            return self.scaled(value, a, b)
        if op == "lift":
            sum = vector_of(literal(LIFTS[type.dtype], type.dtype), type)
            return self.intrinsic("fmuladd", type, (a, b, sum))
        if type.dtype.is_float:
            return self.result(f"{_FLOAT_OPS[op]} {text} {a}, {b}")
        if op == "mul_hi":
            return self.upper_half(a, b, type.lanes)
        if op in ("shl", "shr"):
            return self.shift(value, a, b)
        if op == "quotient":
            sign = "s" if type.dtype.kind is Kind.SIGNED else "u"
            return self.result(f"{sign}div {text} {a}, {b}")
        return self.result(f"{_INT_OPS[op]} {text} {a}, {b}")

    def upper_half(self, a: str, b: str, lanes: int) -> str:
        """Of the product of two words, which a double word holds."""
        word, double = type_of(ValueType(DType.U32, lanes)), ValueType(DType.I64, lanes)
        text = type_of(double)
        wide = [self.result(f"zext {word} {x} to {text}") for x in (a, b)]
        whole = self.result(f"mul {text} {wide[0]}, {wide[1]}")
        upper = self.result(f"lshr {text} {whole}, {vector_of('32', double)}")
        return self.result(f"trunc {text} {upper} to {word}")

    def shift(self, value: Binary, a: str, b: str) -> str:
        """Words; LLVM has no meaning for shifts by 32 and more."""
        text, flags = type_of(value.type), type_of(ValueType(DType.BOOL, value.type.lanes))
        op = "shl" if value.op == "shl" else "lshr"
        shifted = self.result(f"{op} {text} {a}, {b}")
        if isinstance(value.b, Const) and 0 <= value.b.value < 32:
            return shifted
        short = self.result(f"icmp ult {text} {b}, {vector_of('32', value.type)}")
        zero = vector_of("0", value.type)
        return self.result(f"select {flags} {short}, {text} {shifted}, {text} {zero}")

    def scaled(self, value: Binary, x: str, n: str) -> str:
        """x * 2**n. AVX-512 has that for whole registers; elsewhere a factor of 2**n, but for the
        one exponent more than the largest, for which a factor of 1 + 1 stands."""
        type = value.type
        text, bytes = type_of(type), type.dtype.bytes * type.lanes
        own = self.target.vector_bytes
        if self.target.architecture == "x86_64" and own == 64 and bytes % own == 0:
            return self.scaled_whole(x, n, type, own // type.dtype.bytes)
        top = Const(float(_FLOAT_FORMAT[type.dtype][2]), type)
        first = self.extremum(Binary("min", top, value.b), self.value(top), n)
        product = self.result(f"fmul {text} {x}, {self.float_bits('pow2', first, type)}")
        over = self.result(f"fsub {text} {n}, {first}")
        more = self.result(f"fadd {text} {over}, {self.value(Const(1.0, type))}")
        return self.result(f"fmul {text} {product}, {more}")

    def scaled_whole(self, x: str, n: str, type: ValueType, lanes: int) -> str:
        """By AVX-512's instruction, whose registers have so many lanes each."""
        one = ValueType(type.dtype, lanes)
        text, mask = type_of(one), f"i{lanes}"
        name = f"@llvm.x86.avx512.mask.scalef.p{'s' if type.dtype is DType.F32 else 'd'}.512"
        self.declarations.add(f"declare {text} {name}({text}, {text}, {text}, {mask}, i32)")

        def call(x: str, n: str) -> str:
            parts = f"{text} {x}, {text} {n}, {text} zeroinitializer, {mask} -1, i32 4"
            return self.result(f"call {text} {name}({parts})")

        if type.lanes == lanes:
            return call(x, n)
        parts = [
            call(*(self.some_lanes(v, type, range(first, first + lanes)) for v in (x, n)))
            for first in range(0, type.lanes, lanes)
        ]
        count = lanes
        while len(parts) > 1:
            two = type_of(ValueType(type.dtype, count))
            order = ", ".join(f"i32 {lane}" for lane in range(2 * count))
            parts = [
                self.result(f"shufflevector {two} {a}, {two} {b}, <{2 * count} x i32> <{order}>")
                for a, b in zip(parts[::2], parts[1::2], strict=True)
            ]
            count *= 2
        return parts[0]

    def some_lanes(self, x: str, type: ValueType, lanes: Iterable[int]) -> str:
        """These lanes of a vector, as one."""
        text, order = type_of(type), ", ".join(f"i32 {lane}" for lane in lanes)
        return self.result(
            f"shufflevector {text} {x}, {text} poison, <{order.count('i32')} x i32> <{order}>"
        )

    def extremum(self, value: Binary, a: str, b: str) -> str:
        """max or min, handing NaN on."""
        type, op = value.type, value.op
        if not type.dtype.is_float:
            sign = "s" if type.dtype.kind is Kind.SIGNED else "u"
            return self.intrinsic(f"{sign}{op}", type, (a, b))
        constant = value.a if isinstance(value.a, Const) else value.b
        if isinstance(constant, Const) and constant.value == constant.value:
            # One compare-and-pick instruction; a NaN in the other operand passes through.
            fixed, other = (a, b) if constant is value.a else (b, a)
            test = "ogt" if op == "max" else "olt"
            wins = self.result(f"fcmp {test} {type_of(type)} {fixed}, {other}")
            return self.one_of(fixed, other, wins, type, ValueType(DType.BOOL, type.lanes))
        # Which of two zeros is the larger does not matter, and would take as long again.
        name = "maximum" if op == "max" else "minimum"
        found = self.intrinsic(name, type, (a, b), "nsz")
        self.picked[found] = (a, b)  # where a is a NaN, a
        return found

    def one_of(self, yes: str, no: str, test: str, type: ValueType, flags: ValueType) -> str:
        """One of two, as a test of type `flags` says."""
        text = type_of(type)
        found = self.result(f"select {type_of(flags)} {test}, {text} {yes}, {text} {no}")
        self.picked[found] = (yes, no)
        return found

    def reduce_lanes(self, value: ReduceLanes) -> str:
        """All lanes combined, in any order."""
        x, type = self.value(value.x), value.x.type
        if type.lanes == 1:
            return x
        if not type.dtype.is_float:
            name = _INT_REDUCTIONS[value.op]
            if type.dtype.kind is Kind.UNSIGNED:
                name = name.replace("s", "u")
            return self.reduced(name, x, type)
        if value.op in _FLOAT_REDUCTIONS:
            name, neutral = _FLOAT_REDUCTIONS[value.op]
            start = f"{SCALARS[type.dtype]} {literal(neutral, type.dtype)}"
            return self.reduced(name, x, type, start, "reassoc ")
        # Whether there is a NaN is asked once, not at every step.
        found = self.reduced(f"f{value.op}", x, type, flags="nnan nsz ")
        bits, mask = f"i{type.lanes}", type_of(ValueType(DType.BOOL, type.lanes))
        none = self.result(f"fcmp uno {type_of(type)} {x}, {x}")
        some = self.result(f"bitcast {mask} {none} to {bits}")
        some = self.result(f"icmp ne {bits} {some}, 0")
        scalar = SCALARS[type.dtype]
        nan = literal(math.nan, type.dtype)
        return self.result(f"select i1 {some}, {scalar} {nan}, {scalar} {found}")

    def reduced(self, name: str, x: str, type: ValueType, start: str = "", flags: str = "") -> str:
        """LLVM's reduction of a vector, from a start value on where it has one."""
        scalar, text = SCALARS[type.dtype], type_of(type)
        full = f"@llvm.vector.reduce.{name}.{suffix(type)}"
        before = f"{start}, " if start else ""
        signature = f"{scalar}, {text}" if start else text
        self.declarations.add(f"declare {scalar} {full}({signature})")
        return self.result(f"call {flags}{scalar} {full}({before}{text} {x})")
