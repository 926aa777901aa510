"""What an optimiser is: slots that it keeps for each parameter, and one step of a recurrence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.tensor import DType, TensorType
from convdsl.training.terms import Term

Arguments: TypeAlias = "Mapping[str, Any]"


@dataclass(frozen=True, slots=True)
class Slot:
    """What an optimiser remembers of a parameter, in every element `start` at first.

    It has the type of the parameter; a `scalar` one is f64 [].
    """

    name: str
    start: float = 0.0
    scalar: bool = False

    def type(self, parameter: TensorType) -> TensorType:
        """Its type, from that of the parameter."""
        return TensorType(DType.F64, ()) if self.scalar else parameter


@dataclass(frozen=True, slots=True)
class Update:
    """One step for one parameter, as a rule sees it.

    rate: the learning rate, f64 []. step: f64 [], 1 at the first update. decay: the weight decay of
    this parameter. arguments: all that the technique takes (`Technique.complete`).
    """

    build: Build
    parameter: Value
    gradient: Value
    slots: Mapping[str, Value]
    rate: Value
    step: Value
    decay: float
    arguments: Arguments

    def term(self, value: Value) -> Term:
        """A value, for formulas."""
        return Term(self.build, value)

    @property
    def p(self) -> Term:
        """The parameter."""
        return self.term(self.parameter)

    @property
    def g(self) -> Term:
        """Its gradient."""
        return self.term(self.gradient)

    @property
    def g_decayed(self) -> Term:
        """The gradient with decay * p added: of the loss and decay / 2 |p|^2."""
        return self.g if self.decay == 0 else self.g + self.p * self.decay

    @property
    def p_decayed(self) -> Term:
        """The parameter, a share rate * decay of it taken away: decay beside the gradient."""
        return self.p if self.decay == 0 else self.p * (1.0 - self.lr * self.decay)

    @property
    def lr(self) -> Term:
        """The learning rate."""
        return self.term(self.rate)

    @property
    def t(self) -> Term:
        """The number of this step, from 1 on."""
        return self.term(self.step)

    def number(self, number: float) -> Term:
        """A scalar of double precision."""
        return self.term(self.build.constant(number, DType.F64, name="number"))

    def slot(self, name: str) -> Term:
        """What the last step left there."""
        return self.term(self.slots[name])


@dataclass(frozen=True, slots=True)
class Optimiser:
    """slots: those that it keeps. rule: the new "parameter" and the new slots, by name."""

    slots: Callable[[Arguments], tuple[Slot, ...]]
    rule: Callable[[Update], dict[str, Term]]

    def update(self, update: Update) -> dict[str, Value]:
        """The new "parameter" and the new slots, in the types of the old ones."""
        old = {"parameter": update.parameter, **update.slots}
        made = self.rule(update).items()
        return {name: term.cast(old[name].type.dtype).value for name, term in made}


def keeps(*names: str) -> Callable[[Arguments], tuple[Slot, ...]]:
    """Slots of the parameter's type that start from zero, whatever the arguments."""
    return lambda arguments: tuple(Slot(name) for name in names)
