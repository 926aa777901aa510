"""Losses."""

from __future__ import annotations

from convdsl.ir.techniques.record import (
    ALPHA,
    CLASS_WEIGHTS,
    FLAG,
    FRACTION,
    POSITIVE,
    RATE,
    RATES,
    WHOLE,
    Argument,
    Table,
    Technique,
    one_of,
    table,
)

_CLASS_WEIGHTS = Argument(
    "class_weights",
    CLASS_WEIGHTS,
    None,
    "a weight for each class; `balanced`: the inverse of how often it occurs, 1 on average",
)
IGNORE = Argument("ignore_index", WHOLE, -100, "positions with this label do not count")


_REDUCTION = Argument("reduction", one_of("mean", "sum"), "mean", "or the sum of what is averaged")
_BETA = Argument("beta", RATE, 1.0, "where it becomes linear; 0 is l1")

LOSSES: Table = table(
    Technique(
        "cross_entropy",
        "-log softmax(output)[label]; averaged over what counts, by weight. A target may also hold "
        "the share of each class",
        (
            Argument("label_smoothing", FRACTION, 0.0, "share of a target spread over all classes"),
            _CLASS_WEIGHTS,
            IGNORE,
            _REDUCTION,
        ),
    ),
    Technique(
        "binary_cross_entropy",
        "of logits, against a target of 0 to 1 for each; averaged over all elements",
        (
            Argument("positive_weight", RATES, 1.0, "weight of ones; for all, or for each channel"),
            Argument("class_weights", RATES, 1.0, "weight of an element; for all, or by channel"),
            _REDUCTION,
        ),
    ),
    Technique("mse", "mean of squared differences", (_REDUCTION,)),
    Technique("l1", "mean of absolute differences", (_REDUCTION,)),
    Technique(
        "smooth_l1",
        "quadratic up to `beta`, then linear of slope 1; of boxes [x1, y1, x2, y2] too",
        (_BETA, _REDUCTION),
    ),
    Technique(
        "nll",
        "-output[label], of logarithms of probabilities",
        (_CLASS_WEIGHTS, IGNORE, _REDUCTION),
    ),
    Technique(
        "dice",
        "1 - 2 |A and B| / (|A| + |B|) over space, of probabilities from logits; averaged over "
        "samples and classes",
        (Argument("eps", RATE, 1e-5, "added to both counts"), IGNORE, _REDUCTION),
    ),
    Technique(
        "kl_divergence",
        "of a target's probabilities from softmax(output)",
        (
            Argument("log_target", FLAG, False, "the target is logarithms of probabilities"),
            Argument(
                "reduction",
                one_of("batchmean", "mean", "sum"),
                "batchmean",
                "mean over samples: the divergence; over all elements, as PyTorch does; the sum",
            ),
        ),
    ),
    Technique(
        "focal",
        "binary cross-entropy for each class, less where it is small already; Lin et al. 2017",
        (
            Argument("gamma", RATE, 2.0, "how much less: (1 - p) to this power"),
            Argument("alpha", ALPHA, 0.25, "weight of ones; that of zeros is 1 - alpha; -1: none"),
            IGNORE,
            _REDUCTION,
        ),
    ),
    Technique(
        "huber",
        "quadratic up to `delta`, then linear of slope `delta`",
        (Argument("delta", POSITIVE, 1.0, "where it becomes linear"), _REDUCTION),
    ),
    Technique(
        "box",
        "smooth L1 of the box of the right class, summed over its numbers, averaged over regions; "
        "Girshick 2015, Fast R-CNN. A target is [class, four numbers]; class 0 has no box",
        (_BETA, _REDUCTION),
    ),
    Technique(
        "iou",
        "1 - intersection over union of boxes [x1, y1, x2, y2]; averaged over targets that have an "
        "extent. Yu et al. 2016",
        (_REDUCTION,),
    ),
    Technique(
        "giou",
        "and the share of the smallest box around both that neither fills; Rezatofighi et al. 2019",
        (_REDUCTION,),
    ),
    Technique(
        "diou",
        "`iou`, and how far apart the middles are; Zheng et al. 2020",
        (_REDUCTION,),
    ),
    Technique(
        "ciou",
        "`diou`, and how unlike the shapes are; Zheng et al. 2020",
        (_REDUCTION,),
    ),
    Technique(
        "mean",
        "of an output that the network computes as a term of its loss: a divergence, a penalty. It "
        "has no target: mean(output)",
    ),
)
