"""Loop IR -> LLVM IR, as text, printed the plainest way.

Every register is an alloca, every address is computed from loop counters (what a block has
computed already is used again); LLVM's SROA and strength reduction do the rest
(docs/performance.md has the measurements). Serial
loops carry `llvm.loop.unroll.disable`: schedules unroll what is to be unrolled.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from fractions import Fraction

from convdsl.kernel.nodes import (
    Binary,
    Buffer,
    Cast,
    Compare,
    Const,
    Fma,
    For,
    Gather,
    Get,
    If,
    IndexAsValue,
    IndexTest,
    Kernel,
    LanesBelow,
    Let,
    Load,
    Parallel,
    Prefetch,
    ReduceLanes,
    Registers,
    Select,
    Set,
    Splat,
    Statement,
    Store,
    Unary,
    Value,
    ValueType,
    Var,
)
from convdsl.kernel.target import Target
from convdsl.tensor import Dim, DType, Symbol, SymDim, bounds
from convdsl.tensor.dim import Atom, Floor

_SCALARS = {DType.F32: "float", DType.F64: "double", DType.I64: "i64", DType.BOOL: "i1"}
_FLOAT_TESTS = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_INT_TESTS = {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "eq": "eq", "ne": "ne"}
_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_OPS = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_INTRINSICS = {"abs": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "round": "rint"}
# (bits, mantissa bits, exponent bias)
_FLOAT_FORMAT = {DType.F32: (32, 23, 127), DType.F64: (64, 52, 1023)}


def type_of(type: ValueType) -> str:
    scalar = _SCALARS[type.dtype]
    return scalar if type.lanes == 1 else f"<{type.lanes} x {scalar}>"


def _suffix(type: ValueType) -> str:
    """The mangling of an overloaded intrinsic."""
    scalar = {DType.F32: "f32", DType.F64: "f64", DType.I64: "i64", DType.BOOL: "i1"}[type.dtype]
    return scalar if type.lanes == 1 else f"v{type.lanes}{scalar}"


def _literal(value: float, dtype: DType) -> str:
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


def _vector_of(item: str, type: ValueType) -> str:
    """A constant with the same element in every lane."""
    if type.lanes == 1:
        return item
    scalar = _SCALARS[type.dtype]
    return f"<{', '.join([f'{scalar} {item}'] * type.lanes)}>"


class KernelPrinter:
    """Prints one kernel as an internal function; collects the intrinsics it declares."""

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

    def print(self) -> str:
        parameters = [
            f"ptr noalias nocapture {'' if b.written else 'readonly '}{self.pointers[b.name]}"
            for b in self.kernel.buffers
        ]
        for registers in self.kernel.registers:
            for slot in range(registers.count):
                self.alloca(self.register(registers, slot), type_of(registers.type))
        self.body(self.kernel.body)
        head = f"define internal void @{self.kernel.name}"
        head += f"({', '.join([*parameters, 'i64 %share', 'i64 %shares'])}) #0 {{"
        return "\n".join([head, "entry:", *self.allocas, *self.lines, "  ret void", "}"])

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
        full, text = f"@llvm.{name}.{_suffix(type)}", type_of(type)
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

    # Statements

    def body(self, body: Sequence[Statement]) -> None:
        for statement in body:
            match statement:
                case Let():
                    self.lets[statement.var.name] = self.value(statement.value)
                case Set():
                    where = self.register(statement.registers, statement.slot)
                    type = type_of(statement.registers.type)
                    self.put(f"store {type} {self.value(statement.value)}, ptr {where}")
                case Store():
                    self.store(statement)
                case Prefetch():
                    self.prefetch(statement)
                case For():
                    stop = self.index(statement.stop)
                    self.loop(statement.var.name, self.index(statement.start), stop, statement.body)
                case Parallel():
                    self.parallel(statement)
                case If():
                    self.branch(statement)

    def loop(self, name: str, start: str, stop: str, body: Sequence[Statement]) -> None:
        counter, index = self.open_loop(start, stop)
        self.indices[name] = index
        self.body(body)
        self.close_loop(counter, index)

    def open_loop(self, start: str, stop: str) -> tuple[str, str]:
        self.count += 1
        mark = self.count
        counter = f"%counter{mark}"
        self.alloca(counter, "i64")
        self.put(f"store i64 {start}, ptr {counter}")
        self.put(f"br label %head{mark}")
        self.label(f"head{mark}")
        index = self.result(f"load i64, ptr {counter}")
        go = self.result(f"icmp slt i64 {index}, {stop}")
        self.put(f"br i1 {go}, label %body{mark}, label %exit{mark}")
        self.label(f"body{mark}")
        self.computed.append({})
        return counter, index

    def close_loop(self, counter: str, index: str) -> None:
        self.computed.pop()
        mark = counter.removeprefix("%counter")
        self.put(f"store i64 {self.result(f'add nsw i64 {index}, 1')}, ptr {counter}")
        self.put(f"br label %head{mark}, !llvm.loop !0")
        self.label(f"exit{mark}")

    def parallel(self, loop: Parallel) -> None:
        total = math.prod(loop.extents)
        first = self.result(f"mul nuw i64 %share, {total}")
        past = self.result(f"mul nuw i64 {self.result('add nuw i64 %share, 1')}, {total}")
        start = self.result(f"udiv i64 {first}, %shares")
        stop = self.result(f"udiv i64 {past}, %shares")
        counter, flat = self.open_loop(start, stop)
        rest = flat
        for var, extent in reversed(list(zip(loop.vars, loop.extents, strict=True))[1:]):
            self.indices[var.name] = self.result(f"urem i64 {rest}, {extent}")
            rest = self.result(f"udiv i64 {rest}, {extent}")
        if loop.vars:
            self.indices[loop.vars[0].name] = rest
        self.body(loop.body)
        self.close_loop(counter, flat)

    def branch(self, branch: If) -> None:
        self.count += 1
        mark = self.count
        test = self.value(branch.test)
        self.put(f"br i1 {test}, label %then{mark}, label %else{mark}")
        for label, body in (("then", branch.then), ("else", branch.otherwise)):
            self.label(f"{label}{mark}")
            self.computed.append({})
            self.body(body)
            self.computed.pop()
            self.put(f"br label %end{mark}")
        self.label(f"end{mark}")

    # Memory

    def address(self, buffer: Buffer, index: str, inbounds: bool = True) -> str:
        scalar = "i8" if buffer.dtype is DType.BOOL else _SCALARS[buffer.dtype]
        base = self.pointers[buffer.name]
        word = "inbounds " if inbounds else ""
        return self.result(f"getelementptr {word}{scalar}, ptr {base}, i64 {index}")

    def store(self, store: Store) -> None:
        type, value = store.value.type, self.value(store.value)
        if store.valid is not None and store.valid < type.lanes:
            kept = ", ".join(f"i32 {lane}" for lane in range(store.valid))
            whole, type = type_of(type), ValueType(type.dtype, store.valid)
            value = self.result(
                f"shufflevector {whole} {value}, {whole} poison, <{store.valid} x i32> <{kept}>"
            )
            if type.lanes == 1:
                value = self.result(f"extractelement <1 x {_SCALARS[type.dtype]}> {value}, i64 0")
        where = self.address(store.buffer, self.index(store.index))
        if type.dtype is DType.BOOL:
            bytes_type = "i8" if type.lanes == 1 else f"<{type.lanes} x i8>"
            value = self.result(f"zext {type_of(type)} {value} to {bytes_type}")
            self.put(f"store {bytes_type} {value}, ptr {where}, align 1")
            return
        self.put(f"store {type_of(type)} {value}, ptr {where}, align {type.dtype.bytes}")

    def prefetch(self, prefetch: Prefetch) -> None:
        """Read, moderate locality (second-level cache), data."""
        where = self.address(prefetch.buffer, self.index(prefetch.index), inbounds=False)
        self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.put(f"call void @llvm.prefetch.p0(ptr {where}, i32 0, i32 2, i32 1)")

    def load(self, load: Load) -> str:
        index, type, test = self.index(load.index), load.type, None
        for guard in load.guards:
            here = self.value(guard)
            test = here if test is None else self.result(f"and i1 {test}, {here}")
        if test is not None:
            index = self.result(f"select i1 {test}, i64 {index}, i64 0")
        where = self.address(load.buffer, index)
        if type.dtype is DType.BOOL:
            bytes_type = "i8" if type.lanes == 1 else f"<{type.lanes} x i8>"
            byte = self.result(f"load {bytes_type}, ptr {where}, align 1")
            value = self.result(f"trunc {bytes_type} {byte} to {type_of(type)}")
        else:
            value = self.result(f"load {type_of(type)}, ptr {where}, align {type.dtype.bytes}")
        if test is None:
            return value
        other = _vector_of(_literal(load.otherwise, type.dtype), type)
        text = type_of(type)
        return self.result(f"select i1 {test}, {text} {value}, {text} {other}")

    # Values

    def value(self, value: Value) -> str:
        text = type_of(value.type)
        match value:
            case Const():
                return _vector_of(_literal(value.value, value.type.dtype), value.type)
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
                is_float = value.a.type.dtype.is_float
                test = (
                    f"fcmp {_FLOAT_TESTS[value.op]}" if is_float else f"icmp {_INT_TESTS[value.op]}"
                )
                return self.result(f"{test} {type_of(value.a.type)} {a}, {b}")
            case Select():
                test, yes, no = map(self.value, (value.condition, value.yes, value.no))
                kind = type_of(value.condition.type)
                return self.result(f"select {kind} {test}, {text} {yes}, {text} {no}")
            case Cast():
                return self.cast(value)
            case Splat():
                return self.splat(self.value(value.x), value.type)
            case Gather():
                return self.gather(value)
            case IndexAsValue():
                return self.index_as_value(value)
            case IndexTest():
                a, b = self.index(value.a), self.index(value.b)
                return self.result(f"icmp {_INT_TESTS[value.op]} i64 {a}, {b}")
            case LanesBelow():
                lanes = ValueType(DType.I64, value.type.lanes)
                at = self.lane_indices(value.base, value.step, lanes)
                limit = self.splat(self.index(value.limit), lanes)
                return self.result(f"icmp slt {type_of(lanes)} {at}, {limit}")
            case ReduceLanes():
                return self.reduce_lanes(value)

    def splat(self, scalar: str, type: ValueType) -> str:
        if type.lanes == 1:
            return scalar
        text = type_of(type)
        one = self.result(f"insertelement {text} poison, {_SCALARS[type.dtype]} {scalar}, i64 0")
        zeros = f"<{type.lanes} x i32> zeroinitializer"
        return self.result(f"shufflevector {text} {one}, {text} poison, {zeros}")

    def gather(self, gather: Gather) -> str:
        text, scalar = type_of(gather.type), _SCALARS[gather.type.dtype]
        vector = "poison"
        for lane, value in enumerate(gather.lanes):
            item = self.value(value)
            vector = self.result(f"insertelement {text} {vector}, {scalar} {item}, i64 {lane}")
        return vector

    def lane_indices(self, base: Dim, step: int, type: ValueType) -> str:
        start = self.splat(self.index(base), type)
        if type.lanes == 1:
            return start
        offsets = ", ".join(f"i64 {lane * step}" for lane in range(type.lanes))
        return self.result(f"add {type_of(type)} {start}, <{offsets}>")

    def index_as_value(self, value: IndexAsValue) -> str:
        integers = ValueType(DType.I64, value.type.lanes)
        at = self.lane_indices(value.index, value.step, integers)
        if value.type.dtype is DType.I64:
            return at
        return self.result(f"sitofp {type_of(integers)} {at} to {type_of(value.type)}")

    def unary(self, value: Unary) -> str:
        x, type = self.value(value.x), value.x.type
        text = type_of(type)
        match value.op:
            case "neg" if type.dtype.is_float:
                return self.result(f"fneg {text} {x}")
            case "neg":
                return self.result(f"sub {text} {_vector_of('0', type)}, {x}")
            case "not":
                return self.result(f"xor {text} {x}, {_vector_of('true', type)}")
            case "isnan":
                return self.result(f"fcmp uno {text} {x}, {x}")
            case "abs" if not type.dtype.is_float:
                negative = self.result(f"sub {text} {_vector_of('0', type)}, {x}")
                return self.intrinsic("smax", type, (x, negative))
            case "pow2" | "exponent" | "mantissa":
                return self.float_bits(value.op, x, type)
            case _:
                return self.intrinsic(_INTRINSICS[value.op], type, (x,))

    def float_bits(self, op: str, x: str, type: ValueType) -> str:
        width, digits, bias = _FLOAT_FORMAT[type.dtype]
        lanes, text = type.lanes, type_of(type)
        integer = f"i{width}" if lanes == 1 else f"<{lanes} x i{width}>"

        def constant(number: int) -> str:
            items = ", ".join([f"i{width} {number}"] * lanes)
            return str(number) if lanes == 1 else f"<{items}>"

        if op == "pow2":
            # Of NaN: any bits at all, but the same ones for every use.
            converted = self.result(f"fptosi {text} {x} to {integer}")
            whole = self.result(f"freeze {integer} {converted}")
            biased = self.result(f"add {integer} {whole}, {constant(bias)}")
            shifted = self.result(f"shl {integer} {biased}, {constant(digits)}")
            return self.result(f"bitcast {integer} {shifted} to {text}")
        bits = self.result(f"bitcast {text} {x} to {integer}")
        if op == "exponent":
            shifted = self.result(f"lshr {integer} {bits}, {constant(digits)}")
            whole = self.result(f"sub {integer} {shifted}, {constant(bias - 1)}")
            return self.result(f"sitofp {integer} {whole} to {text}")
        kept = self.result(f"and {integer} {bits}, {constant((1 << digits) - 1)}")
        half = self.result(f"or {integer} {kept}, {constant((bias - 1) << digits)}")
        return self.result(f"bitcast {integer} {half} to {text}")

    def binary(self, value: Binary) -> str:
        a, b, type = self.value(value.a), self.value(value.b), value.type
        text, op = type_of(type), value.op
        if op in ("max", "min"):
            return self.extremum(value, a, b)
        if type.dtype.is_float and op == "mod":
            rest = self.result(f"frem {text} {a}, {b}")
            zero = _vector_of(_literal(0.0, type.dtype), type)
            product = self.result(f"fmul {text} {rest}, {b}")
            flags = ValueType(DType.BOOL, type.lanes)
            wrong = self.result(f"fcmp olt {text} {product}, {zero}")
            moved = self.result(f"fadd {text} {rest}, {b}")
            return self.result(f"select {type_of(flags)} {wrong}, {text} {moved}, {text} {rest}")
        if type.dtype.is_float:
            return self.result(f"{_FLOAT_OPS[op]} {text} {a}, {b}")
        if op in ("div", "mod"):
            return self.integer_division(op, a, b, text)
        return self.result(f"{_INT_OPS[op]} {text} {a}, {b}")

    def integer_division(self, op: str, a: str, b: str, text: str) -> str:
        """div truncates as C does; mod takes the sign of the divisor as NumPy does."""
        if op == "div":
            return self.result(f"sdiv {text} {a}, {b}")
        rest = self.result(f"srem {text} {a}, {b}")
        moved = self.result(f"add {text} {rest}, {b}")
        return self.result(f"srem {text} {moved}, {b}")

    def extremum(self, value: Binary, a: str, b: str) -> str:
        type, op = value.type, value.op
        if not type.dtype.is_float:
            return self.intrinsic(f"s{op}", type, (a, b))
        constant = value.a if isinstance(value.a, Const) else value.b
        if isinstance(constant, Const) and constant.value == constant.value:
            # One compare-and-pick instruction; a NaN in the other operand passes through.
            fixed, other = (a, b) if constant is value.a else (b, a)
            test = "ogt" if op == "max" else "olt"
            text, flags = type_of(type), type_of(ValueType(DType.BOOL, type.lanes))
            wins = self.result(f"fcmp {test} {text} {fixed}, {other}")
            return self.result(f"select {flags} {wins}, {text} {fixed}, {text} {other}")
        return self.intrinsic("maximum" if op == "max" else "minimum", type, (a, b))

    def cast(self, value: Cast) -> str:
        x, old, new = self.value(value.x), value.x.type, value.type
        if old.dtype is new.dtype:
            return x
        if new.dtype is DType.BOOL:
            zero = _vector_of(_literal(0, old.dtype), old)
            test = "fcmp une" if old.dtype.is_float else "icmp ne"
            return self.result(f"{test} {type_of(old)} {x}, {zero}")
        if old.dtype is DType.BOOL:
            op = "uitofp" if new.dtype.is_float else "zext"
        elif old.dtype is DType.I64:
            op = "sitofp"
        elif new.dtype is DType.I64:
            op = "fptosi"
        else:
            op = "fpext" if new.dtype is DType.F64 else "fptrunc"
        return self.result(f"{op} {type_of(old)} {x} to {type_of(new)}")

    def reduce_lanes(self, value: ReduceLanes) -> str:
        x, type = self.value(value.x), value.x.type
        scalar, text = _SCALARS[type.dtype], type_of(type)
        if type.lanes == 1:
            return x
        if value.op == "sum":
            name, start, flags = "fadd", f"{scalar} {_literal(-0.0, type.dtype)}, ", "reassoc "
            signature = f"{scalar}, {text}"
        else:
            name, start, flags = f"f{value.op}imum", "", ""
            signature = text
        full = f"@llvm.vector.reduce.{name}.{_suffix(type)}"
        self.declarations.add(f"declare {scalar} {full}({signature})")
        return self.result(f"call {flags}{scalar} {full}({start}{text} {x})")


def attributes_of(target: Target) -> str:
    """The attribute group that all functions share."""
    width = target.vector_bytes * 8
    return (
        f'attributes #0 = {{ nounwind "target-cpu"="{target.cpu}" '
        f'"target-features"="{target.features}" '
        f'"prefer-vector-width"="{width}" "min-legal-vector-width"="{width}" }}'
    )
