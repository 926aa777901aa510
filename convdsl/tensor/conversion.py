"""Casts between element types, in NumPy: the one meaning that every execution has.

    to float    rounded once, to the nearest, ties to even; too large is infinite
    to integer  the fraction is cut off, what i64 cannot hold becomes its nearest end, NaN is 0;
                then a narrower type keeps its low bits, as in C and NumPy: 300 is the u8 44
    to bool     whether it differs from zero; NaN does

Integers reach f16, bf16 and tf32 through f32. Of two nearest tf32 the one further from zero is
taken, as cards do. Machine code takes denormal arguments for zeros and makes
none (docs/language.md), but for those of f16, which are normal numbers once they are widened.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from convdsl.tensor.types import DType

Array: TypeAlias = "np.ndarray[Any, Any]"

_TOP = 2.0**63  # one past the largest i64


def convert(x: Array, old: DType, new: DType) -> Array:
    """The elements of `x`, stored as `old`, stored as `new`."""
    if old is new:
        return x
    if old is DType.BF16:
        return convert(widen_bf16(x), DType.F32, new)
    if new is DType.TF32:
        return nearest_tf32(convert(x, old, DType.F32))
    with np.errstate(all="ignore"):
        if new is DType.BF16:
            if not old.is_float:
                x = x.astype(np.float32)
            return narrow_bf16(x)
        if new is DType.F16 and not old.is_float:
            x = x.astype(np.float32)
        if old.is_float and new.is_integer:
            x = _whole(x)
        return x.astype(new.numpy)


def of_numpy(dtype: np.dtype[Any]) -> DType:
    """The element type that arrays of a NumPy type hold. ValueError where it is none of ours."""
    for known in DType:
        if known.numpy == dtype.name:
            return known
    raise ValueError(f"no element type is stored as {dtype}")


def stored(value: float, dtype: DType) -> Any:
    """A number as an element of `dtype`, for NumPy to fill arrays with."""
    if not isinstance(value, float) and dtype.is_float and abs(value) >= _TOP:
        value = float(value)
    old = DType.F64 if isinstance(value, float) else DType.I64
    return convert(np.asarray(value, old.numpy), old, dtype)[()]


def _whole(x: Array) -> Array:
    """The i64 towards zero; the ends of i64 beyond them, 0 for NaN."""
    cut = np.trunc(x)
    inside = np.abs(cut) < _TOP
    ends = np.where(cut > 0, DType.I64.highest, np.where(cut < 0, DType.I64.lowest, 0))
    return np.where(inside, np.where(inside, cut, 0).astype(np.int64), ends)


def widen_bf16(bits: Array) -> Array:
    """bf16 is the upper half of f32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow_bf16(x: Array) -> Array:
    """The bits of the nearest bf16 of an array of floats; a NaN stays one, quiet."""
    narrow = x.astype(np.float32)
    bits = _odd(x, narrow) if x.dtype == np.float64 else narrow.view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
    quiet = (bits >> 16) | np.uint32(0x40)
    return np.where(np.isnan(narrow), quiet, nearest).astype(np.uint16)


CUT = 13
"""Bits of the fraction of an f32 that tf32 does not have."""


def nearest_tf32(x: Array) -> Array:
    """The nearest tf32 of f32; of two the one further from zero."""
    half = np.uint32(1 << (CUT - 1))
    rounded = ((x.view(np.uint32) + half) >> CUT << CUT).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


def _odd(x: Array, nearest: Array) -> Array:
    """The bits of an f64 rounded to f32 to odd: rounded again to fewer digits it gives what one
    rounding gives (Boldo, Melquiond 2008, "Emulation of FMA and correctly rounded sums")."""
    bits = nearest.view(np.uint32)
    back = nearest.astype(np.float64)
    cut = np.where(np.abs(back) > np.abs(x), bits - np.uint32(1), bits)
    return np.where(back == x, bits, cut | np.uint32(1)).astype(np.uint32)
