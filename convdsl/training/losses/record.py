"""What a loss is, and what all of them are made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.ir.opdef import OpDef
from convdsl.ops.training import ALL_REDUCE
from convdsl.tensor import TensorType

Array: TypeAlias = npt.NDArray[Any]
Arguments: TypeAlias = Mapping[str, Any]
TargetRule: TypeAlias = Callable[[TensorType, Arguments], TensorType]
Composition: TypeAlias = Callable[[Build, Value, Value, Arguments], Value]
Check: TypeAlias = Callable[[Array, TensorType, Arguments], None]
Doubt: TypeAlias = Callable[[TensorType, OpDef | None], tuple[str, str] | None]


class UnknownSize(InputError):
    """A size decides whether a loss can judge an output, and nothing has said it yet."""


def no_doubt(output: TensorType, made_by: OpDef | None) -> tuple[str, str] | None:
    """Doubt rule of losses that take outputs as they are."""
    return None


def any_target(target: Array, output: TensorType, arguments: Arguments) -> None:
    """Check of losses that every number suits."""


@dataclass(frozen=True, slots=True)
class LossBuilder:
    """How far an output is from a target, composed of operators.

    target: type of the target, from the output's. Raises InputError for an output that the loss
        cannot judge.
    build: the loss, a scalar [] in the dtype of the output. Arguments are complete.
    usual: what the target is called where nothing is said.
    shares: type of a target that says how much of each class there is, as mixup and cutmix make it,
        where `target` is a label; `build` takes both. None where there are no classes.
    check: raises InputError for a target on the host that the loss makes no sense of, before it is
        computed. A label that is no class would make the loss NaN.
    doubt: what is likely wrong with an output that can be judged, and help; from its type and the
        operator that makes it.
    own: the output is the term itself, and has no target: `build` gets it in the target's place.
    """

    target: TargetRule
    build: Composition
    usual: str = "label"
    shares: TargetRule | None = None
    check: Check = any_target
    doubt: Doubt = no_doubt
    own: bool = False


def alike(output: TensorType, arguments: Arguments) -> TensorType:
    """Target rule: as the output."""
    return output


def number(b: Build, value: float, like: Value, name: str = "number") -> Value:
    """A number for arithmetic with a tensor."""
    return b.constant(value, like.type.dtype, name=name)


def per_class(b: Build, given: Any, like: Value, what: str) -> Value | None:
    """A number for all, or one for each class along axis 1 of a tensor; None where none is given.
    Raises InputError for another count."""
    if given is None:
        return None
    numbers = np.asarray(given, np.float64)
    if numbers.ndim == 0:
        return number(b, float(numbers), like, what)
    count = classes_of(like.type)
    if numbers.shape != (count,):
        raise InputError(f"{what} has {len(numbers)} numbers for {count} classes of {like.type}")
    return b.constant(spread(numbers, like.type.rank), like.type.dtype, name=what)


def spread(numbers: Array, rank: int) -> Array:
    """Numbers by class, to broadcast along axis 1 of what has `rank` axes."""
    return numbers.reshape(-1, *[1] * (rank - 2))


def classes_of(output: TensorType) -> int:
    """Extent of axis 1. Raises InputError where there is none, or nothing says its size."""
    if output.rank < 2:
        raise InputError(f"an output of classes is [N, classes, ...], not {output}")
    count = output.shape[1]
    if not isinstance(count, int):
        raise UnknownSize(f"the number of classes in {output} has to be known")
    return count


@dataclass(frozen=True)
class SharedBuild(Build):
    """Builds the part that a rank has of the loss of a batch: the sum over ranks is the loss.

    share: this rank's samples as a part of the batch, f64 [].
    """

    share: Value | None = None


def of_batch(b: Build, count: Value) -> Value:
    """A number that losses divide by, counted over the whole batch."""
    if not isinstance(b, SharedBuild):
        return count
    return b.apply(ALL_REDUCE, {"x0": count}, name="count_of_all").output


def reduced(b: Build, values: Value, reduction: str) -> Value:
    """The mean or the sum of all elements, []; `batchmean` is the mean of the samples' sums. Of a
    batch that ranks share this rank's part of it."""
    rank = values.type.rank
    if reduction == "batchmean" and rank > 1:
        values = b("reduce_sum", values, axes=tuple(range(1, rank)), name="sample")
    op = "reduce_sum" if reduction == "sum" else "reduce_mean"
    found = b(op, values, axes="all", name="loss") if rank else values
    if reduction == "sum" or not isinstance(b, SharedBuild) or b.share is None:
        return found
    return b("mul", found, b("cast", b.share, dtype=str(found.type.dtype)), name="part")
