"""Cases of operators that work element by element."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from convdsl.ops import BY_NAME
from op_cases.draw import Array, Case, Draw, Generator, alone, with_state

LETTERS = "NABCD"

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -2.5])


def unary(
    name: str,
    draw: Draw,
    low: float = -8.0,
    high: float = 8.0,
    attributes: Callable[[Draw], dict[str, Any]] = lambda draw: {},
    special: bool = True,
) -> Case:
    """y = f(x), on values where f does something; at times zeros, infinities and NaN."""
    x = draw.array(draw.shape(draw.integer(1, 5), 1, 5), low, high)
    if special and draw.chance(0.3):
        x = draw.rng.choice(SPECIAL, x.shape).astype(x.dtype)
    return with_state(draw, name, attributes(draw), x, symbols={"x": tuple(LETTERS[: x.ndim])})


def mask(draw: Draw, shape: tuple[int, ...]) -> Array:
    return draw.rng.random(shape) < 0.5


def broadcast(name: str, draw: Draw, make: Callable[[str, tuple[int, ...]], Array]) -> Case:
    """Operands that broadcast: axes dropped from the front, or of extent 1."""
    shape = draw.shape(draw.integer(1, 4), 1, 5)
    arrays: dict[str, Array] = {}
    symbols: dict[str, tuple[str | None, ...]] = {}
    for operand in BY_NAME[name].operands:
        dropped = draw.pick(0, 0, draw.integer(0, len(shape)))
        kept = tuple(1 if draw.chance(0.25) else extent for extent in shape[dropped:])
        arrays[operand.name] = make(operand.name, kept)
        symbols[operand.name] = tuple(
            None if extent == 1 else letter
            for letter, extent in zip(LETTERS[dropped:], kept, strict=False)
        )
    return Case(BY_NAME[name], {}, arrays, symbols)


def binary(name: str, draw: Draw, low: float = -3.0, high: float = 3.0) -> Case:
    return broadcast(name, draw, lambda operand, shape: draw.array(shape, low, high))


def comparison(name: str, draw: Draw) -> Case:
    """Values of which many are alike, whole numbers, or where these may be compared, masks."""
    if name in ("equal", "not_equal") and draw.chance(0.2):
        return masks(name, draw)
    if draw.chance(0.3):
        return broadcast(name, draw, lambda _, s: draw.rng.integers(-2, 3, s))
    return broadcast(name, draw, lambda operand, shape: draw.repeated(shape))


def quotient(draw: Draw) -> Case:
    """Integers of all sizes, divisors of both signs."""

    def make(operand: str, shape: tuple[int, ...]) -> Array:
        x = draw.rng.integers(-9, 10, shape) * draw.pick(1, 1, (1 << 59) + 7)
        return np.where(x == 0, 3, x) if operand == "b" else x

    return broadcast("quotient", draw, make)


def remainder(name: str, draw: Draw) -> Case:
    """Numbers of both signs, whole ones among them; of integers no 0 divides."""

    def floats(operand: str, shape: tuple[int, ...]) -> Array:
        x = draw.array(shape, -9, 9)
        x = np.where(draw.rng.random(shape) < 0.5, np.rint(x), x)
        return np.where(np.abs(x) < 0.25, 0.75, x).astype(x.dtype) if operand == "b" else x

    def whole(operand: str, shape: tuple[int, ...]) -> Array:
        x = draw.rng.integers(-9, 10, shape)
        return np.where(x == 0, 3, x) if operand == "b" else x * draw.pick(1, 1, (1 << 59) + 7)

    return broadcast(name, draw, whole if draw.chance(0.3) else floats)


def masks(name: str, draw: Draw) -> Case:
    return broadcast(name, draw, lambda operand, shape: mask(draw, shape))


def where(draw: Draw) -> Case:
    def make(operand: str, shape: tuple[int, ...]) -> Array:
        return mask(draw, shape) if operand == "condition" else draw.array(shape)

    return broadcast("where", draw, make)


def logical_not(draw: Draw) -> Case:
    return with_state(draw, "logical_not", {}, mask(draw, draw.shape(3)))


def cast(draw: Draw) -> Case:
    values = draw.array(draw.shape(3), -9, 9)
    kind = draw.pick("float", "whole", "mask")
    x = {"float": values, "whole": values.astype(np.int64), "mask": values > 0}[kind]
    return with_state(draw, "cast", {"dtype": draw.pick("f32", "f64", "i64", "bool")}, x)


def clip(draw: Draw) -> dict[str, Any]:
    low = draw.pick(-np.inf, -1.0, 0.0)
    return {"low": low, "high": draw.pick(np.inf, 2.0, low if np.isfinite(low) else 3.0)}


def prelu(draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(2, 5), 1, 5), -8, 8)
    return with_state(draw, "prelu", {"shared": draw.chance()}, x)


def parameter(draw: Draw) -> Case:
    shape = draw.shape(draw.integer(1, 4), 1, 5)
    return alone(draw, "parameter", {"shape": shape, "dtype": str(draw.dtype)})


def dropout(draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(2, 5), 1, 5))
    per = draw.pick("element", "channel", "sample")
    return with_state(draw, "dropout", {"p": draw.pick(0.0, 0.3, 1.0), "per": per}, x)


# ONNX holds attributes in single precision: these are exact there.
ALPHA = (0.5, 1.0, 1.25)

GENERATORS: dict[str, Generator] = {
    **{
        name: partial(unary, name)
        for name in (
            "relu", "relu6", "identity", "stop_gradient", "sigmoid", "tanh", "softsign", "neg",
            "abs", "exp", "erf", "floor", "ceil", "round", "sign", "isnan", "selu", "silu",
            "mish", "hardswish",
        )
    },
    "log": partial(unary, "log", low=0.01),
    "sqrt": partial(unary, "sqrt", low=0.0),
    "reciprocal": partial(unary, "reciprocal", low=0.2),
    "leaky_relu": partial(
        unary, "leaky_relu", attributes=lambda draw: {"slope": draw.pick(0.25, 0.125)}
    ),
    **{
        name: partial(unary, name, attributes=lambda draw: {"alpha": draw.pick(*ALPHA)})
        for name in ("elu", "celu")
    },
    "softplus": partial(
        unary, "softplus", attributes=lambda draw: {"beta": draw.pick(1.0, 0.5, 2.0)}
    ),
    "hardsigmoid": partial(
        unary,
        "hardsigmoid",
        attributes=lambda draw: {"slope": draw.pick(0.25, 0.125), "offset": draw.pick(0.5, 0.25)},
    ),
    "gelu": partial(
        unary, "gelu", attributes=lambda draw: {"approximate": draw.pick("none", "tanh")}
    ),
    "hard_tanh": partial(
        unary,
        "hard_tanh",
        attributes=lambda draw: {"min": draw.pick(-2.0, -1.0), "max": draw.pick(-1.0, 1.5)},
    ),
    "clip": partial(unary, "clip", attributes=clip),
    "prelu": prelu,
    "dropout": dropout,
    "parameter": parameter,
    **{name: partial(binary, name) for name in ("add", "sub", "mul", "min", "max")},
    "div": partial(binary, "div", low=0.5, high=3.0),
    "quotient": quotient,
    **{name: partial(remainder, name) for name in ("mod", "fmod")},
    **{
        name: partial(unary, name)
        for name in ("sin", "cos", "tan", "atan", "sinh", "cosh", "asinh")
    },
    **{
        name: partial(unary, name, low=-1.0, high=1.0, special=False)
        for name in ("asin", "acos", "atanh")
    },
    "acosh": partial(unary, "acosh", low=1.0),
    "pow": partial(binary, "pow", low=-3.0, high=3.0),
    **{
        name: partial(comparison, name)
        for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
    },
    **{name: partial(masks, name) for name in ("logical_and", "logical_or", "logical_xor")},
    "logical_not": logical_not,
    "where": where,
    "cast": cast,
}  # fmt: skip
