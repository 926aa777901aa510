"""Loss scaling: gradients large enough for float16, and steps left out where they were too large.

    the loss times `scale` is what gradients are of; they are divided by it again
    all finite      the weights change; after 2,000 such updates in a row  scale = 2 scale
    any not         nothing changes but                                     scale = scale / 2

    optimizer.scale       f32 []: a power of two, 2^16 at first
    optimizer.unbroken    i64 []: updates since the last change of the scale
    optimizer.skipped     i64 []: updates that were left out

Micikevicius et al. 2018, arXiv:1710.03740, section 3.2; numbers as the defaults of PyTorch's
torch.amp.GradScaler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.ir.opdef import Role
from convdsl.tensor import DType, TensorType
from convdsl.training.terms import Term

START, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000

_SCALE, _UNBROKEN, _SKIPPED = "optimizer.scale", "optimizer.unbroken", "optimizer.skipped"
STATES: Mapping[str, float | str] = {_SCALE: START, _UNBROKEN: 0, _SKIPPED: 0}
"""What loss scaling remembers, and what that begins as."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """The states of loss scaling in a graph."""

    build: Build
    scale: Value
    unbroken: Value
    skipped: Value

    @staticmethod
    def begin(build: Build) -> Scaling:
        """Add the states."""
        types = {_SCALE: DType.F32, _UNBROKEN: DType.I64, _SKIPPED: DType.I64}
        made = [
            build.state(key, TensorType(dtype, ()), Role.BUFFER) for key, dtype in types.items()
        ]
        return Scaling(build, *made)

    def seed(self, loss: Value) -> Value:
        """The gradient of the scaled loss by the loss."""
        return self._scale.cast(loss.type.dtype).value

    def unscaled(self, gradients: Mapping[str, Value]) -> dict[str, Value]:
        """The gradients of the loss itself: what is not finite stays so."""
        share = 1.0 / self._scale.cast(DType.F64)
        return {key: (Term(self.build, g) * share).value for key, g in gradients.items()}

    def finite(self, gradients: Iterable[Value]) -> Term:
        """Whether every element of all of them is a finite number."""
        largest = [self._largest(Term(self.build, g)) for g in gradients]
        total = largest[0]
        for other in largest[1:]:
            total = total.maximum(other)  # NaN if one is
        return total <= float(DType.F32.largest)

    def _largest(self, gradient: Term) -> Term:
        """The magnitude of the largest element, NaN if one is. f64 is finite in f32 as well, or
        too large for any weight."""
        size = gradient.abs()
        if gradient.value.type.rank:
            size = Term(self.build, self.build("reduce_max", size.value, axes="all"))
        return size.cast(DType.F32)

    def follow(self, finite: Term, applies: Term | None) -> None:
        """Replace the states, after an update that was made (`finite`) or left out. `applies`:
        whether this call updates at all."""
        scale, unbroken, skipped = self._scale, self._term(self.unbroken), self._term(self.skipped)
        following = unbroken + 1.0
        whole = following > INTERVAL - 1.0
        grown = scale * GROWTH
        grown = (grown <= float(DType.F32.largest)).where(grown, scale)
        news = {
            self.scale: finite.where(whole.where(grown, scale), scale * BACKOFF),
            self.unbroken: finite.where(whole.where(self._number(0), following), 0.0),
            self.skipped: finite.where(skipped, skipped + 1.0),
        }
        for old, new in news.items():
            if applies is not None:
                new = applies.where(new, self._term(old))
            self.build.graph.updates[old.node.name] = new.value

    @property
    def _scale(self) -> Term:
        return self._term(self.scale)

    def _term(self, value: Value) -> Term:
        return Term(self.build, value)

    def _number(self, number: int) -> Term:
        return self._term(self.build.constant(number, DType.I64, name="number"))
