"""Cases of data movement."""

from __future__ import annotations

from convdsl.ops import BY_NAME
from op_cases.draw import Case, Draw, Generator, with_state

LETTERS = "NABCDE"


def concat(draw: Draw) -> Case:
    shape = list(draw.shape(draw.integer(1, 4), 1, 5))
    axis = draw.integer(-len(shape), len(shape) - 1)
    arrays, symbols = {}, {}
    for number in range(draw.integer(1, 4)):
        shape[axis] = draw.integer(1, 4)
        arrays[f"x{number}"] = draw.array(shape)
        names = list(LETTERS[: len(shape)])
        names[axis] = f"K{number}"
        symbols[f"x{number}"] = tuple(names)
    return Case(BY_NAME["concat"], {"axis": axis}, arrays, symbols)


def flatten(draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(2, 5), 1, 5))
    start = draw.pick(1, draw.integer(0, x.ndim - 1))
    end = draw.pick(-1, draw.integer(start, x.ndim - 1))
    symbols = {"x": tuple(LETTERS[: x.ndim])}
    return with_state(draw, "flatten", {"start": start, "end": end}, x, symbols=symbols)


def reshape(draw: Draw) -> Case:
    """Factors of the elements spread over the new axes; at times the first axis is kept."""
    x = draw.array(draw.pick((2, 6, 4, 3), (3, 8, 1, 5), (4, 6), (2, 3, 2, 2, 3), (1, 12), (12,)))
    kept = list(x.shape[:1]) if draw.chance() else []
    rest, shape = x.size // (kept[0] if kept else 1), list(kept)
    while rest > 1 and len(shape) < 5:
        factor = draw.pick(*(f for f in range(1, rest + 1) if rest % f == 0))
        shape.append(factor)
        rest //= factor
    shape.append(rest)
    if draw.chance():
        shape[draw.integer(0, len(shape) - 1)] = -1
    return with_state(draw, "reshape", {"shape": tuple(shape)}, x)


GENERATORS: dict[str, Generator] = {"concat": concat, "flatten": flatten, "reshape": reshape}
