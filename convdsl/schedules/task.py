"""What a schedule is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from convdsl.kernel.expr import Stage, TensorVar
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.target import Target


class Pack(Protocol):
    """How a weight is laid out for a kernel: done once, when weights are bound."""

    @property
    def size(self) -> int:
        """Elements of the packed buffer."""
        ...

    def pack(self, array: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Write the packed elements into a flat array of `size` and the same element type."""
        ...


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that the stage reads. A static one (a weight) has no layout yet: the schedule
    says how to pack it."""

    var: TensorVar
    layout: Layout | None

    @property
    def static(self) -> bool:
        return self.layout is None


@dataclass(frozen=True, slots=True)
class Task:
    """One stage to be turned into one kernel. Equal tasks share their kernel."""

    op: str  # name of the root operator, for names in listings
    stage: Stage
    operands: tuple[Operand, ...]
    output: Layout
    target: Target

    def operand(self, name: str) -> Operand:
        return next(o for o in self.operands if o.var.name == name)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A kernel, and for each of its buffers the variable it holds and how a weight is packed.
    The last buffer is the output."""

    kernel: Kernel
    arguments: tuple[tuple[str, Pack | None], ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """One way to run a class of tasks.

    cost predicts cycles on one core; None says that the schedule does not apply.
    """

    name: str
    cost: Callable[[Task], float | None]
    emit: Callable[[Task, str], Scheduled]
