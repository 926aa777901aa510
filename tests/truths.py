"""Scalar functions in 64 bits of mantissa, arguments over whole ranges, and distances between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import DType

Array = np.ndarray[Any, Any]

assert np.finfo(np.longdouble).nmant >= 63
ROOT_OF_PI = np.sqrt(4 * np.arctan(np.longdouble(1)))


def exact_erf(x: Array) -> Array:
    """2 / sqrt(pi) exp(-x**2) sum of x (2 x**2)**n / (1 3 5 .. (2n + 1)): no cancellation."""
    size = np.minimum(np.abs(x), 7)
    term = total = size
    for n in range(1, 300):
        term = term * (2 * size * size) / (2 * n + 1)
        total = total + term
    return np.copysign(2 / ROOT_OF_PI * np.exp(-size * size) * total, x)


def exact_erfc(x: Array) -> Array:
    """1 - erf below 1, a continued fraction above."""
    below = large = np.clip(np.abs(x), 1, 1e4)
    for k in range(400, 0, -1):
        below = large + np.longdouble(k) / 2 / below
    far = np.exp(-large * large) / (ROOT_OF_PI * below)
    return np.where(np.abs(x) < 1, 1 - exact_erf(x), np.where(x < 0, 2 - far, far))


def _log_of_sum(x: Array) -> Array:
    return np.logaddexp(np.longdouble(0), x)


_EXACT: dict[str, Callable[..., Array]] = {
    "erf": exact_erf,
    "erfc": exact_erfc,
    "gelu": lambda x: x / 2 * exact_erfc(-x * np.sqrt(np.longdouble(0.5))),
    "softplus": _log_of_sum,
    "tanh_softplus": lambda x: np.tanh(_log_of_sum(x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "div": np.divide,
    "pow": np.power,
}


def truth(name: str, *operands: Array) -> Array:
    """The function of floats, in longer ones: of f32 in f64 where NumPy's is good enough."""
    exact = _EXACT.get(name, FUNCTIONS[name].meaning)
    with np.errstate(all="ignore"):
        if operands[0].dtype == np.float64:
            return exact(*(x.astype(np.longdouble) for x in operands))
        if name in ("erf", "erfc"):
            exact = getattr(scipy.special, name)
        return exact(*(x.astype(np.float64) for x in operands))


def flushed(x: Array) -> Array:
    """Denormals as zeros of their sign."""
    if x.dtype.kind != "f":
        return x
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), x)


def everywhere(dtype: DType, count: int) -> Array:
    """About `count` arguments of all exponents and signs, infinities and NaN among them, and as
    many where functions change their ways; denormals flushed."""
    random = np.random.default_rng(7)
    width = dtype.bytes * 8
    step = 2**width // count
    bits = np.arange(count, dtype=np.uint64) * np.uint64(step)
    bits += random.integers(0, step, count, dtype=np.uint64)
    info = np.finfo(dtype.numpy)
    reach = 1.1 * np.log(float(info.max))
    spread = [random.uniform(-size, size, count // 4) for size in (reach, 30, 3, 1e6)]
    edges = [0.0, info.tiny, info.max, info.eps, np.inf, 1.0, 0.5, 2.0, 1.5, 2.5, 1 - info.epsneg]
    special = np.array([*edges, *(-e for e in edges), np.nan, np.nan])
    drawn = np.concatenate([*spread, special]).astype(dtype.numpy)
    return flushed(np.concatenate([bits.astype(f"uint{width}").view(dtype.numpy), drawn]))


def errors(found: Array, exact: Array) -> Array:
    """Distances from the truth in units in the last place of the rounded truth; infinite where
    NaN, infinities or signs of zeros differ. Denormal results count as zeros of their sign."""
    info = np.finfo(found.dtype)
    with np.errstate(all="ignore"):
        wanted, got = flushed(exact.astype(found.dtype)), flushed(found)
        distance = np.abs(got.astype(exact.dtype) - exact) / np.spacing(np.abs(wanted))
    equal = (got == wanted) & (np.signbit(got) == np.signbit(wanted))
    equal |= np.isnan(got) & np.isnan(wanted)
    numbers = np.isfinite(wanted) & np.isfinite(got) & (wanted != 0) & (got != 0)
    # At the ends of the range a unit more or less is the last number, or none.
    both = np.maximum(np.abs(got), np.abs(wanted)), np.minimum(np.abs(got), np.abs(wanted))
    same_side = np.signbit(got) == np.signbit(wanted)
    at_end = (both[0] < info.tiny * (1 + 8 * info.eps)) | (both[1] > info.max * (1 - 8 * info.eps))
    return np.where(equal | (same_side & at_end), 0, np.where(numbers, distance, np.inf))
