"""Losses of numbers: squares, magnitudes, what lies between, divergence, and boxes of classes."""

from __future__ import annotations

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.tensor import TensorType
from convdsl.training.losses.record import (
    Arguments,
    Array,
    LossBuilder,
    UnknownSize,
    alike,
    number,
    reduced,
)


def mse(b: Build, output: Value, target: Value, a: Arguments) -> Value:
    """(output - target)^2"""
    apart = b("sub", output, target)
    return reduced(b, b("mul", apart, apart), a["reduction"])


def l1(b: Build, output: Value, target: Value, a: Arguments) -> Value:
    """|output - target|"""
    return reduced(b, _distance(b, output, target), a["reduction"])


def huber(b: Build, output: Value, target: Value, a: Arguments) -> Value:
    """d^2 / 2 up to delta, then delta (d - delta / 2), where d = |output - target|. Huber 1964."""
    return reduced(b, _bent(b, _distance(b, output, target), a["delta"]), a["reduction"])


def smooth_l1(b: Build, output: Value, target: Value, a: Arguments) -> Value:
    """d^2 / (2 beta) up to beta, then d - beta / 2; d itself for a beta of 0."""
    return reduced(b, _smooth(b, _distance(b, output, target), a["beta"]), a["reduction"])


def mean(b: Build, output: Value, target: Value, a: Arguments) -> Value:
    """The output is the loss: what a network computes of itself."""
    return reduced(b, output, "mean")


def _distance(b: Build, output: Value, target: Value) -> Value:
    return b("abs", b("sub", output, target), name="distance")


def _smooth(b: Build, distance: Value, beta: float) -> Value:
    if beta == 0:
        return distance
    return b("mul", _bent(b, distance, beta), number(b, 1.0 / beta, distance))


def _bent(b: Build, distance: Value, limit: float) -> Value:
    """n (d - n / 2), where n = min(d, limit): nothing large is squared"""
    near = b("min", distance, number(b, limit, distance), name="near")
    half = b("mul", near, number(b, 0.5, distance))
    return b("mul", near, b("sub", distance, half))


def distribution(output: TensorType, arguments: Arguments) -> TensorType:
    """Target rule: probabilities of classes, as the output."""
    if output.rank < 2:
        raise InputError(f"an output of classes is [N, classes, ...], not {output}")
    return output


def kl_divergence(b: Build, logits: Value, target: Value, a: Arguments) -> Value:
    """t (log t - log softmax(logits)), 0 where t is; of a target that holds log t if `log_target`.

    Logarithms of probabilities are logits too: they are their own log_softmax. `batchmean` is the
    mean over samples, and so the divergence; `mean`, PyTorch's default, is over all elements.
    """
    log_p = b("log_softmax", logits, axis=1)
    if a["log_target"]:
        terms = b("mul", b("exp", target), b("sub", target, log_p))
        return reduced(b, terms, a["reduction"])
    zero = number(b, 0.0, target)
    some = b("greater", target, zero, name="some")
    sure = b("where", some, target, number(b, 1.0, target))
    terms = b("mul", target, b("sub", b("log", sure), log_p))
    return reduced(b, b("where", some, terms, zero), a["reduction"])


# Boxes

COORDINATES = 4


def box_target(output: TensorType, arguments: Arguments) -> TensorType:
    """Target rule: [N, 5], a class and four numbers for each region."""
    _boxes(output)
    return TensorType(output.dtype, (output.shape[0], 1 + COORDINATES))


def _boxes(output: TensorType) -> int:
    """How many classes of boxes [N, 4 classes] or [N, classes, 4] there are."""
    match output.shape[1:]:
        case (int(numbers),) if numbers and numbers % COORDINATES == 0:
            return numbers // COORDINATES
        case (int(count), int(numbers)) if numbers == COORDINATES:
            return count
        case (_,) | (_, _) as sizes if not all(isinstance(size, int) for size in sizes):
            raise UnknownSize(f"the sizes of boxes {output} have to be known")
        case _:
            pass
    raise InputError(f"boxes by class are [N, 4 classes] or [N, classes, 4], not {output}")


def check_box_classes(target: Array, output: TensorType, arguments: Arguments) -> None:
    """The first number of each row is a class: of those that there are, or any where there is one
    box for all."""
    count, given = _boxes(output), target[:, 0]
    wrong = ~((given >= 0) & np.isfinite(given) & (given == np.floor(given)))
    if count > 1:
        wrong |= given >= count
    if wrong.any():
        place = int(np.argmax(wrong))
        text = f"box {place} of the batch is of class {given[place]:.6g}"
        raise InputError(f"{text}, and the network has boxes for {count} classes, 0 to {count - 1}")


def box(b: Build, output: Value, target: Value, a: Arguments) -> Value:
    """[class >= 1] sum over the box of smooth_l1(output[class] - target), the mean over regions.

    output: [N, 4 classes] or [N, classes, 4], class 0 the background, which has no box; or one box
        for all classes.
    target: [N, 5], the class, and its box in whatever numbers the network gives.

    With `cross_entropy` of the classes it is the loss of Fast R-CNN, in which N counts the
    background too: Girshick 2015, arXiv:1504.08083, equations 1 to 3.
    """
    count, batch, dtype = _boxes(output.type), output.type.shape[0], output.type.dtype
    boxes = b.reshape(output, (batch, count, COORDINATES))
    kind = b("slice", target, axes=(1,), start=(0,), stop=(1,))
    wanted = b("slice", target, axes=(1,), start=(1,), stop=(1 + COORDINATES,))
    wanted = b("unsqueeze", wanted, axes=(1,))
    bent = _smooth(b, _distance(b, boxes, wanted), a["beta"])
    there = b("greater_equal", kind, b.constant(1.0, dtype), name="there")
    if count > 1:
        classes = b.constant(np.arange(count), dtype, name="classes")
        there = b("logical_and", there, b("equal", kind, classes), name="there")
    there = b("unsqueeze", there, axes=(2,))
    each = b("where", there, bent, number(b, 0.0, bent), name="each")
    return reduced(b, b("reduce_sum", each, axes=(1, 2), name="region"), a["reduction"])


MSE = LossBuilder(alike, mse, "target")
L1 = LossBuilder(alike, l1, "target")
HUBER = LossBuilder(alike, huber, "target")
SMOOTH_L1 = LossBuilder(alike, smooth_l1, "target")
KL_DIVERGENCE = LossBuilder(distribution, kl_divergence, "target")
BOX = LossBuilder(box_target, box, "boxes", None, check_box_classes)
MEAN = LossBuilder(alike, mean, own=True)
