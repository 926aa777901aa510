"""What operators are while training, and what ranks of one job do together.

These operators are made by `training`; the language has no names for them.
"""

from __future__ import annotations

from convdsl.ops.training.batch_norm import BATCH_NORM_TRAINING
from convdsl.ops.training.dropout import DROPOUT_TRAINING
from convdsl.ops.training.together import (
    ALL_REDUCE,
    BATCH_NORM_APPLIED,
    BATCH_NORM_SQUARES,
    SUMMED,
)

__all__ = [
    "ALL_REDUCE",
    "BATCH_NORM_APPLIED",
    "BATCH_NORM_SQUARES",
    "BATCH_NORM_TRAINING",
    "DROPOUT_TRAINING",
    "SUMMED",
]
