"""What a step leaves behind: weights, the optimiser's slots, averages, and the counter of steps.

    optimizer.step                 i64 []: how many batches there were
    optimizer.<slot>.<key>         what the optimiser remembers of a weight
    optimizer.gradient.<key>       the mean gradient so far, where several batches make an update
    optimizer.average.<key>        the moving average of a weight

Where k batches make an update, all but every k-th call leave weights, slots and averages as they
are; the update of batch s, from 0, is number floor(s / k) + 1. So do updates that loss scaling
leaves out, which do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.ir.opdef import Role
from convdsl.ir.training import Training
from convdsl.tensor import DType, TensorType
from convdsl.training.gradients import (
    Group,
    average,
    check_groups,
    clip_norm,
    clip_values,
    group_of,
    regularise,
)
from convdsl.training.optimisers import OPTIMISERS, Update
from convdsl.training.scaling import Scaling
from convdsl.training.terms import Term

PREFIX = "optimizer"
"""What the names of all states begin with that training adds."""

COUNTER = f"{PREFIX}.step"
GRADIENT = f"{PREFIX}.gradient"
AVERAGE = f"{PREFIX}.average"


def replace_weights(
    build: Build,
    training: Training,
    gradients: Mapping[str, Value],
    counter: Value,
    rate: Value,
    scaling: Scaling | None = None,
) -> dict[str, float | str]:
    """Add what replaces weights, given their gradients by key, and all that goes with them.

    counter: the state `optimizer.step`. rate: f64 []. scaling: by which the gradients are scaled.
    The settings are complete. Returns what the states begin as that are added: a number, or a
    weight by its key.
    Raises InputError for groups that name no parameter.
    """
    updates = _Updates(build, training, counter, rate, scaling)
    updates.replace(gradients)
    return updates.initial


@dataclass
class _Updates:
    """The updates of one step in the making."""

    build: Build
    training: Training
    counter: Value
    rate: Value
    scaling: Scaling | None
    initial: dict[str, float | str] = field(default_factory=dict[str, "float | str"])

    def replace(self, gradients: Mapping[str, Value]) -> None:
        graph, training, build = self.build.graph, self.training, self.build
        states = graph.states
        check_groups(training, [k for k, s in states.items() if s.role is Role.PARAMETER])
        one = build.constant(1, DType.I64, name="one")
        graph.updates[COUNTER] = build("add", self.counter, one, name="following")
        batches = int(training.setting("accumulate"))
        seen = Term(build, self.counter).cast(DType.F64)
        step, applies = seen + 1.0, None
        if batches > 1:
            step = _floor(seen / batches) + 1.0
            applies = _floor((seen + 1.0) / batches) > step - 1.0
        if self.scaling is not None:
            step = step - Term(build, self.scaling.skipped).cast(DType.F64)
            gradients = self.scaling.unscaled(gradients)
        weights = {key: states[key].output for key in gradients}
        groups = {key: group_of(training, key, weight.type) for key, weight in weights.items()}
        flowing = {
            key: self._regularised(g, weights[key], groups[key]) for key, g in gradients.items()
        }
        if applies is not None:
            flowing = {k: self._accumulated(k, g, batches, applies) for k, g in flowing.items()}
        if self.scaling is not None:
            finite = self.scaling.finite(flowing.values())
            self.scaling.follow(finite, applies)
            applies = finite if applies is None else applies.both(finite)
        for key, gradient in self._clipped(flowing).items():
            self._weight(weights[key], gradient, groups[key], step.value, applies)

    def _regularised(self, gradient: Value, weight: Value, group: Group) -> Value:
        if not group.is_regularised:
            return gradient
        l1, l2 = float(self.training.setting("l1")), float(self.training.setting("l2"))
        return regularise(self.build, gradient, weight, l1, l2)

    def _accumulated(self, key: str, gradient: Value, batches: int, applies: Term) -> Value:
        """The mean gradient so far; it begins anew after an update."""
        kept = self._state(f"{GRADIENT}.{key}", gradient.type, 0.0)
        mean = Term(self.build, kept) + Term(self.build, gradient) * (1 / batches)
        zero = Term(self.build, self.build.constant(0.0, gradient.type.dtype, name="number"))
        self.build.graph.updates[kept.node.name] = applies.where(zero, mean).value
        return mean.value

    def _clipped(self, gradients: Mapping[str, Value]) -> Mapping[str, Value]:
        limit, norm = self.training.setting("clip_value"), self.training.setting("clip")
        if limit is not None:
            gradients = clip_values(self.build, gradients, float(limit))
        return gradients if norm is None else clip_norm(self.build, gradients, float(norm))

    def _weight(
        self, weight: Value, gradient: Value, group: Group, step: Value, applies: Term | None
    ) -> None:
        """The updates of a weight, its slots and its average."""
        assert self.training.optimizer is not None
        key, build = weight.node.name, self.build.at(weight.node)
        arguments = self.training.optimizer.arguments
        optimiser = OPTIMISERS[self.training.optimizer.name]
        slots = {
            slot.name: self._state(
                f"{PREFIX}.{slot.name}.{key}", slot.type(weight.type), slot.start
            )
            for slot in optimiser.slots(arguments)
        }
        rate = (Term(self.build, self.rate) * group.lr_factor).value
        decay = group.weight_decay
        made = optimiser.update(
            Update(build, weight, gradient, slots, rate, step, decay, arguments)
        )
        olds = {"parameter": weight, **slots}
        decay_of_average = self.training.setting("ema")
        if decay_of_average is not None:
            old = self._state(f"{AVERAGE}.{key}", weight.type, key)
            olds["average"] = old
            made["average"] = average(build, old, made["parameter"], decay_of_average, step)
        for name, old in olds.items():
            new = made[name]
            if applies is not None:
                new = Term(build, applies.value).where(Term(build, new), Term(build, old)).value
            build.graph.updates[old.node.name] = new

    def _state(self, name: str, type: TensorType, start: float | str) -> Value:
        self.initial[name] = start
        return self.build.graph.add_state(name, type, Role.BUFFER)


def _floor(term: Term) -> Term:
    return Term(term.build, term.build("floor", term.value))
