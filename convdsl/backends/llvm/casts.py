"""Casts between all element types, as `tensor.conversion` defines them.

f16 and bf16 are the 16-bit integers that hold them until they are widened. Processors that have an
instruction for f16 convert by it; the arithmetic of bits below needs none, and rounds as NumPy and
those instructions do.
"""

from __future__ import annotations

from convdsl.backends.llvm.text import Printer, literal, suffix, type_of, vector_of
from convdsl.kernel.nodes import ValueType
from convdsl.tensor import DType, Kind

_HALVES = (DType.F16, DType.BF16)


class CastPrinter(Printer):
    """Prints conversions of values."""

    def cast(self, x: str, old: ValueType, new: ValueType) -> str:
        """The name of `x` as another element type."""
        if old.dtype in _HALVES and old.dtype is not new.dtype:
            widen = self._widened_f16 if old.dtype is DType.F16 else self._widened_bf16
            return self.cast(widen(x, old.lanes), ValueType(DType.F32, old.lanes), new)
        if old.dtype is new.dtype:
            return x
        if new.dtype is DType.BOOL:
            zero = vector_of(literal(0, old.dtype), old)
            test = "fcmp une" if old.dtype.is_float else "icmp ne"
            return self.result(f"{test} {type_of(old)} {x}, {zero}")
        if new.dtype in _HALVES:
            return self._to_half(x, old, new)
        if new.dtype.is_float:
            return self._to_float(x, old, new)
        return self._to_integer(x, old, new)

    def _to_float(self, x: str, old: ValueType, new: ValueType) -> str:
        if old.dtype.is_float:
            op = "fpext" if new.dtype is DType.F64 else "fptrunc"
        else:
            op = "sitofp" if old.dtype.kind is Kind.SIGNED else "uitofp"
        return self.result(f"{op} {type_of(old)} {x} to {type_of(new)}")

    def _to_integer(self, x: str, old: ValueType, new: ValueType) -> str:
        """Floats by way of i64, whose ends stand for all beyond; integers keep their low bits."""
        if old.dtype is DType.F32 and old.lanes > 1 and new.dtype.bytes <= 4:
            word = ValueType(DType.I32, old.lanes)
            return self._to_integer(self._low_word(x, old, word), word, new)
        if old.dtype.is_float:
            whole = ValueType(DType.I64, old.lanes)
            return self._to_integer(self._whole(x, old, whole), whole, new)
        if old.dtype is not DType.BOOL and old.dtype.bytes == new.dtype.bytes:
            return x
        if old.dtype is not DType.BOOL and old.dtype.bytes > new.dtype.bytes:
            op = "trunc"
        else:
            op = "sext" if old.dtype.kind is Kind.SIGNED else "zext"
        return self.result(f"{op} {type_of(old)} {x} to {type_of(new)}")

    def _whole(self, x: str, old: ValueType, new: ValueType) -> str:
        """The i64 of a float. LLVM's own saturating conversion takes lanes one by one; a plain one
        is an instruction where there is one, and says nothing of lanes that are not chosen."""
        if old.lanes == 1:
            name = f"@llvm.fptosi.sat.{suffix(new)}.{suffix(old)}"
            call = f"{type_of(new)} {name}({type_of(old)}"
            self.declarations.add(f"declare {call})")
            return self.result(f"call {call} {x})")
        zero = vector_of(literal(0.0, old.dtype), old)
        text = type_of(old)
        plain = self.result(f"fptosi {text} {x} to {type_of(new)}")
        below = self.result(f"fcmp olt {text} {x}, {zero}")
        above = self.result(f"fcmp ogt {text} {x}, {zero}")
        ends = self._one_of(below, int(DType.I64.lowest), 0, new)
        ends = self._one_of(above, int(DType.I64.highest), ends, new)
        return self._one_of(self._is_below(x, 2.0**63, old), plain, ends, new)

    def _low_word(self, x: str, old: ValueType, new: ValueType) -> str:
        """The low 32 bits of the i64 of an f32, without any i64. From 2**31 on an f32 is a whole
        number, of which the nearest multiple of 2**32 is taken away; nothing of it is rounded. From
        2**55 on there is nothing left."""
        lanes = old.lanes
        pages = self._float_op("fmul", x, 2.0**-32, lanes)
        nearest = self.intrinsic("floor", old, (self._float_op("fadd", pages, 0.5, lanes),))
        beyond = self._float_op("fmul", nearest, 2.0**32, lanes)
        left = self.result(f"fsub {type_of(old)} {x}, {beyond}")
        picked = self._one_of(self._is_below(x, 2.0**31, old), x, left, old)
        plain = self.result(f"fptosi {type_of(old)} {picked} to {type_of(new)}")
        high = self._float_op("fcmp oge", x, 2.0**63, lanes)
        ends = self._one_of(high, -1, 0, new)
        return self._one_of(self._is_below(x, 2.0**55, old), plain, ends, new)

    def _is_below(self, x: str, size: float, type: ValueType) -> str:
        """Whether |x| is; of NaN it is not."""
        bound = vector_of(literal(size, type.dtype), type)
        return self.result(
            f"fcmp olt {type_of(type)} {self.intrinsic('fabs', type, (x,))}, {bound}"
        )

    def _one_of(self, test: str, yes: str | int, no: str | int, type: ValueType) -> str:
        flags = ValueType(DType.BOOL, type.lanes)
        arms = [
            f"{type_of(type)} {vector_of(str(arm), type) if isinstance(arm, int) else arm}"
            for arm in (yes, no)
        ]
        return self.result(f"select {type_of(flags)} {test}, {', '.join(arms)}")

    def _to_half(self, x: str, old: ValueType, new: ValueType) -> str:
        lanes = new.lanes
        narrow = self._narrowed_f16 if new.dtype is DType.F16 else self._narrowed_bf16
        if old.dtype is DType.F64:
            return narrow(self._rounded_to_odd(x, lanes), lanes)
        single = ValueType(DType.F32, lanes)
        return narrow(self._bits(self.cast(x, old, single), lanes), lanes)

    # Bits of f32 as i32

    def _op(self, op: str, a: str, b: str | int, lanes: int) -> str:
        word = ValueType(DType.U32, lanes)
        other = vector_of(str(b), word) if isinstance(b, int) else b
        return self.result(f"{op} {type_of(word)} {a}, {other}")

    def _bits(self, x: str, lanes: int) -> str:
        single, word = ValueType(DType.F32, lanes), ValueType(DType.U32, lanes)
        return self.result(f"bitcast {type_of(single)} {x} to {type_of(word)}")

    def _float(self, bits: str, lanes: int) -> str:
        single, word = ValueType(DType.F32, lanes), ValueType(DType.U32, lanes)
        return self.result(f"bitcast {type_of(word)} {bits} to {type_of(single)}")

    def _pick(self, test: str, yes: str | int, no: str | int, lanes: int) -> str:
        return self._one_of(test, yes, no, ValueType(DType.U32, lanes))

    def _wide(self, x: str, lanes: int) -> str:
        half, word = ValueType(DType.F16, lanes), ValueType(DType.U32, lanes)
        return self.result(f"zext {type_of(half)} {x} to {type_of(word)}")

    def _half(self, bits: str, lanes: int) -> str:
        half, word = ValueType(DType.F16, lanes), ValueType(DType.U32, lanes)
        return self.result(f"trunc {type_of(word)} {bits} to {type_of(half)}")

    def _float_op(self, op: str, a: str, b: float, lanes: int) -> str:
        single = ValueType(DType.F32, lanes)
        other = vector_of(literal(b, DType.F32), single)
        return self.result(f"{op} {type_of(single)} {a}, {other}")

    def _widened_bf16(self, x: str, lanes: int) -> str:
        return self._float(self._op("shl", self._wide(x, lanes), 16, lanes), lanes)

    def _narrowed_bf16(self, bits: str, lanes: int) -> str:
        """Half a unit added, less where the last digit kept is even; NaN is made quiet."""
        top = self._op("lshr", bits, 16, lanes)
        half = self._op("add", self._op("and", top, 1, lanes), 0x7FFF, lanes)
        nearest = self._op("lshr", self._op("add", bits, half, lanes), 16, lanes)
        size = self._op("and", bits, 0x7FFFFFFF, lanes)
        is_nan = self._op("icmp ugt", size, 0x7F800000, lanes)
        quiet = self._op("or", top, 0x40, lanes)
        return self._half(self._pick(is_nan, quiet, nearest, lanes), lanes)

    def _widened_f16(self, x: str, lanes: int) -> str:
        """The exponent moved from bias 15 to 127; infinities and NaN moved on, denormals made
        normal by a subtraction."""
        if self.target.halves:
            half, single = _half_type(lanes), type_of(ValueType(DType.F32, lanes))
            known = f"bitcast {type_of(ValueType(DType.F16, lanes))} {x} to {half}"
            return self.result(f"fpext {half} {self.result(known)} to {single}")
        word = self._wide(x, lanes)
        shifted = self._op("shl", self._op("and", word, 0x7FFF, lanes), 13, lanes)
        exponent = self._op("and", shifted, 0x1F << 23, lanes)
        normal = self._op("add", shifted, 112 << 23, lanes)
        special = self._op("add", normal, 112 << 23, lanes)
        raised = self._float(self._op("add", normal, 1 << 23, lanes), lanes)
        denormal = self._bits(self._float_op("fsub", raised, 2.0**-14, lanes), lanes)
        is_special = self._op("icmp eq", exponent, 0x1F << 23, lanes)
        is_small = self._op("icmp eq", exponent, 0, lanes)
        size = self._pick(is_special, special, normal, lanes)
        size = self._pick(is_small, denormal, size, lanes)
        sign = self._op("shl", self._op("and", word, 0x8000, lanes), 16, lanes)
        return self._float(self._op("or", size, sign, lanes), lanes)

    def _narrowed_f16(self, bits: str, lanes: int) -> str:
        """As for bf16; results below 2**-14 are rounded by an addition that puts their unit at
        the end of the mantissa."""
        if self.target.halves:
            half, word = _half_type(lanes), type_of(ValueType(DType.F16, lanes))
            single = type_of(ValueType(DType.F32, lanes))
            near = self.result(f"fptrunc {single} {self._float(bits, lanes)} to {half}")
            return self.result(f"bitcast {half} {near} to {word}")
        sign = self._op("and", bits, 1 << 31, lanes)
        size = self._op("xor", bits, sign, lanes)
        last = self._op("and", self._op("lshr", size, 13, lanes), 1, lanes)
        rebased = self._op("sub", size, (112 << 23) - 0xFFF, lanes)
        normal = self._op("lshr", self._op("add", rebased, last, lanes), 13, lanes)
        aligned = self._bits(self._float_op("fadd", self._float(size, lanes), 0.5, lanes), lanes)
        small = self._op("sub", aligned, 126 << 23, lanes)
        special = self._pick(self._op("icmp ugt", size, 0x7F800000, lanes), 0x7E00, 0x7C00, lanes)
        value = self._pick(self._op("icmp ult", size, 113 << 23, lanes), small, normal, lanes)
        value = self._pick(self._op("icmp uge", size, 143 << 23, lanes), special, value, lanes)
        return self._half(self._op("or", value, self._op("lshr", sign, 16, lanes), lanes), lanes)

    def _rounded_to_odd(self, x: str, lanes: int) -> str:
        """The bits of an f64 in f32, such that rounding them again rounds it once."""
        double, single = ValueType(DType.F64, lanes), ValueType(DType.F32, lanes)
        near = self.result(f"fptrunc {type_of(double)} {x} to {type_of(single)}")
        back = self.result(f"fpext {type_of(single)} {near} to {type_of(double)}")
        bits = self._bits(near, lanes)
        sizes = [self.intrinsic("fabs", double, (value,)) for value in (back, x)]
        above = self.result(f"fcmp ogt {type_of(double)} {sizes[0]}, {sizes[1]}")
        exact = self.result(f"fcmp ueq {type_of(double)} {back}, {x}")
        cut = self._pick(above, self._op("sub", bits, 1, lanes), bits, lanes)
        return self._pick(exact, bits, self._op("or", cut, 1, lanes), lanes)


def _half_type(lanes: int) -> str:
    """f16 as LLVM knows it."""
    return "half" if lanes == 1 else f"<{lanes} x half>"
