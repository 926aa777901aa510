"""What a `train` block may say: every loss, optimizer, schedule, augmentation and metric, with
its arguments, and the plain settings.

One record each, with defaults (PyTorch's where it has the thing) and what each value may be. The
language reads blocks by these tables, its reference is written from them, and training has a
builder under every name.
"""

from convdsl.ir.techniques.augmentations import AUGMENTATIONS
from convdsl.ir.techniques.losses import LOSSES
from convdsl.ir.techniques.metrics import METRICS
from convdsl.ir.techniques.optimizers import OPTIMIZERS
from convdsl.ir.techniques.record import (
    COUNT,
    FRACTION,
    NEEDED,
    NUMBER,
    PATTERNS,
    Argument,
    Needed,
    Table,
    Takes,
    Technique,
)
from convdsl.ir.techniques.schedules import SCHEDULES
from convdsl.ir.techniques.settings import GROUPS, ONE_OF, SETTINGS, SOME_OF

__all__ = [
    "AUGMENTATIONS",
    "COUNT",
    "FRACTION",
    "GROUPS",
    "LOSSES",
    "METRICS",
    "NEEDED",
    "NUMBER",
    "ONE_OF",
    "OPTIMIZERS",
    "PATTERNS",
    "SCHEDULES",
    "SETTINGS",
    "SOME_OF",
    "Argument",
    "Needed",
    "Table",
    "Takes",
    "Technique",
]
