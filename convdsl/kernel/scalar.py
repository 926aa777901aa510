"""Scalar functions: one record each, and one for each reduction.

A record is the home of all that is known of a function: which element types it takes and
gives, its meaning in NumPy (what `evaluate` and `interpret` compute), what it is made of, its
derivatives and how exact machine code is. Expressions, formulas and the loop IR name functions by
these records' names; a function is added by adding a record (and, where it is neither printed
nor made of others, its expansion to `vector_math`).

Machine code takes denormal arguments for zeros and gives zeros for denormal results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from convdsl.kernel import trigonometry as of
from convdsl.kernel.formula import A, B, Formula, Number, X, Y, call, choose, functions_of, read
from convdsl.tensor import DType

Array: TypeAlias = "np.ndarray[Any, Any]"
Types: TypeAlias = frozenset[DType]

FLOATS: Types = frozenset((DType.F32, DType.F64))
SIGNED: Types = frozenset((DType.I64,))
WORDS: Types = frozenset((DType.U32,))
INTEGERS = SIGNED | WORDS
MASKS: Types = frozenset((DType.BOOL,))
NUMBERS = FLOATS | INTEGERS
BITWISE = MASKS | INTEGERS
NOTHING: Types = frozenset()


@dataclass(frozen=True, slots=True)
class NotDifferentiable:
    """Why a function has no derivative by an operand."""

    reason: str


Derivative: TypeAlias = Formula | NotDifferentiable
LIFTS = {DType.F32: 1.5 * 2.0**23 + 127, DType.F64: 1.5 * 2.0**52 + 1023}
"""Where numbers are one apart; in the last places stand the digits of an exponent of zero."""
ZERO = Number(0.0)
"""The derivative of what is flat almost everywhere."""

MASK = NotDifferentiable("it gives a mask")
WHOLE = NotDifferentiable("it is of integers")
BITS = NotDifferentiable("it works on bits")


@dataclass(frozen=True)
class ScalarFunction:
    """y = name(x), or y = name(a, b).

    takes: element types of the operands, which are all alike.
    meaning: the function on NumPy arrays.
    derivatives: dy by each operand, from the operands X or A, B and the result Y.
    gives: element type of the result; the operands' where None.
    printed: types for which backends have an instruction: a primitive of the loop IR. For the
        others it is written out, by its `formula` or by `vector_math.EXPANSIONS`.
    formula: what it is made of. It counts as the operations of that; any other counts one.
    ulps: largest error of machine code, in units in the last place; 0.5 is rounded exactly.
    sign: how it is written between its operands.
    """

    name: str
    takes: Types
    meaning: Callable[..., Array]
    derivatives: tuple[Derivative, ...]
    gives: DType | None = None
    printed: Types = NOTHING
    formula: Formula | None = None
    ulps: float = 0.5
    sign: str | None = None

    @property
    def arity(self) -> int:
        return len(self.derivatives)

    @property
    def is_comparison(self) -> bool:
        return self.arity == 2 and self.gives is DType.BOOL

    @cached_property
    def operations(self) -> int:
        """Arithmetic operations that one application counts."""
        if self.formula is None:
            return 1
        return sum(FUNCTIONS[name].operations for name in functions_of(self.formula))

    def result(self, dtype: DType) -> DType:
        """The element type of the result, by that of the operands."""
        return self.gives or dtype


# Meanings that NumPy has no function for


def _each(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of the C library, element by element in doubles, rounded once."""

    def meaning(x: Array) -> Array:
        found = [function(value) for value in x.astype(np.float64).ravel().tolist()]
        return np.array(found, np.float64).reshape(x.shape).astype(x.dtype)

    return meaning


def _divide(a: Array, b: Array) -> Array:
    """A quotient; of integers the floor of it."""
    return np.divide(a, b) if a.dtype.kind == "f" else np.floor_divide(a, b)


def _power(a: Array, b: Array) -> Array:
    """Of integers with wrapping products; to a negative power 1 / a**-b cut off, 0 of zero."""
    if a.dtype.kind == "f":
        return np.power(a, b)
    inverse = np.where(a == 1, 1, np.where(a == -1, np.where(b % 2 == 0, 1, -1), 0))
    return np.where(b < 0, inverse, np.power(a, np.maximum(b, 0)))


def _cut_off(a: Array, b: Array) -> Array:
    """A quotient of integers towards zero."""
    q = np.floor_divide(a, b)
    return q + ((q < 0) & (q * b != a))


def _one_over(x: Array) -> Array:
    return np.divide(x.dtype.type(1), x)


def _one_over_root(x: Array) -> Array:
    return np.divide(x.dtype.type(1), np.sqrt(x))


