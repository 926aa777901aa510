"""Metrics."""

from __future__ import annotations

from convdsl.ir.techniques.losses import IGNORE
from convdsl.ir.techniques.record import (
    MANY,
    Argument,
    Table,
    Technique,
    one_of,
    table,
)

_AVERAGE = Argument(
    "average", one_of("macro", "micro"), "macro", "over classes alike, or over all that is counted"
)

METRICS: Table = table(
    Technique(
        "accuracy",
        "share of labels among the `top` guesses",
        (Argument("top", MANY, 1, "how many guesses"), IGNORE),
    ),
    Technique("precision", "share of the guesses of a class that are right", (_AVERAGE, IGNORE)),
    Technique("recall", "share of a class that is guessed", (_AVERAGE, IGNORE)),
    Technique("f1", "harmonic mean of the two, class by class", (_AVERAGE, IGNORE)),
    Technique("mean_absolute_error", "of numbers"),
    Technique("mean_squared_error", "of numbers"),
    Technique(
        "intersection_over_union",
        "of masks, mean over the classes and each of them; of boxes [x1, y1, x2, y2]",
        (IGNORE,),
    ),
    Technique("confusion_matrix", "counts: a row for a label, a column for a guess", (IGNORE,)),
)
