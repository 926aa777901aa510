"""Cases of positions that are data, of elements chosen by where they stand, of sums of products."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from convdsl.ops import BY_NAME
from op_cases.draw import Array, Case, Draw, Generator, with_state
from op_cases.movement import LETTERS, any_dtype, letters


def take_along(draw: Draw) -> Case:
    """Positions from both ends; where batch and channels are, at times fewer than x has."""
    x = any_dtype(draw, draw.shape(draw.integer(1, 4), 1, 5))
    axis = draw.integer(-x.ndim, x.ndim - 1)
    shape = [extent if draw.chance(0.8) else draw.integer(1, extent) for extent in x.shape]
    shape[axis] = draw.integer(1, 6)
    positions = draw.rng.integers(-x.shape[axis], x.shape[axis], shape)
    whole = all(
        a == b for k, (a, b) in enumerate(zip(shape, x.shape, strict=True)) if k != axis % x.ndim
    )
    names: list[str | None] = list(LETTERS[: x.ndim])
    other = [*names]
    other[axis] = "K"
    symbols = {"x": tuple(names), "positions": tuple(other)} if whole else {}
    arrays = {"x": x, "positions": positions}
    return Case(BY_NAME["take_along"], {"axis": axis}, arrays, symbols)


def places(draw: Draw, x: Array, batch: int, said: int) -> Array:
    """Rows of positions from both ends."""
    shape = (*x.shape[:batch], *(draw.integer(1, 4) for _ in range(draw.integer(0, 2))))
    extents = x.shape[batch : batch + said]
    rows = [draw.rng.integers(-extent, extent, shape) for extent in extents]
    return np.stack(rows, axis=-1)


def take_at(draw: Draw) -> Case:
    x = any_dtype(draw, draw.shape(draw.integer(1, 4), 1, 4))
    batch = draw.pick(0, 0, draw.integer(0, x.ndim - 1))
    positions = places(draw, x, batch, draw.integer(1, x.ndim - batch))
    names = tuple(LETTERS[: x.ndim])
    own = (*names[:batch], *"KLM"[: positions.ndim - 1 - batch], None)
    arrays, symbols = {"x": x, "positions": positions}, {"x": names, "positions": own}
    return Case(BY_NAME["take_at"], {"batch": batch}, arrays, symbols)


def _updated(draw: Draw, x: Array, shape: tuple[int, ...]) -> tuple[Array, str]:
    """Updates, and what is made of several for one place: masks know the last only."""
    updates = draw.array(shape, -9, 9).astype(x.dtype)
    if x.dtype == bool:
        updates = draw.rng.random(shape) < 0.5
        return updates, "last"
    return updates, draw.pick("last", "last", "add", "mul", "max", "min")


def put_along(draw: Draw) -> Case:
    """Positions of which many come twice."""
    x = any_dtype(draw, draw.shape(draw.integer(1, 4), 1, 5))
    axis = draw.integer(-x.ndim, x.ndim - 1)
    shape = [extent if draw.chance(0.8) else draw.integer(1, extent) for extent in x.shape]
    shape[axis] = draw.integer(1, 6)
    positions = draw.rng.integers(-x.shape[axis], x.shape[axis], shape)
    updates, by = _updated(draw, x, tuple(shape))
    arrays = {"x": x, "positions": positions, "updates": updates}
    return Case(BY_NAME["put_along"], {"axis": axis, "by": by}, arrays)


def put_at(draw: Draw) -> Case:
    x = any_dtype(draw, draw.shape(draw.integer(1, 4), 1, 4))
    said = draw.integer(1, x.ndim)
    positions = places(draw, x, 0, said)
    if positions.ndim == 1:
        positions = positions[None]
    updates, by = _updated(draw, x, (*positions.shape[:-1], *x.shape[said:]))
    arrays = {"x": x, "positions": positions, "updates": updates}
    names = tuple(LETTERS[: x.ndim])
    rows = ("K", "L")[: positions.ndim - 1]
    symbols = {"x": names, "positions": (*rows, None), "updates": (*rows, *names[said:])}
    return Case(BY_NAME["put_at"], {"by": by}, arrays, symbols)


def triangle(name: str, draw: Draw) -> Case:
    x = any_dtype(draw, draw.shape(draw.integer(2, 5), 1, 6))
    return with_state(draw, name, {"diagonal": draw.integer(-4, 4)}, x, symbols=letters(x))


def cumsum(draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(1, 4), 1, 9))
    x = draw.pick(x, x, x.round().astype("int64"))
    attributes = {
        "axis": draw.integer(-x.ndim, x.ndim - 1),
        "exclusive": draw.chance(),
        "reverse": draw.chance(),
    }
    return with_state(draw, "cumsum", attributes, x, symbols=letters(x))


def roll(draw: Draw) -> Case:
    x = any_dtype(draw, draw.shape(draw.integer(1, 5), 2, 7))
    axes = [int(axis) for axis in draw.rng.permutation(x.ndim)[: draw.integer(1, 2)]]
    shifts = tuple(draw.integer(-9, 9) for _ in axes)
    named = tuple(axis - (x.ndim if draw.chance(0.3) else 0) for axis in axes)
    attributes: dict[str, Any] = {"shift": shifts, "axes": named}
    return with_state(draw, "roll", attributes, x)


EQUATIONS = (
    "bhid,bhjd->bhij", "bhij,bhjd->bhid", "ij,jk", "ij,jk->ik", "i,i->", "i,j->ij", "ij->ji",
    "ij->", "ij->j", "bij,jk->bik", "bij,bjk->bik", "...ij,...jk->...ik", "bqnc,nchw->bqnhw",
    "bchw,bkc->bkhw", "abc,cd,de->abe", "ab,bc,ca->", "...a,...a", "a...,b...->ab...",
    "bn,anm,bm->ba", "mk, kij, cldj, cldk -> mi", "ab,cd->", "abc,a->c",
)  # fmt: skip

DIAGONALS = ("ii->i", "ii", "bii->bi", "bii->b", "ijj,j->ij")


def einsum(draw: Draw) -> Case:
    equation = draw.pick(*EQUATIONS, *DIAGONALS)
    sizes = {name: draw.integer(1, 4) for name in "abcdehijklmnqwxyz"}
    dots = [draw.integer(1, 3) for _ in range(draw.integer(0, 2))]
    arrays: dict[str, Array] = {}
    whole = draw.chance(0.1)
    for number, term in enumerate(equation.replace(" ", "").split("->")[0].split(",")):
        own = [1 if draw.chance(0.3) else size for size in dots]
        before, _, after = term.partition("...")
        hidden = own[draw.integer(0, len(own)) :] if "..." in term else []
        shape = [*(sizes[n] for n in before), *hidden, *(sizes[n] for n in after)]
        x = draw.array(shape)
        arrays[f"x{number}"] = np.rint(x).astype("int64") if whole else x
    return Case(BY_NAME["einsum"], {"equation": equation}, arrays)


GENERATORS: dict[str, Generator] = {
    "take_along": take_along,
    "take_at": take_at,
    "put_along": put_along,
    "put_at": put_at,
    "tril": partial(triangle, "tril"),
    "triu": partial(triangle, "triu"),
    "cumsum": cumsum,
    "roll": roll,
    "einsum": einsum,
}
