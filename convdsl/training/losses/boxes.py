"""Losses of boxes, left, top, right, bottom: by how much of two boxes is the same.

A target without any extent is no box, and does not count: so cells that have nothing to find
have zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.tensor import TensorType
from convdsl.training.losses.record import (
    Arguments,
    Array,
    Composition,
    LossBuilder,
    UnknownSize,
    number,
    of_batch,
    reduced,
)

COORDINATES = 4

TINY = 1e-7
"""Added to what is divided by, as torchvision: boxes without any extent have an overlap of 0."""


def boxes_target(output: TensorType, arguments: Arguments) -> TensorType:
    """Target rule: as the boxes, [.., 4]."""
    if output.rank > 1 and not isinstance(output.shape[-1], int):
        raise UnknownSize(f"how many numbers boxes in {output} have has to be known")
    if output.rank < 2 or output.shape[-1] != COORDINATES:
        raise InputError(f"boxes are [.., 4], left, top, right, bottom, not {output}")
    return output


@dataclass(frozen=True, slots=True)
class _Sides:
    """Boxes by their corners, each [.., 1]."""

    build: Build
    left: Value
    top: Value
    right: Value
    bottom: Value

    @classmethod
    def of(cls, b: Build, boxes: Value) -> _Sides:
        last = boxes.type.rank - 1
        parts = [
            b("slice", boxes, axes=(last,), start=(i,), stop=(i + 1,)) for i in range(COORDINATES)
        ]
        return cls(b, *parts)

    @property
    def width(self) -> Value:
        return self.build("sub", self.right, self.left)

    @property
    def height(self) -> Value:
        return self.build("sub", self.bottom, self.top)

    @property
    def area(self) -> Value:
        return self.build("mul", self.width, self.height)

    def middle(self) -> tuple[Value, Value]:
        """Across and down."""
        b, half = self.build, number(self.build, 0.5, self.left)
        ends = ((self.left, self.right), (self.top, self.bottom))
        across, down = (b("mul", half, b("add", *pair)) for pair in ends)
        return across, down

    def slope(self) -> Value:
        """The angle whose tangent is width / height."""
        b = self.build
        height = b("max", self.height, number(b, TINY, self.height))
        return b("atan", b("div", self.width, height), name="slope")


@dataclass(frozen=True, slots=True)
class _Pair:
    """Boxes and their targets, and what both have in common."""

    found: _Sides
    wanted: _Sides

    @property
    def build(self) -> Build:
        return self.found.build

    def _of(self, op: str, corner: str) -> Value:
        return self.build(op, getattr(self.found, corner), getattr(self.wanted, corner))

    def shared(self) -> Value:
        """The area of the intersection; 0 where there is none."""
        b = self.build
        inner = _Sides(
            b,
            self._of("max", "left"),
            self._of("max", "top"),
            self._of("min", "right"),
            self._of("min", "bottom"),
        )
        zero = number(b, 0.0, self.found.left)
        return b("mul", b("max", zero, inner.width), b("max", zero, inner.height), name="shared")

    def around(self) -> _Sides:
        """The smallest box that holds both."""
        return _Sides(
            self.build,
            self._of("min", "left"),
            self._of("min", "top"),
            self._of("max", "right"),
            self._of("max", "bottom"),
        )

    def overlap(self) -> tuple[Value, Value]:
        """(intersection over union, union)"""
        b, shared = self.build, self.shared()
        either = b("sub", b("add", self.found.area, self.wanted.area), shared, name="union")
        return _quotient(b, shared, either), either

    def distance(self) -> Value:
        """The squared distance of the middles, as a part of the squared diagonal around both."""
        b, around = self.build, self.around()
        apart = [
            b("sub", mine, theirs)
            for mine, theirs in zip(self.found.middle(), self.wanted.middle(), strict=True)
        ]
        return _quotient(b, _squares(b, *apart), _squares(b, around.width, around.height))


def _quotient(b: Build, x: Value, y: Value) -> Value:
    return b("div", x, b("add", y, number(b, TINY, y)))


def _squares(b: Build, x: Value, y: Value) -> Value:
    return b("add", b("mul", x, x), b("mul", y, y))


def _but(b: Build, x: Value) -> Value:
    """1 - x"""
    return b("sub", number(b, 1.0, x), x)


def _iou(pair: _Pair) -> Value:
    """1 - IoU, IoU = |A and B| / |A or B|"""
    return _but(pair.build, pair.overlap()[0])


def _giou(pair: _Pair) -> Value:
    """1 - IoU + (|C| - |A or B|) / |C|, C the smallest box around both"""
    b, (overlap, either) = pair.build, pair.overlap()
    whole = pair.around().area
    return b("add", _but(b, overlap), _quotient(b, b("sub", whole, either), whole))


def _diou(pair: _Pair) -> Value:
    """1 - IoU + d^2 / c^2, d between the middles, c the diagonal of the smallest box around both"""
    return pair.build("add", _iou(pair), pair.distance())


def _ciou(pair: _Pair) -> Value:
    """1 - IoU + d^2 / c^2 + a v
    v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2
    a = v / (1 - IoU + v), through which nothing is learnt"""
    b, missing = pair.build, _iou(pair)
    apart = b("sub", pair.wanted.slope(), pair.found.slope())
    unlike = b("mul", number(b, 4 / pi**2, apart), b("mul", apart, apart), name="unlike")
    share = b("stop_gradient", _quotient(b, unlike, b("add", missing, unlike)))
    return b("add", b("add", missing, pair.distance()), b("mul", share, unlike))


def _by(rule: Callable[[_Pair], Value]) -> Composition:
    """The mean over boxes whose target has an extent; of none, 0."""

    def build(b: Build, output: Value, target: Value, a: Arguments) -> Value:
        pair = _Pair(_Sides.of(b, output), _Sides.of(b, target))
        zero, one = number(b, 0.0, output), number(b, 1.0, output)
        sides = (pair.wanted.width, pair.wanted.height)
        flat = b("logical_or", *(b("less_equal", side, zero) for side in sides), name="flat")
        total = reduced(b, b("where", flat, zero, rule(pair), name="each"), "sum")
        if a["reduction"] == "sum":
            return total
        count = reduced(b, b("where", flat, zero, one, name="counted"), "sum")
        return b("div", total, b("max", of_batch(b, count), one), name="loss")

    return build


def check_boxes(target: Array, output: TensorType, arguments: Arguments) -> None:
    """No box ends before it begins."""
    wrong = (target[..., 2:] < target[..., :2]).any(axis=-1)
    if wrong.any():
        place = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
        box = ", ".join(f"{x:.6g}" for x in target[place])
        raise InputError(f"box {list(place)} of the batch, {box}, ends before it begins")


IOU = LossBuilder(boxes_target, _by(_iou), "boxes", None, check_boxes)
GIOU = LossBuilder(boxes_target, _by(_giou), "boxes", None, check_boxes)
DIOU = LossBuilder(boxes_target, _by(_diou), "boxes", None, check_boxes)
CIOU = LossBuilder(boxes_target, _by(_ciou), "boxes", None, check_boxes)