def _upper_half(a: Array, b: Array) -> Array:
    return (a.astype(np.uint64) * b >> 32).astype(a.dtype)


def _exponent(x: Array) -> Array:
    return np.frexp(x)[1].astype(x.dtype)


def _mantissa(x: Array) -> Array:
    return np.frexp(x)[0]


def _power_of_two(x: Array) -> Array:
    """Denormal ones are zeros, as in kernels."""
    power = np.ldexp(np.ones_like(x), x.astype(np.int32))
    return np.where(power < np.finfo(x.dtype).tiny, x.dtype.type(0), power)


def _lift(x: Array, factor: Array) -> Array:
    return np.rint(x * factor) + _lift_of(x)


def _power_of_lifted(x: Array) -> Array:
    return _power_of_two(x - _lift_of(x))


def _lift_of(x: Array) -> Any:
    return x.dtype.type(LIFTS[DType.F32 if x.dtype == np.float32 else DType.F64])


def _scaled(x: Array, n: Array) -> Array:
    """In one rounding; denormal ones are zeros, as in kernels."""
    whole = np.where(np.isfinite(n), n, 0).astype(np.int32)
    scaled = np.ldexp(x, whole)
    return np.where(np.abs(scaled) < np.finfo(x.dtype).tiny, np.copysign(0, scaled), scaled)


def _order(x: Array) -> Array:
    width = 8 * x.dtype.itemsize
    highest = (1 << (width - 1)) - 1
    bits: Array = (x + x.dtype.type(0)).view(f"i{width // 8}")
    ordered: Array = np.where(bits < 0, bits ^ highest, bits)
    return np.where(np.isnan(x), highest, ordered).astype(np.int64)


def _made_of(name: str, formula: Formula, derivative: Formula, ulps: float) -> ScalarFunction:
    """A function of one operand whose meaning is its formula."""

    def meaning(x: Array) -> Array:
        return read(formula, (x,), Arrays())

    return ScalarFunction(name, FLOATS, meaning, (derivative,), formula=formula, ulps=ulps)


class Arrays:
    """The world of NumPy arrays."""

    def number(self, value: float, like: Array) -> Array:
        return np.full_like(like, value)

    def apply(self, function: str, parts: tuple[Array, ...]) -> Array:
        return FUNCTIONS[function].meaning(*parts)

    def choose(self, test: Array, yes: Array, no: Array) -> Array:
        return np.where(test, yes, no)


# The records

_ARITHMETIC = (
    ScalarFunction("add", NUMBERS, np.add, (Number(1.0), Number(1.0)), printed=NUMBERS, sign="+"),
    ScalarFunction(
        "sub", NUMBERS, np.subtract, (Number(1.0), Number(-1.0)), printed=NUMBERS, sign="-"
    ),
    ScalarFunction("mul", NUMBERS, np.multiply, (B, A), printed=NUMBERS, sign="*"),
    ScalarFunction("div", NUMBERS, _divide, (1.0 / B, -(Y / B)), printed=FLOATS, sign="/"),
    ScalarFunction("mod", NUMBERS, np.mod, (Number(1.0), -call("floor", A / B))),
    ScalarFunction("neg", NUMBERS, np.negative, (Number(-1.0),), printed=NUMBERS),
    ScalarFunction("abs", NUMBERS, np.abs, (call("sign", X),), printed=NUMBERS),
    ScalarFunction(
        "max",
        NUMBERS,
        np.maximum,
        (choose(call("gt", A, B), 1.0, 0.0), choose(call("gt", A, B), 0.0, 1.0)),
        printed=NUMBERS,
    ),
    ScalarFunction(
        "min",
        NUMBERS,
        np.minimum,
        (choose(call("lt", A, B), 1.0, 0.0), choose(call("lt", A, B), 0.0, 1.0)),
        printed=NUMBERS,
    ),
    ScalarFunction("reciprocal", FLOATS, _one_over, (-(Y * Y),), formula=1.0 / X),
)

_ROUNDING = (
    ScalarFunction("floor", FLOATS, np.floor, (ZERO,), printed=FLOATS),
    ScalarFunction("ceil", FLOATS, np.ceil, (ZERO,), printed=FLOATS),
    ScalarFunction("round", FLOATS, np.rint, (ZERO,), printed=FLOATS),
    ScalarFunction("sign", NUMBERS, np.sign, (ZERO,)),
    ScalarFunction(
        "copysign",
        FLOATS,
        np.copysign,
        (call("copysign", 1.0, A) * call("copysign", 1.0, B), ZERO),
        printed=FLOATS,
    ),
)

