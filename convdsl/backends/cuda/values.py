"""Values of the loop IR as CUDA C: a vector is its lanes, one expression each.

What is needed more than once is named where it is first needed. Types that are only stored (f16,
i8 ...) are moved and cast, never computed with. Two halves that came as one word go on as one.
"""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.backends.cuda.text import (
    HALVES,
    TYPES,
    VECTORS,
    WORDS,
    divisible,
    index,
    index_type,
    literal,
    name_of,
)
from convdsl.kernel.nodes import (
    Binary,
    Buffer,
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
    Var,
)
from convdsl.kernel.scalar import FUNCTIONS, REDUCTIONS
from convdsl.tensor import Dim, DType, Kind

_CALLS = {
    ("add", DType.I64): "add",
    ("sub", DType.I64): "sub",
    ("mul", DType.I64): "mul",
    ("neg", DType.I64): "negated",
    ("abs", DType.I64): "absolute",
    ("mul_hi", DType.U32): "upper_half",
    ("shl", DType.U32): "shifted_left",
    ("shr", DType.U32): "shifted_right",
    **{
        (name, dtype): call + ("f" if dtype is DType.F32 else "")
        for name, call in {
            "abs": "fabs",
            "sqrt": "sqrt",
            "floor": "floor",
            "ceil": "ceil",
            "round": "rint",
            "copysign": "copysign",
        }.items()
        for dtype in (DType.F32, DType.F64)
    },
    **{
        (name, dtype): call
        for name, call in {
            "max": "maximum",
            "min": "minimum",
            "pow2": "power_of_two",
            "lift": "lifted",
            "pow2_lifted": "power_of_lifted",
            "scale": "scaled",
            "exponent": "exponent",
            "mantissa": "mantissa",
            "order": "order",
        }.items()
        for dtype in (DType.F32, DType.F64)
    },
    **{
        (name, dtype): call
        for name, call in {"max": "largest", "min": "least"}.items()
        for dtype in (DType.I64, DType.U32)
    },
}
"""Functions that C has no sign for, by operation and element type."""

_SIGNS = {"quotient": "/", "and": "&", "or": "|", "xor": "^"}
_LANES = "xyzw"
_VECTOR_BYTES = 16


