"""Schedules of the learning rate."""

from __future__ import annotations

from typing import Any

from convdsl.ir.techniques.record import (
    COUNT,
    COUNTS,
    FRACTION,
    MANY,
    NEEDED,
    POSITIVE,
    RATE,
    SHARE,
    Argument,
    Table,
    Technique,
    table,
)

_WARMUP = Argument("warmup", RATE, 0.0, "epochs, or parts of one, in which the rate grows to `lr`")
_MINIMUM = Argument("minimum", RATE, 0.0, "the rate at the end")


def _factor(default: Any) -> Argument:
    return Argument("factor", FRACTION, default, "what the rate is multiplied by")


SCHEDULES: Table = table(
    Technique("constant", "`lr` throughout", (_WARMUP,)),
    Technique(
        "step",
        "less every so many epochs",
        (Argument("every", MANY, NEEDED, "epochs between drops"), _factor(0.1), _WARMUP),
    ),
    Technique(
        "multistep",
        "less at some epochs",
        (
            Argument("at", COUNTS, NEEDED, "epochs, counted from 0, that begin with a lower rate"),
            _factor(0.1),
            _WARMUP,
        ),
    ),
    Technique("exponential", "less every epoch", (_factor(NEEDED), _WARMUP)),
    Technique("cosine", "half a cosine from `lr` to the minimum", (_WARMUP, _MINIMUM)),
    Technique("linear", "a line from `lr` to the minimum", (_WARMUP, _MINIMUM)),
    Technique(
        "polynomial",
        "(1 - t)**power from `lr` to the minimum",
        (Argument("power", POSITIVE, 1.0, "its degree"), _WARMUP, _MINIMUM),
    ),
    Technique(
        "one_cycle",
        "half cosines up to the peak and down again; Smith, Topin 2018",
        (
            Argument("warmup", RATE, None, "epochs of the way up; 0.3 of all of them"),
            Argument("peak", POSITIVE, None, "the highest rate; `lr`"),
            Argument("divide", POSITIVE, 25.0, "it starts at peak / divide"),
            Argument("final_divide", POSITIVE, 1e4, "it ends at the start / final_divide"),
        ),
    ),
    Technique(
        "plateau",
        "less where the validation loss stays",
        (
            _factor(0.1),
            Argument("patience", COUNT, 10, "epochs without improvement that pass"),
            Argument("threshold", SHARE, 1e-4, "share by which it must fall to be an improvement"),
            Argument("cooldown", COUNT, 0, "epochs after a drop that are not counted"),
            Argument("minimum", RATE, 0.0, "the lowest rate"),
            _WARMUP,
        ),
    ),
)
