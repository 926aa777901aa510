"""Discrete Fourier transforms. Complex numbers have an axis of two: real part, imaginary part."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt, pi
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.ir.opdef import (
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Rule,
    WindowRule,
    contraction,
    float_type,
    no_state,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import known_size, resolve_axis, whole_along
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexCompare,
    IndexValue,
    Literal,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    axes_over,
)
from convdsl.tensor import Dim, DType, TensorType, floor_div

AS_GIVEN = 0
"""A length: that of the axis; of half a spectrum on its way back, 2 (positions - 1)."""

FACTOR = 64
"""Transforms up to this length are one product: splitting them saves less than passing over the
numbers once more costs."""

LARGEST = 1 << 26
"""Elements of a matrix: transforms of 4,096 numbers."""


def resolve_dft(call: Call) -> Mapping[str, Any]:
    """The axis from 0 on, the length as a number. Raises OpError for what has no parts along its
    last axis, and for lengths that are free, or have too long a factor."""
    x = call.type("x")
    float_type(call)
    if x.rank < 2 or x.shape[-1] not in (1, 2):
        what = f"{x} has no last axis of a real part, and perhaps an imaginary one"
        real = f"of real numbers: unsqueeze([{x.rank}]) -> dft(...)"
        raise OpError(what, operands=("x",), help=(real,))
    axis = resolve_axis(call)
    if axis == x.rank - 1:
        raise OpError("the last axis holds the parts of numbers", attributes=("axis",))
    inverse, onesided, parts = call["inverse"], call["onesided"], x.shape[-1]
    if onesided and parts == 1 + (not inverse):
        wanted = "complex" if inverse else "real"
        text = f"half a spectrum {'becomes real: it is' if inverse else 'is'} of {wanted} numbers"
        raise OpError(text, operands=("x",), attributes=("onesided",))
    extent = known_size(call, "x", axis)
    usual = 2 * (extent - 1) if inverse and onesided else extent
    length = call["length"] or usual
    if length < 1:
        raise OpError("a transform has one position at least", operands=("x",))
    if 4 * leaf(length) ** 2 > LARGEST:
        text = f"a transform of {length:,} positions has a factor of {leaf(length):,}: too long"
        raise OpError(text, attributes=("length",))
    return {**call.attributes, "axis": axis, "length": length}


def infer_dft(call: Call) -> tuple[TensorType, ...]:
    """y[.., frequencies, .., 2], or real numbers from half a spectrum"""
    x, axis = call.type("x"), call["axis"]
    shape = [*x.shape[:axis], made(call), *x.shape[axis + 1 : -1]]
    return (TensorType(x.dtype, (*shape, 1 if call["inverse"] and call["onesided"] else 2)),)


def made(call: Call) -> int:
    """Positions along the axis of the result."""
    half = call["onesided"] and not call["inverse"]
    return call["length"] // 2 + 1 if half else call["length"]


def used(call: Call) -> int:
    """Positions of x that are read; those that the transform has more are zeros."""
    length = call["length"]
    limit = length // 2 + 1 if call["onesided"] and call["inverse"] else length
    return min(known_size(call, "x", call["axis"]), limit)


def field_dft(call: Call) -> WindowRule:
    """Along the axis all is seen."""
    return whole_along(call.type("x").shape, (call["axis"],))


# A long transform as several short ones


def divisor(length: int) -> int | None:
    """The first of two factors: as even a split as there is, of at most FACTOR. None of what is
    short, or prime."""
    if length <= FACTOR:
        return None
    found = (d for d in range(min(FACTOR, isqrt(length)), 1, -1) if length % d == 0)
    return next(found, None)


def leaf(length: int) -> int:
    """The longest transform that is one product."""
    first = divisor(length)
    return length if first is None else max(first, leaf(length // first))


def matrix(
    parts: int, extent: int, length: int, *, inverse: bool = False, onesided: bool = False
) -> npt.NDArray[np.float64]:
    """M[n, p, k, q]: part q of frequency k of a unit in part p of position n; NumPy's transform, in
    double precision. Positions that a transform of `length` has not are not read; those that it has
    more are zeros."""
    units = np.eye(extent)[:, None] * np.array([1, 1j])[:parts, None]
    if not inverse:
        spectrum = np.fft.rfft(units.real, length) if onesided else np.fft.fft(units, length)
        return np.stack([spectrum.real, spectrum.imag], axis=-1)
    if onesided:
        return np.fft.irfft(units, length)[..., None]
    back = np.fft.ifft(units, length)
    return np.stack([back.real, back.imag], axis=-1)


# The arithmetic, as it is defined


def kernel_dft(call: Call) -> TensorExpr:
    """cosine[n, k] = cos(2 pi n k / L), sine alike
    m[n, p, k, q] = what part q of frequency k has of part p of position n
    y[.., k, .., q] = sum over n, p of x[.., n, .., p] m[n, p, k, q]"""
    x, (out,) = call.var("x"), call.outputs
    axis: int = call["axis"]
    length, dtype = call["length"], out.dtype
    n, k = Axis("t", used(call)), Axis("f", made(call))
    turn: Dim = 4 * n.i * k.i
    waves = [
        Stage(TensorVar(name, TensorType(dtype, (n.extent, k.extent))), (n, k), body)
        for name, body in (
            ("cosine", _sine(length - turn, length, dtype)),
            ("sine", _sine(turn, length, dtype)),
        )
    ]
    p, q = Axis("p", x.type.shape[-1]), Axis("q", out.shape[-1])
    cosine, sine = (Read(stage.target, (n.i, k.i)) for stage in waves)
    entry = Select(IndexCompare("eq", p.i, q.i), cosine, _crossed(call, p, sine))
    entry = _weighed(call, n, entry, dtype)
    m = TensorVar("m", TensorType(dtype, tuple(a.extent for a in (n, p, k, q))))
    rows = axes_over(out.shape)
    at = [a.i for a in rows]
    place = (*at[:axis], n.i, *at[axis + 1 : -1], p.i)
    factor = Read(m, (n.i, p.i, at[axis], at[-1]))
    body = Reduce("sum", (n, p), Read(x, place) * factor)
    y = Stage(TensorVar("y", out), rows, body)
    return TensorExpr((x,), (*waves, Stage(m, (n, p, k, q), entry), y), ("y",))


def _sine(quarters: Dim, length: int, dtype: DType) -> Expr:
    """sin(pi/2 quarters / length), by what is left of half turns: zero where it is zero."""
    halves = floor_div(quarters + length, 2 * length)
    rest = IndexValue(quarters - 2 * length * halves, dtype)
    value = Unary("sin", rest * Literal(pi / 2 / length, dtype))
    return Select(IndexCompare("eq", halves % 2, 0), value, Unary("neg", value))


def _crossed(call: Call, p: Axis, sine: Expr) -> Expr:
    """i = -1 / i: what the imaginary part gives to the real one, and the other way round."""
    gives, takes = sine, Unary("neg", sine)
    if call["inverse"]:
        gives, takes = takes, gives
    return Select(IndexCompare("eq", p.i, 1), gives, takes)


def _weighed(call: Call, n: Axis, entry: Expr, dtype: DType) -> Expr:
    """On the way back the mean; of half a spectrum what stands for two frequencies counts twice."""
    if not call["inverse"]:
        return entry
    length = call["length"]
    once = Literal(1 / length, dtype)
    if not call["onesided"]:
        return entry * once
    twice: Expr = Literal(2 / length, dtype)
    if length % 2 == 0:
        twice = Select(IndexCompare("eq", n.i, length // 2), once, twice)
    return entry * Select(IndexCompare("eq", n.i, 0), once, twice)


# Its gradient: a transform the other way


def gradient_dft(p: Pullback) -> Gradients:
    """dx is the transposed matrix times dy: without weights, the transform the other way of dy.

        forwards  dx = L times the inverse of dy, of whose missing frequencies there are none
        back      dx = 1 / L times the transform of dy; twice what stood for two frequencies

    cut or filled to the positions of x, and the parts of x of it."""
    axis: int = p["axis"]
    length: int = p["length"]
    x, dy, build = p.operand("x"), p.dy, p.build
    if p["inverse"]:
        turned = build("dft", dy, name="dx", axis=axis, onesided=p["onesided"])
        scale = 1 / length
    else:
        turned = build("dft", dy, name="dx", axis=axis, inverse=True, length=length)
        scale = float(length)
    count = length // 2 + 1 if p["inverse"] and p["onesided"] else length
    factor = np.full(count, scale)
    if p["inverse"] and p["onesided"]:
        factor[1 : (length + 1) // 2] *= 2
    shape = [1] * x.type.rank
    shape[axis] = len(factor)
    turned = build("mul", turned, build.constant(factor.reshape(shape), x.type.dtype))
    return {"x": _fitted(p, turned)}


def _fitted(p: Pullback, turned: Any) -> Any:
    """Cut to the parts and positions of x; what was not read has no gradient."""
    x, axis, build = p.operand("x").type, p["axis"], p.build
    for number in (axis, x.rank - 1):
        wanted, there = x.shape[number], turned.type.shape[number]
        if wanted < there:
            cut = {"axes": (number,), "start": (0,), "stop": (wanted,)}
            turned = build("slice", turned, **cut)
        elif wanted > there:
            turned = build("pad", turned, pad=((0, wanted - there),), axes=(number,))
    return turned


DFT = OpDef(
    name="dft",
    aliases=(),
    doc="""The discrete Fourier transform along an axis, and its inverse.

    y[k] = sum over n of x[n] exp(-2 pi i n k / length), and back with the other sign, divided by
    the length, which is known when the file is loaded. The last axis of x is 1 (real) or 2 (real
    part, imaginary part), that of y 2, and 1 of real numbers back from half a spectrum. Cooley and
    Tukey 1965; as NumPy's fft, ifft, rfft, irfft, and ONNX DFT.""",
    operands=(Operand("x"),),
    attributes=(
        Attribute("axis", Kind.INT, -2, "axis to transform; the last before the parts"),
        Attribute("inverse", Kind.BOOL, False, "from a spectrum back"),
        Attribute(
            "onesided",
            Kind.BOOL,
            False,
            "frequencies 0 .. length/2 alone, which say all of real numbers; back: to real numbers",
        ),
        Attribute(
            "length",
            Kind.INT,
            AS_GIVEN,
            "x is cut, or zeros follow; 0: its own, as NumPy",
            minimum=0,
        ),
    ),
    outputs=("y",),
    resolve=resolve_dft,
    state=no_state,
    infer=infer_dft,
    window=field_dft,
    cost=contraction,
    kernel=kernel_dft,
    gradient=Rule(gradient_dft, "a transform the other way"),
)

OPERATORS = (DFT,)
