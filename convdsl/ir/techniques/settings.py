"""Settings that are one value, and what chooses techniques."""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.ir.techniques.augmentations import AUGMENTATIONS
from convdsl.ir.techniques.metrics import METRICS
from convdsl.ir.techniques.optimizers import OPTIMIZERS
from convdsl.ir.techniques.record import (
    COUNT,
    FLAG,
    MANY,
    NEEDED,
    PATTERNS,
    RATE,
    SHARE,
    Argument,
    Table,
    Technique,
    one_of,
    table,
)
from convdsl.ir.techniques.schedules import SCHEDULES

GROUPS: Table = table(
    Technique(
        "group",
        "parameters that are trained otherwise; the first group that names one holds",
        (
            Argument("parameters", PATTERNS, NEEDED, "names, or those of layers, with wildcards"),
            Argument("lr_factor", RATE, 1.0, "times the rate of all"),
            Argument("weight_decay", RATE, None, "instead of the optimizer's"),
        ),
    ),
)

SETTINGS: Mapping[str, Argument] = {
    setting.name: setting
    for setting in (
        Argument("epochs", COUNT, 10, "how often all samples are seen"),
        Argument("batch", MANY, 64, "samples a step"),
        Argument("seed", COUNT, 0, "of initial weights, order, augmentation and dropout"),
        Argument("clip", RATE, None, "the greatest norm of all gradients together"),
        Argument("clip_value", RATE, None, "the greatest magnitude of an element of a gradient"),
        Argument("l1", RATE, 0.0, "gradient of so many times the sum of the weights' magnitudes"),
        Argument("l2", RATE, 0.0, "gradient of so many times half the sum of their squares"),
        Argument("decay_all", FLAG, False, "decay, `l1` and `l2` are for biases and norms too"),
        Argument("freeze", PATTERNS, (), "parameters, or layers, that stay as they are"),
        Argument("accumulate", MANY, 1, "batches whose gradients are averaged for one update"),
        Argument("ema", SHARE, None, "decay of averaged weights, which are validated and kept"),
        Argument("sync_batch_norm", FLAG, False, "batch_norm by statistics of all ranks together"),
        Argument("patience", MANY, None, "epochs without improvement after which training ends"),
        Argument("val_fraction", SHARE, 0.1, "share of the samples that validate"),
        Argument("fit", one_of("resize", "pad"), "resize", "images smaller than the input: how"),
    )
}
"""Settings that are one value; the default is what holds where a block says nothing."""

ONE_OF: Mapping[str, Table] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
SOME_OF: Mapping[str, Table] = {"augment": AUGMENTATIONS, "metrics": METRICS, "groups": GROUPS}
"""Settings that choose one technique, or several."""
