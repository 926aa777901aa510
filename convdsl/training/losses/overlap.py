"""The loss of masks: how much of two regions is the same."""

from __future__ import annotations

from convdsl.diagnostics import InputError
from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.tensor import TensorType
from convdsl.training.losses.classification import (
    Labelled,
    check_labels,
    focal_target,
    of_logits,
    shares,
)
from convdsl.training.losses.record import Arguments, LossBuilder, number, reduced


def dice_target(output: TensorType, arguments: Arguments) -> TensorType:
    """Target rule: labels of several classes, shares in the shape of the output of one."""
    if output.rank < 3:
        raise InputError(f"dice compares regions of maps [N, classes, ...], not of {output}")
    return focal_target(output, arguments)


def dice(b: Build, logits: Value, target: Value, a: Arguments) -> Value:
    """1 - (2 sum of p t + eps) / (sum of p + sum of t + eps), the sums over space

    p is the softmax of several classes, the sigmoid of one; the mean over samples and classes. A
    class that neither has is right. Milletari et al. 2016, arXiv:1606.04797, without squares.
    """
    several = logits.type.shape[1] != 1
    p = b("softmax", logits, axis=1) if several else b("sigmoid", logits)
    zero, one = number(b, 0.0, logits), number(b, 1.0, logits)
    if not target.type.dtype.is_float:
        seen = Labelled.of(b, target, logits.type, a["ignore_index"])
        target = b("where", b("logical_and", seen.hot, seen.counts), one, zero, name="hot")
        p = seen.judged(b, p)
    eps = number(b, a["eps"], logits)
    two = number(b, 2.0, logits)
    space = tuple(range(2, logits.type.rank))
    both = b("reduce_sum", b("mul", p, target), axes=space, name="both")
    either = b("reduce_sum", b("add", p, target), axes=space, name="either")
    above = b("add", b("mul", two, both), eps)
    below = b("add", either, eps)
    empty = b("less_equal", below, zero, name="empty")
    right = b("div", b("where", empty, one, above), b("where", empty, one, below), name="right")
    return reduced(b, b("sub", one, right), a["reduction"])


DICE = LossBuilder(dice_target, dice, "mask", shares, check_labels, of_logits)
