"""Losses of classes: cross-entropy, likelihood, binary cross-entropy, focal.

All start from logits (nll: from their log_softmax) and stay with logarithms, so that nothing is
divided by a probability that vanishes: values and gradients are finite for every finite logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.ir.opdef import OpDef
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType
from convdsl.training.losses.record import (
    Arguments,
    Array,
    LossBuilder,
    alike,
    classes_of,
    number,
    of_batch,
    per_class,
    reduced,
    spread,
)

# Labels


def labels(output: TensorType, arguments: Arguments) -> TensorType:
    """Target rule: i64 [N, ...], a class for each position of logits [N, classes, ...]."""
    classes_of(output)
    return TensorType(DType.I64, (output.shape[0], *output.shape[2:]))


def shares(output: TensorType, arguments: Arguments) -> TensorType:
    """Target rule: how much of each class there is, from 0 to 1, in the shape of the logits."""
    classes_of(output)
    return output


def check_labels(target: Array, output: TensorType, arguments: Arguments) -> None:
    """Every label is a class or ignored; shares are from 0 to 1."""
    if target.dtype.kind == "f":
        check_shares(target, output, arguments)
        return
    count = classes_of(output)
    wrong = (target < 0) | (target >= count)
    if "ignore_index" in arguments:
        wrong &= target != arguments["ignore_index"]
    if wrong.any():
        place = _first(wrong)
        text = f"sample {place[0]} of the batch is labelled {target[place]}"
        where = f" at {list(place[1:])}" if place[1:] else ""
        raise InputError(
            f"{text}{where}, and the network tells {count} classes, 0 to {count - 1}\n"
            "help: classes count from 0; what shall not count has the loss's ignore_index (-100)"
        )


def check_shares(target: Array, output: TensorType, arguments: Arguments) -> None:
    """Shares are from 0 to 1."""
    wrong = ~((target >= 0) & (target <= 1))
    if target.dtype.kind == "f" and wrong.any():
        place = _first(wrong)
        text = f"sample {place[0]} of the batch has {target[place]:.6g} in its target"
        raise InputError(f"{text}, and the loss takes shares from 0 to 1")


def _first(wrong: Array) -> tuple[Any, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels [N, ...] seen from logits [N, classes, ...].

    hot: whether a position is of a class, [N, classes, ...].
    counts: whether its label is not ignored, [N, 1, ...].
    known: whether its label is a class at all, [N, 1, ...].
    """

    hot: Value
    counts: Value
    known: Value

    @classmethod
    def of(cls, b: Build, label: Value, output: TensorType, ignored: int) -> Labelled:
        count = classes_of(output)
        classes = b.constant(spread(np.arange(count), output.rank), DType.I64, name="classes")
        label = b("unsqueeze", label, axes=(1,), name="label")
        hot = b("equal", label, classes, name="hot")
        zero, end, skip = (b.constant(i, DType.I64, name="number") for i in (0, count, ignored))
        inside = (b("greater_equal", label, zero), b("less", label, end))
        counts = b("not_equal", label, skip, name="counts")
        return cls(hot, counts, b("logical_and", *inside, name="known"))

    def judged(self, b: Build, each: Value) -> Value:
        """Numbers of positions: NaN where the label is no class, 0 where it is ignored."""
        each = b("where", self.known, each, number(b, nan, each), name="judged")
        return b("where", self.counts, each, number(b, 0.0, each), name="judged")


# Cross-entropy


def cross_entropy(b: Build, logits: Value, target: Value, a: Arguments) -> Value:
    """-sum over classes c of q[c] weight[c] log softmax(logits)[c], where
    q = (1 - label_smoothing) target + label_smoothing / classes

    Of labels the mean is over weight[label] of those that count, of shares over positions.
    Szegedy et al. 2015, arXiv:1512.00567, section 7.
    """
    log_p = b("log_softmax", logits, axis=1)
    if target.type.dtype.is_float:
        return _of_shares(b, log_p, target, a)
    return _of_labels(b, log_p, target, a, a["label_smoothing"])


def nll(b: Build, log_p: Value, label: Value, a: Arguments) -> Value:
    """-weight[label] log_p[label], the mean over weight[label] of labels that count."""
    return _of_labels(b, log_p, label, a, 0.0)


def _of_labels(b: Build, log_p: Value, label: Value, a: Arguments, smoothing: float) -> Value:
    seen = Labelled.of(b, label, log_p.type, a["ignore_index"])
    weight = per_class(b, a["class_weights"], log_p, "class_weights")
    zero, surprise = number(b, 0.0, log_p), b("neg", log_p, name="surprise")
    if smoothing == 0.0:
        terms = b("where", seen.hot, _times(b, surprise, weight), zero)
    else:
        least = smoothing / classes_of(log_p.type)
        most, rest = number(b, 1.0 - smoothing + least, log_p), number(b, least, log_p)
        shares = b("where", seen.hot, most, rest, name="shares")
        terms = b("mul", shares, _times(b, surprise, weight), name="terms")
    each = seen.judged(b, _by_position(b, terms))
    total = reduced(b, each, "sum")
    if a["reduction"] == "sum":
        return total
    one = number(b, 1.0, log_p)
    if weight is not None:
        own = b("where", seen.hot, weight, zero, name="own")
        one = _by_position(b, own)
    counted = b("where", seen.counts, one, zero, name="counted")
    return b("div", total, of_batch(b, reduced(b, counted, "sum")), name="loss")


def _of_shares(b: Build, log_p: Value, target: Value, a: Arguments) -> Value:
    smoothing = a["label_smoothing"]
    if smoothing:
        kept = b("mul", target, number(b, 1.0 - smoothing, target))
        target = b("add", kept, number(b, smoothing / classes_of(log_p.type), target))
    weighted = _times(b, log_p, per_class(b, a["class_weights"], log_p, "class_weights"))
    terms = b("neg", b("mul", weighted, target), name="terms")
    return reduced(b, _by_position(b, terms), a["reduction"])


