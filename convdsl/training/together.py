"""One step of several ranks: each has a part of the batch, and all take the step of the whole.

    optimizer.share      f64 []: this rank's samples, as a part of the batch
    optimizer.first      i64 []: the number of its first sample in the batch

    loss        = sum over ranks of (share * mean over a rank's samples)
    gradient    = sum over ranks of the gradient of a rank's part of the loss

Losses that divide by what counts in the batch divide by what counts in all of it. What comes after
the gradients, clipping, accumulating, the optimiser, is done by all ranks alike, on equal numbers.

Gradients are summed in messages of a megabyte or more, in the order in which the backward pass
makes them: each is on its way while the next ones are computed. Li et al. 2020, "PyTorch
Distributed", VLDB 13(12), section 3.2.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.ops.training import (
    ALL_REDUCE,
    BATCH_NORM_APPLIED,
    BATCH_NORM_SQUARES,
    SUMMED,
)
from convdsl.tensor import DType
from convdsl.training.terms import Term
from convdsl.training.updates import PREFIX

SHARE, FIRST = f"{PREFIX}.share", f"{PREFIX}.first"

BUCKET = 1 << 20
"""Bytes from which on a message leaves: at 10 Gbit/s and 50 microseconds a message, 6 % of its time
are the latter's. What is larger by itself leaves in pieces (ranks.mpi)."""


@dataclass(frozen=True, slots=True)
class Together:
    """The graph of a rank's step in the making."""

    build: Build
    share: Value
    first: Value

    def weighed(self, mean: Value) -> Value:
        """This rank's part of the mean over a batch, from the mean over its samples."""
        return (Term(self.build, mean) * Term(self.build, self.share)).value

    def sum(self, *parts: Value, name: str) -> tuple[Value, ...]:
        """The sums over ranks of a few values of one type, in one message, at once."""
        return self._message(parts, name, 0)

    def sums(self, parts: Mapping[str, Value], after: int = 0) -> dict[str, Value]:
        """The same of many, in messages that leave as soon as they are full and all that is in them
        has been computed; none before those of what nodes up to `after` compute."""
        found: dict[str, Value] = {}
        for keys in _messages(parts):
            wide = [Term(self.build, parts[key]).cast(_wide(parts[key])).value for key in keys]
            turn = max(after, *(value.node.id for value in wide))
            made = self._message(wide, "sums", turn)
            for key, value in zip(keys, made, strict=True):
                found[key] = Term(self.build, value).cast(parts[key].type.dtype).value
        return {key: found[key] for key in parts}

    def _message(self, parts: Sequence[Value], name: str, turn: int) -> tuple[Value, ...]:
        given = {f"x{number}": value for number, value in enumerate(parts)}
        return self.build.apply(ALL_REDUCE, given, {"turn": turn}, name=name).outputs

    # Batch normalisation

    def batch_norm(
        self, build: Build, inputs: Mapping[str, Value], eps: float, momentum: float
    ) -> tuple[Value, Value, Value]:
        """By the statistics of the whole batch: y, and what the running ones become.

        mean = sum over ranks of share mean_r; var = sum over ranks of share mean_r((x - mean)^2)

        Two sums, one after the other: never E[x^2] - E[x]^2, whose digits cancel.
        """
        x, here = inputs["x"], Together(build, self.share, self.first)
        axes = (0, *range(2, x.type.rank))
        own = here.weighed(build("reduce_mean", x, axes=axes, name="mean"))
        (mean,) = here.sum(own, name="mean_of_all")
        share = Term(build, self.share).cast(x.type.dtype).value
        given = {"x": x, "mean": mean}
        squares, count = build.apply(BATCH_NORM_SQUARES, given, name="squares").outputs
        var, total = here.sum(here.weighed(squares), count, name="var_of_all")
        inverse = (1.0 / (Term(build, var) + eps).sqrt()).value
        given = {"x": x, "mean": mean, "inverse": inverse, "share": share}
        given |= {name: inputs[name] for name in ("weight", "bias") if name in inputs}
        y = build.apply(BATCH_NORM_APPLIED, given, name="y").outputs[0]
        all = Term(build, total)
        unbiased = Term(build, var) * (all / (all - 1.0))
        new = (Term(build, mean), unbiased)
        old = (Term(build, inputs[name]) for name in ("running_mean", "running_var"))
        kept = [o * (1.0 - momentum) + n * momentum for o, n in zip(old, new, strict=True)]
        return y, kept[0].value, kept[1].value


def _messages(parts: Mapping[str, Value]) -> Iterator[list[str]]:
    """Keys of what travels together: in the order in which it is made, of one type."""
    keys, size = list[str](), 0
    for key in sorted(parts, key=lambda key: (parts[key].node.id, parts[key].index)):
        value = parts[key]
        if keys and (size >= BUCKET or _wide(value) is not _wide(parts[keys[0]])):
            yield keys
            keys, size = [], 0
        count = value.type.elements
        assert isinstance(count, int), "the sizes of what is summed over ranks are known"
        keys.append(key)
        size += count * _wide(value).bytes
    if keys:
        yield keys


def _wide(value: Value) -> DType:
    """The type that a value is summed in."""
    return value.type.dtype if value.type.dtype in SUMMED else DType.F32