_POWERS = (
    ScalarFunction("sqrt", FLOATS, np.sqrt, (0.5 / Y,), printed=FLOATS),
    ScalarFunction(
        "rsqrt",
        FLOATS,
        _one_over_root,
        (-0.5 * (Y / X),),
        formula=1.0 / call("sqrt", X),
        ulps=1.5,
    ),
    ScalarFunction("exp", FLOATS, np.exp, (Y,), ulps=2),
    ScalarFunction(
        "decay", FLOATS, np.exp, (Y,), ulps=4
    ),  # exp where it is known that nothing grows, of nothing above DECAYED: without what the last
    # exponents cost
    ScalarFunction("expm1", FLOATS, np.expm1, (call("exp", X),), ulps=3),
    ScalarFunction("log", FLOATS, np.log, (1.0 / X,), ulps=2),
    ScalarFunction("log1p", FLOATS, np.log1p, (1.0 / (X + 1.0),), ulps=3),
    ScalarFunction(
        "pow",
        FLOATS | SIGNED,
        _power,
        (
            choose(call("eq", B, 0.0), 0.0, B * call("pow", A, B - 1.0)),
            choose(call("gt", A, 0.0), Y * call("log", A), 0.0),
        ),
        ulps=3,
    ),
)

_CURVES = (
    ScalarFunction("tanh", FLOATS, np.tanh, (1.0 - Y * Y,), ulps=3),
    ScalarFunction(
        "erf",
        FLOATS,
        _each(math.erf),
        (call("exp", -(X * X)) * (2 / math.sqrt(math.pi)),),
        ulps=2,
    ),
    ScalarFunction(
        "erfc",
        FLOATS,
        _each(math.erfc),
        (call("exp", -(X * X)) * (-2 / math.sqrt(math.pi)),),
        ulps=4,
    ),
    ScalarFunction("sin", FLOATS, np.sin, (call("cos", X),), ulps=2),
    ScalarFunction("cos", FLOATS, np.cos, (-call("sin", X),), ulps=2),
    ScalarFunction("tan", FLOATS, np.tan, (Y * Y + 1.0,), formula=of.TAN, ulps=4),
    ScalarFunction("atan", FLOATS, np.arctan, (1.0 / (X * X + 1.0),), ulps=3),
    ScalarFunction("asin", FLOATS, np.arcsin, (of.ARC_SLOPE,), formula=of.ASIN, ulps=4),
    ScalarFunction("acos", FLOATS, np.arccos, (-of.ARC_SLOPE,), formula=of.ACOS, ulps=4),
    ScalarFunction("sinh", FLOATS, np.sinh, (call("cosh", X),), formula=of.SINH, ulps=5),
    ScalarFunction("cosh", FLOATS, np.cosh, (call("sinh", X),), formula=of.COSH, ulps=6),
    ScalarFunction("asinh", FLOATS, np.arcsinh, (of.ASINH_SLOPE,), formula=of.ASINH, ulps=4),
    ScalarFunction("acosh", FLOATS, np.arccosh, (of.ACOSH_SLOPE,), formula=of.ACOSH, ulps=4),
    ScalarFunction("atanh", FLOATS, np.arctanh, (of.ATANH_SLOPE,), formula=of.ATANH, ulps=4),
)

# Gates of activations, in forms that neither cancel nor overflow at either end.
_W = call("exp", call("min", X, 20.0))
_N = _W * (_W + 2.0)
_INVERSE = 1.0 / (call("abs", X) + 1.0)
_NORMAL = call("erfc", X * -math.sqrt(0.5)) * 0.5
_DENSITY = call("exp", -(X * X * 0.5)) * (1 / math.sqrt(2 * math.pi))

_GATES = (
    _made_of("sigmoid", 1.0 / (call("exp", -X) + 1.0), Y * (1.0 - Y), ulps=3),
    _made_of(
        "softplus",
        call("max", X, 0.0) + call("log1p", call("decay", -call("abs", X))),
        call("sigmoid", X),
        ulps=4,
    ),
    # tanh(log(1 + w)) of w = exp(x) is w (w + 2) / (w (w + 2) + 2); 1 from w = exp(20) on.
    _made_of("tanh_softplus", _N / (_N + 2.0), (1.0 - Y * Y) * call("sigmoid", X), ulps=6),
    # Phi, the normal distribution, as erfc: exact in the tail, where 1 + erf cancels.
    _made_of("gelu", X * _NORMAL, _NORMAL + X * _DENSITY, ulps=8),
    _made_of("softsign", X / (call("abs", X) + 1.0), _INVERSE * _INVERSE, ulps=2),
)


