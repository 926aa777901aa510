"""What a schedule is asked, and what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

from convdsl.kernel.expr import Axis, Cast, Expr, Read, Reduce, Stage, TensorVar, reads, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Kernel
from convdsl.tensor import Dim, DType, substitute


class Pack(Protocol):
    """How an operand is laid out for a kernel. What is known when weights are bound is packed
    then; anything else is packed in every call, by steps of its own."""

    @property
    def size(self) -> int:
        """Elements of the packed buffer."""
        ...

    def pack(self, array: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Write the packed elements into a flat array of `size` and the same element type."""
        ...

    def stages(self, source: TensorVar) -> Iterable[tuple[int, Stage]]:
        """Stages that write the packed elements of `source`, each into a plain tensor that begins
        at an offset of the buffer, in elements."""
        ...


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that the task reads. A static one (a weight) has no layout yet: the schedule
    says how to pack it."""

    var: TensorVar
    layout: Layout | None

    @property
    def static(self) -> bool:
        return self.layout is None


@dataclass(frozen=True, slots=True)
class Output:
    """A stage's tensor that leaves the kernel. `at` says where its elements go, by the axes of the
    task, if not to the position that these give."""

    var: TensorVar
    layout: Layout
    at: tuple[Dim, ...] | None = None

    def offset(self, place: Mapping[str, Dim], axes: Sequence[Axis]) -> Dim:
        """The element that belongs to a place of the axes."""
        if self.at is None:
            return self.layout.offset([place[axis.name] for axis in axes])
        return self.layout.offset([substitute(index, place) for index in self.at])


@dataclass(frozen=True, slots=True)
class Ending:
    """What a task makes of its values besides: stages over some of its axes, after reductions
    over the others. An axis has the same name in both."""

    stages: tuple[Stage, ...]
    outputs: tuple[Output, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of every stage."""
        return self.stages[0].axes

    @property
    def reduces(self) -> tuple[Reduce, ...]:
        """The reductions, each once."""
        found = (e for stage in self.stages for e in walk(stage.body) if isinstance(e, Reduce))
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Task:
    """A chain of stages over the same axes, to be turned into one kernel: each reads operands as
    it likes, and earlier stages at its own position, where their values are in registers. At most
    one has reductions, or several that walk the same positions. `layout` says how all of it is cut
    into vectors. Where there is an ending, it may be that no other value leaves. Equal tasks share
    their kernels.

    earlier: tasks that go before it in the same kernel, and hand values on to each other and to
        this one. They have those outputs alone that others read; its operands are those of all.
    over: axes over which all of it is repeated. What the epilogue reads and where outputs go
        follows from them; the root reads the same, but for its filters, which are packed one after
        the other.
    """

    op: str  # name of the root operator, for names in listings
    stages: tuple[Stage, ...]
    operands: tuple[Operand, ...]
    outputs: tuple[Output, ...]
    layout: Layout
    ending: Ending | None = None
    earlier: tuple[Task, ...] = ()
    over: tuple[Axis, ...] = ()

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    def __hash__(self) -> int:
        """Worked out once: it goes through all expressions, and every schedule keeps its plans by
        tasks."""
        return self._hash

    @property
    def digest(self) -> str:
        """A name that equal tasks have in every process, and others do not."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def operand(self, name: str) -> Operand:
        """The operand of a variable."""
        return next(o for o in self.operands if o.var.name == name)

    def read_again(self, name: str) -> bool:
        """Whether an operand is read in more than one place: by the epilogue as well, say."""
        return sum(read.tensor.name == name for read in self.reads) > 1

    @property
    def root(self) -> Stage:
        """The stage that schedules are made for: the one with reductions, else the first."""
        return next(iter(self.reducing), self.stages[0])

    @cached_property
    def reducing(self) -> tuple[Stage, ...]:
        """The stages with reductions."""
        return tuple(s for s in self.stages if any(isinstance(e, Reduce) for e in walk(s.body)))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of every stage."""
        return self.stages[0].axes

    @property
    def ended(self) -> list[str]:
        """The names of what the ending reads, as often as it does."""
        reduces = () if self.ending is None else self.ending.reduces
        return [read.tensor.name for reduce in reduces for read in reads(reduce.body)]

    @property
    def element(self) -> DType:
        """The widest type in which what leaves is computed: vectors hold so many of it."""
        bodies = {stage.target.name: stage.body for stage in self.stages}
        computed = (_computed(out.var, bodies.get(out.var.name)) for out in self.outputs)
        return max(computed, key=lambda dtype: dtype.bytes)

    @cached_property  # every schedule asks
    def reads(self) -> tuple[Read, ...]:
        """All reads of operands."""
        stages = self.stages if self.ending is None else (*self.stages, *self.ending.stages)
        stages = (*(stage for task in self.earlier for stage in task.stages), *stages)
        inner = {stage.target.name for stage in stages}
        found = (read for stage in stages for read in reads(stage.body))
        return tuple(read for read in found if read.tensor.name not in inner)


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory that the kernels of one task hand on to each other: `size` elements. Private ones
    are each thread's own, within one kernel, and hold nothing when an iteration begins."""

    name: str
    dtype: DType
    size: int
    private: bool = False


Arguments: TypeAlias = "tuple[tuple[str, Pack | None], ...]"
"""For each buffer of a kernel what it holds, a variable of the task or a scratch by its name, and
how a variable is packed. The kernel says which of its buffers it writes."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The kernels of a task, each finished before the next begins, and what lies between them."""

    kernels: tuple[tuple[Kernel, Arguments], ...]
    scratch: tuple[Scratch, ...] = ()

    @staticmethod
    def one(kernel: Kernel, arguments: Iterable[tuple[str, Pack | None]]) -> Scheduled:
        """A single kernel, as most tasks are."""
        return Scheduled(((kernel, tuple(arguments)),))

    def then(self, rest: Scheduled, *between: Scratch) -> Scheduled:
        """These kernels, then those of the rest, with what they hand over."""
        scratch = (*between, *self.scratch, *rest.scratch)
        return Scheduled((*self.kernels, *rest.kernels), scratch)


def _computed(var: TensorVar, body: Expr | None) -> DType:
    """The type that a tensor is computed in. A float that becomes a narrow integer is computed as
    what it was: nothing adds integers up."""
    dtype = var.type.dtype
    if isinstance(body, Cast) and body.x.dtype.is_float and not dtype.computes:
        return body.x.dtype.computed
    return dtype.computed


@dataclass(frozen=True, slots=True)
class Schedule:
    """One way to run a class of tasks, on one machine.

    cost predicts cycles on one core, those of packing in every call included; None says that the
    schedule does not apply. emit is given the name of the task, which the names of its kernels
    begin with. Only schedules that run `endings` are asked about tasks that have one, and those
    alone that `join` about tasks with earlier ones. note is what there is to say of how a task is
    run.
    """

    name: str
    cost: Callable[[Task], float | None]
    emit: Callable[[Task, str], Scheduled]
    endings: bool = False
    joins: bool = False
    note: Callable[[Task], str] = lambda task: ""
