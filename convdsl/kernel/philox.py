"""Random numbers without a state: Philox 4x32-10 as stages of u32.

    word0 .. word3 = philox(counter0 .. counter3, key0, key1)

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": ten rounds of products and
exclusive ors, whose four words depend on the counter and the key alone. So element i of step t is
the same whoever computes it: on any number of threads, after a resume, on another target.

(Weights drawn by `random:SEED` come from its sibling of 64-bit words, which NumPy has.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from convdsl.kernel.expr import Axis, Binary, Cast, Expr, Literal, Read, Stage, TensorVar, Unary
from convdsl.tensor import DType, TensorType

Words: TypeAlias = "tuple[Expr, Expr, Expr, Expr]"

ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_STEPS = (0x9E3779B9, 0xBB67AE85)  # by which the halves of the key grow from round to round


def philox(
    axes: tuple[Axis, ...], counter: Words, key: tuple[Expr, Expr], name: str = "random"
) -> tuple[tuple[Stage, ...], Words]:
    """(stages, words): four words at each position of `axes`, all of u32 as counter and key are.
    The words are reads at that position; the stages are called `name` and a number."""
    stages: list[Stage] = []
    words = counter
    for number in range(ROUNDS):
        keys = (_grown(key[0], number * _STEPS[0]), _grown(key[1], number * _STEPS[1]))
        bodies = _one_round(words, keys)
        made = [_stage(f"{name}{number}_{k}", axes, body) for k, body in enumerate(bodies)]
        stages += made
        at = tuple(axis.i for axis in axes)
        first, second, third, fourth = (Read(stage.target, at) for stage in made)
        words = (first, second, third, fourth)
    return tuple(stages), words


def _one_round(words: Words, key: tuple[Expr, Expr]) -> Words:
    """The halves of two products change places, one of each mixed with word and key."""
    a, b, c, d = words
    upper = [_binary("mul_hi", x, m) for x, m in zip((a, c), _MULTIPLIERS, strict=True)]
    lower = [_binary("mul", x, m) for x, m in zip((a, c), _MULTIPLIERS, strict=True)]
    return (
        _binary("xor", _binary("xor", upper[1], b), key[0]),
        lower[1],
        _binary("xor", _binary("xor", upper[0], d), key[1]),
        lower[0],
    )


def _grown(key: Expr, amount: int) -> Expr:
    return _binary("add", key, amount % (1 << 32)) if amount else key


def _binary(op: str, a: Expr, b: Expr | int) -> Expr:
    return Binary(op, a, Literal(b, DType.U32) if isinstance(b, int) else b)


def _stage(name: str, axes: Sequence[Axis], body: Expr) -> Stage:
    type = TensorType(DType.U32, tuple(axis.extent for axis in axes))
    return Stage(TensorVar(name, type), tuple(axes), body)


# Numbers from words


def uniform(word: Expr) -> Expr:
    """The f32 numbers k / 2**24, 0 <= k < 2**24, alike often; from the upper digits."""
    return Cast(_binary("shr", word, 8), DType.F32) * 2.0**-24


def uniform_f64(upper: Expr, lower: Expr) -> Expr:
    """The f64 numbers k / 2**53, 0 <= k < 2**53, alike often; from two words."""
    high = Cast(_binary("shr", upper, 5), DType.F64) * 2.0**26
    return (high + Cast(_binary("shr", lower, 6), DType.F64)) * 2.0**-53


def normal(first: Expr, second: Expr) -> tuple[Expr, Expr]:
    """Two independent f32 of the standard normal distribution from two words.

        sqrt(-2 log u) (cos(2 pi v), sin(2 pi v))     u in (0, 1], v in [0, 1)

    Box, Muller 1958, "A note on the generation of random normal deviates". None exceeds 5.77.
    """
    u = Binary("sub", Literal(1.0, DType.F32), uniform(first))
    radius = Unary("sqrt", Unary("log", u) * -2.0)
    angle = uniform(second) * (2 * math.pi)
    return radius * Unary("cos", angle), radius * Unary("sin", angle)
