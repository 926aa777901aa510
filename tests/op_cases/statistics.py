"""Cases of normalisation, softmax, reductions and selections."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from op_cases.draw import Case, Draw, Generator, image_symbols, with_state

LETTERS = "NABCD"
EPS = (2.0**-17, 2.0**-10)  # ONNX holds epsilon in single precision: powers of two are exact


def batch_norm(draw: Draw) -> Case:
    attributes = {"affine": draw.chance(0.8), "eps": draw.pick(*EPS)}
    x = draw.array(draw.shape(draw.integer(2, 5), 1, 5))
    return with_state(draw, "batch_norm", attributes, x, symbols=image_symbols(x.ndim))


def trailing(name: str, draw: Draw) -> Case:
    """Normalised along the last axes."""
    x = draw.array(draw.shape(draw.integer(2, 5), 2, 5))
    axis = draw.integer(1, x.ndim - 1)
    attributes = {
        "axis": draw.pick(axis, axis - x.ndim),
        "affine": draw.chance(0.7),
        "eps": draw.pick(*EPS),
    }
    symbols = {"x": tuple(s if j < axis else None for j, s in enumerate(LETTERS[: x.ndim]))}
    return with_state(draw, name, attributes, x, symbols=symbols)


def group_norm(draw: Draw) -> Case:
    groups = draw.integer(1, 3)
    shape = list(draw.shape(draw.integer(3, 5), 2, 5))
    shape[1] = groups * draw.integer(1, 3)
    attributes = {"groups": groups, "affine": draw.chance(0.7), "eps": draw.pick(*EPS)}
    return with_state(
        draw, "group_norm", attributes, draw.array(shape), symbols=image_symbols(len(shape))
    )


def instance_norm(draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(3, 5), 2, 5))
    attributes = {"affine": draw.chance(0.7), "eps": draw.pick(*EPS)}
    return with_state(draw, "instance_norm", attributes, x, symbols=image_symbols(x.ndim))


def lrn(draw: Draw) -> Case:
    shape = list(draw.shape(draw.integer(3, 4), 1, 4))
    shape[1] = draw.integer(1, 9)
    attributes = {
        "size": draw.integer(1, 6),
        "alpha": draw.pick(0.5, 0.0625),
        "beta": draw.pick(0.75, 0.5),
        "k": draw.pick(1.0, 2.0),
        "extra": draw.pick("before", "after"),
    }
    return with_state(draw, "lrn", attributes, draw.array(shape), symbols=image_symbols(len(shape)))


def softmax(name: str, draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(2, 4)), -20, 20)
    attributes = {"axis": draw.integer(-x.ndim, x.ndim - 1)}
    return with_state(draw, name, attributes, x, symbols={"x": tuple(LETTERS[: x.ndim])})


def reduction(name: str, draw: Draw) -> Case:
    x = draw.array(draw.shape(draw.integer(1, 5), 1, 5))
    if name == "reduce_log_sum_exp" and draw.chance(0.3):
        x = x * 400
    if name in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod") and draw.chance(0.3):
        x = x.astype(np.int64)
    chosen = draw.rng.permutation(x.ndim)[: draw.integer(1, x.ndim)]
    axes: Any = [int(axis) - (x.ndim if draw.chance() else 0) for axis in chosen]
    axes = draw.pick(axes[0], tuple(axes), "all", "space" if x.ndim > 2 else "all")
    attributes = {"axes": axes, "keepdims": draw.chance()}
    return with_state(draw, name, attributes, x, symbols={"x": tuple(LETTERS[: x.ndim])})


def arg(name: str, draw: Draw) -> Case:
    x = draw.repeated(draw.shape(draw.integer(2, 4)))
    if draw.chance(0.2):
        x = x.astype(np.int64)
    axis = draw.integer(-x.ndim, x.ndim - 1)
    attributes = {"axis": axis, "keepdims": draw.chance()}
    return with_state(draw, name, attributes, x, symbols={"x": tuple(LETTERS[: x.ndim])})


def top_k(draw: Draw) -> Case:
    x = draw.repeated(draw.shape(draw.integer(2, 4), 1, 6))
    axis = draw.integer(-x.ndim, x.ndim - 1)
    attributes = {
        "axis": axis, "k": draw.integer(1, x.shape[axis]), "largest": draw.chance()
    }  # fmt: skip
    names = [s if j != axis % x.ndim else None for j, s in enumerate(LETTERS[: x.ndim])]
    return with_state(draw, "top_k", attributes, x, symbols={"x": tuple(names)})


GENERATORS: dict[str, Generator] = {
    "batch_norm": batch_norm,
    "layer_norm": partial(trailing, "layer_norm"),
    "rms_norm": partial(trailing, "rms_norm"),
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "lrn": lrn,
    **{name: partial(softmax, name) for name in ("softmax", "log_softmax")},
    **{
        f"reduce_{kind}": partial(reduction, f"reduce_{kind}")
        for kind in (
            "sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum_exp"
        )
    },
    **{name: partial(arg, name) for name in ("argmax", "argmin")},
    "top_k": top_k,
}  # fmt: skip