def _comparison(
    name: str, meaning: Callable[..., Array], sign: str, takes: Types = NUMBERS
) -> ScalarFunction:
    return ScalarFunction(name, takes, meaning, (MASK, MASK), DType.BOOL, takes, sign=sign)


_TESTS = (
    _comparison("lt", np.less, "<"),
    _comparison("le", np.less_equal, "<="),
    _comparison("gt", np.greater, ">"),
    _comparison("ge", np.greater_equal, ">="),
    _comparison("eq", np.equal, "==", NUMBERS | MASKS),
    _comparison("ne", np.not_equal, "!=", NUMBERS | MASKS),
    ScalarFunction("isnan", FLOATS, np.isnan, (MASK,), DType.BOOL, FLOATS),
)

_LOGIC = (
    ScalarFunction("not", BITWISE, np.bitwise_not, (BITS,), printed=BITWISE),
    ScalarFunction("and", BITWISE, np.bitwise_and, (BITS, BITS), printed=BITWISE),
    ScalarFunction("or", BITWISE, np.bitwise_or, (BITS, BITS), printed=BITWISE),
    ScalarFunction("xor", BITWISE, np.bitwise_xor, (BITS, BITS), printed=BITWISE),
)

# The upper half of the product of two words, and shifts: by 32 and more, of everything.
_WORDS = (
    ScalarFunction("mul_hi", WORDS, _upper_half, (BITS, BITS), printed=WORDS),
    ScalarFunction("shl", WORDS, np.left_shift, (BITS, BITS), printed=WORDS, sign="<<"),
    ScalarFunction("shr", WORDS, np.right_shift, (BITS, BITS), printed=WORDS, sign=">>"),
)

# What expansions are written with: quotients towards zero, by neither 0 nor -1; parts of a
# number: 2**x of an integral x; a product to the nearest whole number, which is small, on top of
# `LIFTS`, where it stands in the last places, and 2**x of such; x * 2**n of an x of 0.5 to 2 and
# an integral n from one below the least exponent to one above the largest; x = mantissa *
# 2**exponent with 0.5 <= mantissa < 1, of normal positive x. `order` is a whole number of as many
# bits that says where a number stands among all others: a < b where order(a) < order(b); equals
# have one, and a NaN stands after infinity.
_PARTS = (
    ScalarFunction("quotient", INTEGERS, _cut_off, (WHOLE, WHOLE), printed=INTEGERS),
    ScalarFunction("pow2", FLOATS, _power_of_two, (BITS,), printed=FLOATS),
    ScalarFunction("lift", FLOATS, _lift, (BITS, BITS), printed=FLOATS),
    ScalarFunction("pow2_lifted", FLOATS, _power_of_lifted, (BITS,), printed=FLOATS),
    ScalarFunction("scale", FLOATS, _scaled, (BITS, BITS), printed=FLOATS),
    ScalarFunction("exponent", FLOATS, _exponent, (BITS,), printed=FLOATS),
    ScalarFunction("mantissa", FLOATS, _mantissa, (BITS,), printed=FLOATS),
    ScalarFunction("order", FLOATS, _order, (BITS,), DType.I64, FLOATS),
)

FUNCTIONS: Mapping[str, ScalarFunction] = MappingProxyType(
    {
        function.name: function
        for group in (
            _ARITHMETIC,
            _ROUNDING,
            _POWERS,
            _CURVES,
            _GATES,
            _TESTS,
            _LOGIC,
            _WORDS,
            _PARTS,
        )
        for function in group
    }
)
"""Every scalar function by its name."""

COMPARISONS = frozenset(name for name, f in FUNCTIONS.items() if f.is_comparison)


# Reductions


@dataclass(frozen=True, slots=True)
class Reduction:
    """The combination of many values by an associative function of two.

    neutral: what the combination starts from, by element type.
    whole: the combination along axes of a NumPy array.
    """

    name: str
    combine: str
    neutral: Callable[[DType], float | int | bool]
    whole: Callable[..., Array]


REDUCTIONS: Mapping[str, Reduction] = MappingProxyType(
    {
        reduction.name: reduction
        for reduction in (
            Reduction("sum", "add", lambda dtype: 0, np.sum),
            Reduction("prod", "mul", lambda dtype: 1, np.prod),
            Reduction("max", "max", lambda dtype: dtype.lowest, np.max),
            Reduction("min", "min", lambda dtype: dtype.highest, np.min),
            Reduction("any", "or", lambda dtype: False, np.any),
            Reduction("all", "and", lambda dtype: True, np.all),
        )
    }
)
"""Every reduction by its name."""
