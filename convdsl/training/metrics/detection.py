"""How good found boxes are: precision, averaged over how many of the true ones are found."""

from __future__ import annotations

from math import nan

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.training.metrics.classes import overlaps_of_all
from convdsl.training.metrics.record import Array, Values


class AveragePrecision:
    """The mean over classes of the area under precision by recall.

    A found box is right where its overlap with a true one of its class, which no better one has
    taken, is `overlap` or more. Precision at a recall is the largest at that recall or beyond.
    Everingham et al. 2010, section 4.2, over all recalls, as VOC does since 2010.

    found: [N, K, 6], left, top, right, bottom, score, class; a score of 0 is no box.
    truth: [N, M, 5], left, top, right, bottom, class; a box without extent is none.
    """

    def __init__(self, overlap: float = 0.5) -> None:
        self._overlap = overlap
        self._found: dict[int, list[tuple[float, bool]]] = {}
        self._there: dict[int, int] = {}

    def add(self, output: Array, target: Array) -> None:
        """Take in a batch. Raises InputError for other shapes."""
        shapes = f"{list(output.shape)} and {list(target.shape)}"
        if output.ndim != 3 or target.ndim != 3 or len(output) != len(target):
            raise InputError(f"found and true boxes are [N, K, 6] and [N, M, 5], not {shapes}")
        if output.shape[2] != 6 or target.shape[2] != 5:
            raise InputError(f"found and true boxes are [N, K, 6] and [N, M, 5], not {shapes}")
        for found, truth in zip(output.astype(np.float64), target.astype(np.float64), strict=True):
            truth = truth[(truth[:, 2] > truth[:, 0]) & (truth[:, 3] > truth[:, 1])]
            self._add_image(found[found[:, 4] > 0], truth)

    def _add_image(self, found: Array, truth: Array) -> None:
        kinds = sorted({*found[:, 5].astype(int).tolist(), *truth[:, 4].astype(int).tolist()})
        for kind in kinds:
            mine, theirs = found[found[:, 5] == kind], truth[truth[:, 4] == kind]
            mine = mine[np.argsort(-mine[:, 4], kind="stable")]
            self._there[kind] = self._there.get(kind, 0) + len(theirs)
            right = self._right(mine[:, :4], theirs[:, :4])
            self._found.setdefault(kind, []).extend(zip(mine[:, 4].tolist(), right, strict=True))

    def _right(self, found: Array, truth: Array) -> list[bool]:
        """Whether each, the best first, is one that nobody before it has found."""
        overlaps = overlaps_of_all(found, truth)
        right: list[bool] = []
        for row in overlaps:
            best = int(row.argmax()) if row.size else -1
            right.append(best >= 0 and bool(row[best] >= self._overlap))
            if right[-1]:
                overlaps[:, best] = 0
        return right

    def value(self) -> Values:
        """`average_precision`, and by class: None of one that never was there."""
        count = max(self._there, default=-1) + 1
        each = [self._area(kind) if self._there.get(kind) else None for kind in range(count)]
        known = [area for area in each if area is not None]
        mean = sum(known) / len(known) if known else nan
        return {"average_precision": mean, "average_precision_by_class": each}

    def _area(self, kind: int) -> float:
        ranked = sorted(self._found.get(kind, []), key=lambda pair: -pair[0])
        right = np.cumsum([hit for _, hit in ranked], dtype=np.float64)
        precision = right / np.arange(1, len(ranked) + 1)
        reached = np.maximum.accumulate(precision[::-1])[::-1]
        steps = np.diff(right, prepend=0.0) / self._there[kind]
        return float((reached * steps).sum())