class ValuePrinter:
    """Expressions, and the lines that they need before them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 1
        self.words: dict[tuple[str, str], str] = {}  # two halves that are also one word
        self._count = 0

    def put(self, text: str) -> None:
        """Write a line."""
        self.lines.append(f"{'    ' * self.depth}{text}")

    def named(self, text: str, type: str) -> str:
        """A name for a value that is used more than once."""
        self._count += 1
        name = f"t{self._count}"
        self.put(f"const {type} {name} = {text};")
        return name

    def value(self, value: Value) -> list[str]:
        """An expression for each lane."""
        lanes, dtype = value.type.lanes, value.type.dtype
        match value:
            case Const():
                return [literal(value.value, dtype)] * lanes
            case Var():
                return lanes_of(value.name, lanes)
            case Load():
                return self.load(value)
            case Get():
                first, name = value.slot * lanes, name_of(value.registers.name)
                return [f"{name}[{first + lane}]" for lane in range(lanes)]
            case Gather():
                return [self.scalar(item) for item in value.lanes]
            case Splat():
                return [self.once(value.x)] * lanes
            case Lane():
                return [self.value(value.x)[value.lane]]
            case Shuffle():
                both = self.value(value.a) + self.value(value.b)
                return [both[lane] for lane in value.lanes]
            case IndexAsValue():
                return self.indices(value)
            case IndexTest():
                return [self.test(value)]
            case ReduceLanes():
                return [self.combined(value)]
            case _:
                return self.computed(value)

    def scalar(self, value: Value) -> str:
        """The expression of a scalar."""
        (text,) = self.value(value)
        return text

    def once(self, value: Value) -> str:
        """The same, named unless it is a name or a number."""
        text = self.scalar(value)
        plain = isinstance(value, Const | Var | Get)
        return text if plain else self.named(text, TYPES[value.type.dtype])

    def test(self, test: IndexTest) -> str:
        """A comparison of indices."""
        return f"({index(test.a)} {FUNCTIONS[test.op].sign} {index(test.b)})"

    def tests(self, tests: Sequence[IndexTest]) -> list[str]:
        """Comparisons of indices that must all hold. That one lies in 0 .. n - 1 is one of them, of
        numbers without signs."""
        starts = {test.a for test in tests if test.op == "ge" and test.b == 0}
        ends = {t.a: t.b for t in tests if t.op == "lt" and t.a in starts and isinstance(t.b, int)}
        found: list[str] = []
        for test in tests:
            end = ends.get(test.a)
            if end is None or (test.op, test.b) not in (("ge", 0), ("lt", end)):
                found.append(self.test(test))
            elif test.op == "lt":
                type = "u64" if index_type(test.a) == "i64" else "u32"
                found.append(f"(({type})({index(test.a)}) < {end}u)")
        return found

    def computed(self, value: Value) -> list[str]:
        """What is computed lane by lane."""
        dtype = value.type.dtype
        match value:
            case Unary():
                old = value.x.type.dtype
                return [unary(value.op, x, old) for x in self.value(value.x)]
            case Binary() | Compare():
                old, pairs = (
                    value.a.type.dtype,
                    zip(self.value(value.a), self.value(value.b), strict=True),
                )
                return [binary(value.op, a, b, old) for a, b in pairs]
            case Fma():
                call = "fmaf" if dtype is DType.F32 else "fma"
                parts = zip(*map(self.value, (value.a, value.b, value.c)), strict=True)
                return [f"{call}({', '.join(part)})" for part in parts]
            case Select():
                tests = self.value(value.condition)
                tests = (
                    [self.once(value.condition)] * value.type.lanes if len(tests) == 1 else tests
                )
                arms = zip(tests, self.value(value.yes), self.value(value.no), strict=True)
                return [f"({test} ? {yes} : {no})" for test, yes, no in arms]
            case Cast():
                old = value.x.type.dtype
                return [cast(x, old, dtype) for x in self.value(value.x)]
            case _:
                raise TypeError(f"{type(value).__name__} is not computed lane by lane")

    def combined(self, value: ReduceLanes) -> str:
        """All lanes, in pairs."""
        parts, dtype = self.value(value.x), value.type.dtype
        combine = REDUCTIONS[value.op].combine
        while len(parts) > 1:
            half = (len(parts) + 1) // 2
            rest = parts[half:]
            joined = [binary(combine, a, b, dtype) for a, b in zip(parts, rest, strict=False)]
            parts = joined + parts[len(rest) : half]
        return parts[0]

    def indices(self, value: IndexAsValue) -> list[str]:
        """index + lane * step as numbers."""
        steps = (value.index + lane * value.step for lane in range(value.type.lanes))
        return [cast(f"(i64)({index(at)})", DType.I64, value.type.dtype) for at in steps]

    # Memory

    def element(self, buffer: Buffer, at: Dim) -> str:
        """An element as it lies in memory."""
        return f"{name_of(buffer.name)}[{index(at)}]"

    def load(self, load: Load) -> list[str]:
        """Elements; where a guard fails nothing is read."""
        lanes, dtype = load.type.lanes, load.type.dtype
        tests = " && ".join(self.tests(load.guards))
        other = literal(load.otherwise, dtype)
        if lanes == 1:
            found = as_value(self.element(load.buffer, load.index), dtype)
            return [f"({tests} ? {found} : {other})" if tests else found]
        name, count = self._fresh_lanes(dtype, lanes), load.count
        for lane in range(count, lanes):
            self.put(f"{name}{lane} = {other};")
        if not tests:
            self._read(load, name, count)
        else:
            self.put(f"if ({tests}) {{")
            self.depth += 1
            self._read(load, name, count)
            self.depth -= 1
            self.put("} else {")
            for lane in range(count):
                self.put(f"    {name}{lane} = {other};")
            self.put("}")
        return [f"{name}{lane}" for lane in range(lanes)]

    def _fresh_lanes(self, dtype: DType, lanes: int) -> str:
        self._count += 1
        name = f"t{self._count}_"
        self.put(f"{TYPES[dtype]} {', '.join(f'{name}{lane}' for lane in range(lanes))};")
        return name

    def _read(self, load: Load, name: str, lanes: int) -> None:
        """Assign the lanes, several at a time where they lie so that a vector can be loaded."""
        dtype = load.type.dtype
        for first, width in pieces(load.buffer, load.index, lanes):
            at = self.element(load.buffer, load.index + first)
            if width == 1:
                self.put(f"{name}{first} = {as_value(at, dtype)};")
                continue
            vector = self.named(
                f"*(const {vector_type(dtype, width)}*)&{at}", vector_type(dtype, width)
            )
            for lane, bits in enumerate(_elements(vector, dtype, width)):
                self.put(f"{name}{first + lane} = {from_bits(bits, dtype)};")
            if dtype in HALVES and not load.guards:  # else the word is known inside a branch only
                for word, lane in zip(_words(vector, width), range(first, lanes, 2), strict=False):
                    self.words[f"{name}{lane}", f"{name}{lane + 1}"] = word

    def write(self, buffer: Buffer, at: Dim, values: Sequence[str], dtype: DType) -> None:
        """Store lanes side by side."""
        for first, width in pieces(buffer, at, len(values)):
            where = self.element(buffer, at + first)
            if width == 1:
                self.put(f"{where} = {values[first]};")
                continue
            vector, own = vector_type(dtype, width), values[first : first + width]
            if dtype in HALVES:
                parts = [self.word(*own[lane : lane + 2]) for lane in range(0, width, 2)]
            else:
                parts = [to_bits(value, dtype) for value in own]
            made = f"make_{vector}({', '.join(parts)})" if len(parts) > 1 else parts[0]
            self.put(f"*({vector}*)&{where} = {made};")

    def word(self, lower: str, upper: str) -> str:
        """Two halves as one."""
        return self.words.get((lower, upper)) or f"((u32){lower} | (u32){upper} << 16)"


def lanes_of(name: str, lanes: int) -> list[str]:
    """The names of a vector's lanes."""
    if lanes == 1:
        return [name_of(name)]
    return [f"{name_of(name)}{lane}" for lane in range(lanes)]


