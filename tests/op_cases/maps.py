"""Cases of operators that work element by element, and of normalisation."""

from __future__ import annotations

from functools import partial

from convdsl.ops import BY_NAME
from op_cases.draw import Case, Draw, Generator, image_symbols, with_state

LETTERS = "NABCD"
EPS = (2.0**-17, 2.0**-10)  # ONNX holds epsilon in single precision: powers of two are exact


def unary(name: str, draw: Draw, low: float = -8.0, high: float = 8.0) -> Case:
    """y = f(x), on values where f does something."""
    x = draw.array(draw.shape(draw.integer(1, 5), 1, 5), low, high)
    return with_state(draw, name, {}, x, symbols={"x": tuple(LETTERS[: x.ndim])})


def binary(name: str, draw: Draw, low: float = -3.0, high: float = 3.0) -> Case:
    """y = f(a, b), broadcast: axes dropped from the front, or of extent 1."""
    shape = draw.shape(draw.integer(1, 4), 1, 5)
    operands: dict[str, tuple[int, ...]] = {}
    symbols: dict[str, tuple[str | None, ...]] = {}
    for operand in BY_NAME[name].operands:
        dropped = draw.pick(0, 0, draw.integer(0, len(shape)))
        kept = [1 if draw.chance(0.25) else extent for extent in shape[dropped:]]
        operands[operand.name] = tuple(kept)
        symbols[operand.name] = tuple(
            None if extent == 1 else letter
            for letter, extent in zip(LETTERS[dropped:], kept, strict=False)
        )
    arrays = {operand: draw.array(s, low, high) for operand, s in operands.items()}
    return Case(BY_NAME[name], {}, arrays, symbols)


def batch_norm(draw: Draw) -> Case:
    attributes = {"affine": draw.chance(0.8), "eps": draw.pick(*EPS)}
    x = draw.array(draw.shape(draw.integer(2, 5), 1, 5))
    return with_state(draw, "batch_norm", attributes, x, symbols=image_symbols(x.ndim))


def softmax(name: str, draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(2, 4)), -20, 20)
    attributes = {"axis": draw.integer(-x.ndim, x.ndim - 1)}
    return with_state(draw, name, attributes, x, symbols={"x": tuple(LETTERS[: x.ndim])})


def dropout(draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(2, 5), 1, 5))
    return with_state(draw, "dropout", {"p": draw.pick(0.0, 0.3, 1.0)}, x)


GENERATORS: dict[str, Generator] = {
    **{name: partial(unary, name) for name in ("relu", "relu6", "identity")},
    **{name: partial(binary, name) for name in ("add", "sub", "mul")},
    "div": partial(binary, "div", low=0.5, high=3.0),
    "sqrt": partial(unary, "sqrt", low=0.0),
    "batch_norm": batch_norm,
    "softmax": partial(softmax, "softmax"),
    "log_softmax": partial(softmax, "log_softmax"),
    "dropout": dropout,
}