def _by_position(b: Build, terms: Value) -> Value:
    """The sum over classes, [N, 1, ...]"""
    return b("reduce_sum", terms, axes=(1,), keepdims=True, name="each")


def _times(b: Build, x: Value, factor: Value | None) -> Value:
    return x if factor is None else b("mul", x, factor, name="weighted")


# Yes or no


def _surprises(b: Build, logits: Value) -> tuple[Value, Value]:
    """-log sigmoid(x) and -log (1 - sigmoid(x)): what a yes and a no cost."""
    return b("softplus", b("neg", logits), name="yes"), b("softplus", logits, name="no")


def _but(b: Build, x: Value) -> Value:
    """1 - x"""
    return b("sub", number(b, 1.0, x), x)


def binary_cross_entropy(b: Build, logits: Value, target: Value, a: Arguments) -> Value:
    """class_weights (positive_weight t softplus(-x) + (1 - t) softplus(x))

    The mean over all elements, whatever their weights.
    """
    yes, no = _surprises(b, logits)
    yes = _times(
        b, b("mul", target, yes), per_class(b, a["positive_weight"], logits, "positive_weight")
    )
    terms = b("add", yes, b("mul", _but(b, target), no))
    terms = _times(b, terms, per_class(b, a["class_weights"], logits, "class_weights"))
    return reduced(b, terms, a["reduction"])


def focal_target(output: TensorType, arguments: Arguments) -> TensorType:
    """Target rule: labels where there are classes to choose from, otherwise as the output."""
    several = output.rank >= 2 and output.shape[1] != 1
    return (labels if several else alike)(output, arguments)


def focal(b: Build, logits: Value, target: Value, a: Arguments) -> Value:
    """alpha_t miss^gamma (t softplus(-x) + (1 - t) softplus(x)), a yes or no for each class
    miss    = t (1 - p) + (1 - t) p    p = sigmoid(x), t 1 for the label's class
    alpha_t = t alpha + (1 - t) (1 - alpha), or 1 for a negative alpha

    The mean over all elements. Lin et al. 2017, arXiv:1708.02002, with torchvision's arguments.
    """
    if target.type.dtype.is_float:
        return reduced(b, _focal_terms(b, logits, target, a), a["reduction"])
    seen = Labelled.of(b, target, logits.type, a["ignore_index"])
    hot = b("where", seen.hot, number(b, 1.0, logits), number(b, 0.0, logits), name="hot")
    terms = _focal_terms(b, logits, hot, a)
    each = seen.judged(b, _by_position(b, terms))
    total = reduced(b, each, "sum")
    if a["reduction"] == "sum":
        return total
    count = number(b, classes_of(logits.type), logits)
    counted = reduced(b, b("where", seen.counts, count, number(b, 0.0, logits)), "sum")
    return b("div", total, of_batch(b, counted), name="loss")


def _focal_terms(b: Build, logits: Value, target: Value, a: Arguments) -> Value:
    yes, no = _surprises(b, logits)
    other = _but(b, target)
    terms = b("add", b("mul", target, yes), b("mul", other, no))
    if a["gamma"]:
        wrong = b("mul", target, b("sigmoid", b("neg", logits)))
        miss = b("add", wrong, b("mul", other, b("sigmoid", logits)), name="miss")
        # A power below 1 has no slope at 0, where the product's is 0.
        least = np.finfo(logits.type.dtype.computed.numpy).tiny
        miss = b("max", miss, number(b, float(least), logits))
        terms = b("mul", b("pow", miss, number(b, a["gamma"], logits)), terms)
    if a["alpha"] >= 0:
        ours, rest = number(b, a["alpha"], logits), number(b, 1.0 - a["alpha"], logits)
        terms = b("mul", b("add", b("mul", target, ours), b("mul", other, rest)), terms)
    return terms


# What is likely meant otherwise

_SHARES = (BY_NAME["softmax"], BY_NAME["sigmoid"])
"""Operators that make shares of what a loss wants as it comes."""


def of_logits(output: TensorType, made_by: OpDef | None) -> tuple[str, str] | None:
    """Doubt rule: the loss turns logits into shares itself; twice flattens its gradient."""
    if made_by not in _SHARES:
        return None
    name = made_by.name
    said = f"takes logits, and `{name}` has made shares of them"
    return said, f"leave `{name}` out: the loss has its own"


def of_several_logits(output: TensorType, made_by: OpDef | None) -> tuple[str, str] | None:
    """Doubt rule: as `of_logits`; of one class alone, the softmax is 1 and the loss 0."""
    if output.shape[1] == 1:
        said = f"of one class is always 0: {output} leaves nothing to choose"
        return said, "`binary_cross_entropy` tells yes from no; or give it two classes"
    return of_logits(output, made_by)


def of_logarithms(output: TensorType, made_by: OpDef | None) -> tuple[str, str] | None:
    """Doubt rule: the loss takes logarithms of shares."""
    if made_by not in _SHARES:
        return None
    said = f"takes logarithms, and `{made_by.name}` makes shares"
    return said, "write `log_softmax`, or take `cross_entropy` of what comes before"


CROSS_ENTROPY = LossBuilder(labels, cross_entropy, "label", shares, check_labels, of_several_logits)
NLL = LossBuilder(labels, nll, "label", None, check_labels, of_logarithms)
BINARY_CROSS_ENTROPY = LossBuilder(
    alike, binary_cross_entropy, "label", None, check_shares, of_logits
)
FOCAL = LossBuilder(focal_target, focal, "label", shares, check_labels, of_logits)