def pieces(buffer: Buffer, at: Dim, lanes: int) -> list[tuple[int, int]]:
    """(first lane, lanes) of the accesses that a run of elements takes: vectors of up to sixteen
    bytes where the address is a multiple of their size, as buffers begin at such."""
    found: list[tuple[int, int]] = []
    first = 0
    while first < lanes:
        width = next(
            width
            for width in (8 if buffer.dtype in HALVES else 4, 4, 2, 1)
            if width == 1
            or (
                first + width <= lanes
                and width * buffer.dtype.bytes <= _VECTOR_BYTES
                and divisible(at + first, width)
            )
        )
        found.append((first, width))
        first += width
    return found


def vector_type(dtype: DType, width: int) -> str:
    """CUDA's vector with the same number of bytes."""
    if dtype in HALVES:
        return WORDS[width]
    return f"{VECTORS[dtype.bytes]}{width}"


def _elements(vector: str, dtype: DType, width: int) -> list[str]:
    """The elements of such a vector, as it holds them."""
    if dtype not in HALVES:
        return [f"{vector}.{lane}" for lane in _LANES[:width]]
    halves = (half for word in _words(vector, width) for half in (word, f"{word} >> 16"))
    return [f"({TYPES[dtype]})({half})" for half in halves]


def _words(vector: str, width: int) -> list[str]:
    """The words of so many halves."""
    return [vector] if width == 2 else [f"{vector}.{lane}" for lane in _LANES[: width // 2]]


def from_bits(text: str, dtype: DType) -> str:
    """An element of such a vector as a value."""
    match dtype:
        case DType.F32 | DType.TF32 | DType.F64 | DType.F16 | DType.BF16 | DType.U8:
            return text
        case DType.I64:
            return f"__double_as_longlong({text})"
        case DType.U32 | DType.I32:
            return f"({TYPES[dtype]})__float_as_int({text})"
        case DType.I8 | DType.BOOL:
            return f"(({TYPES[dtype]}){text})"


def to_bits(text: str, dtype: DType) -> str:
    """A value as an element of such a vector."""
    match dtype:
        case DType.I64:
            return f"__longlong_as_double({text})"
        case DType.U32 | DType.I32:
            return f"__int_as_float((int){text})"
        case DType.I8 | DType.BOOL:
            return f"(u8){text}"
        case _:
            return text


def as_value(text: str, dtype: DType) -> str:
    """An element in memory as a value."""
    return f"({text} != 0)" if dtype is DType.BOOL else text


def unary(op: str, x: str, dtype: DType) -> str:
    """A primitive of one operand."""
    if (op, dtype) in _CALLS:
        return f"{_CALLS[op, dtype]}({x})"
    match op:
        case "neg":
            return f"(-{x})" if dtype.is_float else f"(0u - {x})"
        case "not":
            return f"(!{x})" if dtype is DType.BOOL else f"(~{x})"
        case "abs" if dtype.kind is Kind.UNSIGNED:
            return x
        case "isnan":
            return f"({x} != {x})"
        case _:
            raise TypeError(f"{op} of {dtype} is no operation of CUDA C")


def binary(op: str, a: str, b: str, dtype: DType) -> str:
    """A primitive of two operands, or a comparison."""
    if (op, dtype) in _CALLS:
        return f"{_CALLS[op, dtype]}({a}, {b})"
    sign = _SIGNS.get(op) or FUNCTIONS[op].sign
    if sign is None:
        raise TypeError(f"{op} of {dtype} is no operation of CUDA C")
    text = f"({a} {sign} {b})"
    return f"(bool){text}" if dtype is DType.BOOL and op in ("and", "or", "xor") else text


def cast(x: str, old: DType, new: DType) -> str:
    """A value in another element type, as `tensor.conversion` has it."""
    if old is new:
        return x
    if old is DType.TF32:
        return cast(x, DType.F32, new)
    if new is DType.TF32:
        return f"tf32({cast(x, old, DType.F32)})"
    if old in HALVES:
        return cast(f"from_{old}({x})", DType.F32, new)
    if new is DType.BOOL:
        return f"({x} != 0)"
    if new in HALVES:
        return f"to_{new}({x if old.is_float else cast(x, old, DType.F32)})"
    if old.is_float and not new.is_float:
        whole = f"to_i64({x})"
        return whole if new is DType.I64 else f"(({TYPES[new]}){whole})"
    return f"(({TYPES[new]}){x})"
