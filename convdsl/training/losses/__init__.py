"""Losses: how far outputs are from their targets, as graphs of existing operators.

Each is composed by `Build`, in a form that is finite wherever its value is; gradients, fusion and
code follow as for any graph. Arguments and their defaults stand in `ir.techniques`.
"""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.training.losses.boxes import CIOU, DIOU, GIOU, IOU
from convdsl.training.losses.classification import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, FOCAL, NLL
from convdsl.training.losses.overlap import DICE
from convdsl.training.losses.record import Arguments, Array, LossBuilder, UnknownSize
from convdsl.training.losses.regression import (
    BOX,
    HUBER,
    KL_DIVERGENCE,
    L1,
    MEAN,
    MSE,
    SMOOTH_L1,
)

LOSSES: Mapping[str, LossBuilder] = {
    "cross_entropy": CROSS_ENTROPY,
    "nll": NLL,
    "binary_cross_entropy": BINARY_CROSS_ENTROPY,
    "focal": FOCAL,
    "mse": MSE,
    "l1": L1,
    "smooth_l1": SMOOTH_L1,
    "huber": HUBER,
    "kl_divergence": KL_DIVERGENCE,
    "dice": DICE,
    "box": BOX,
    "iou": IOU,
    "giou": GIOU,
    "diou": DIOU,
    "ciou": CIOU,
    "mean": MEAN,
}
"""Losses by the names that the language gives them."""

COMPARING: Mapping[str, LossBuilder] = {n: loss for n, loss in LOSSES.items() if not loss.own}
"""Those that compare an output with a target."""

__all__ = ["COMPARING", "LOSSES", "Arguments", "Array", "LossBuilder", "UnknownSize"]
