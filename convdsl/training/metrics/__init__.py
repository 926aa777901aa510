"""Metrics: how good outputs are, over a whole data set, on the host.

A metric adds up counts, or exact sums, batch by batch; so its value does not depend on where
batches begin and end. Definitions are scikit-learn's; arguments and defaults stand in
`ir.techniques`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from convdsl.training.metrics.classes import (
    Accuracy,
    ConfusionMatrix,
    IntersectionOverUnion,
    f1,
    precision,
    recall,
)
from convdsl.training.metrics.numbers import mean_absolute_error, mean_squared_error
from convdsl.training.metrics.record import Arguments, Metric

METRICS: Mapping[str, Callable[[Arguments], Metric]] = {
    "accuracy": Accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "confusion_matrix": ConfusionMatrix,
    "intersection_over_union": IntersectionOverUnion,
    "mean_absolute_error": mean_absolute_error,
    "mean_squared_error": mean_squared_error,
}
"""What makes a metric from its arguments, by the names that the language gives them."""

__all__ = ["METRICS", "Metric"]
