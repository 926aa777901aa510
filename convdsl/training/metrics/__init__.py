"""Metrics: how good outputs are, over a whole data set, on the host.

A metric adds up counts, or exact sums, batch by batch; so its value does not depend on where
batches begin and end. Definitions are scikit-learn's; arguments and defaults stand in
`ir.techniques`.
"""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.training.metrics.classes import (
    Accuracy,
    ConfusionMatrix,
    IntersectionOverUnion,
    compare_classes,
    compare_one_class,
    compare_regions,
    f1,
    precision,
    recall,
)
from convdsl.training.metrics.numbers import (
    compare_numbers,
    mean_absolute_error,
    mean_squared_error,
)
from convdsl.training.metrics.record import Metric, MetricBuilder

METRICS: Mapping[str, MetricBuilder] = {
    "accuracy": MetricBuilder(Accuracy, compare_classes),
    "precision": MetricBuilder(precision, compare_classes),
    "recall": MetricBuilder(recall, compare_classes),
    "f1": MetricBuilder(f1, compare_classes),
    "confusion_matrix": MetricBuilder(ConfusionMatrix, compare_one_class),
    "intersection_over_union": MetricBuilder(IntersectionOverUnion, compare_regions),
    "mean_absolute_error": MetricBuilder(mean_absolute_error, compare_numbers),
    "mean_squared_error": MetricBuilder(mean_squared_error, compare_numbers),
}
"""Metrics by the names that the language gives them."""

__all__ = ["METRICS", "Metric", "MetricBuilder"]
