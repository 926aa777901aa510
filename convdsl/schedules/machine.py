"""What lowering asks of a target: a record, made by the target's own room of schedules."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from convdsl.ir.graph import Graph
from convdsl.kernel.expr import Stage
from convdsl.kernel.layout import Layout
from convdsl.schedules.task import Pack, Schedule, Task
from convdsl.tensor import DType


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that a team of threads has to meet, by the schedules of these names."""

    samples: int
    threads: int
    schedules: frozenset[str]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that programs are lowered for. Two machines with equal `name` and `facts` lower
    equal graphs alike.

    name: the kind of target, as it is asked for.
    facts: all that layouts and schedules were made from, as text; part of what cached code is
        kept under.
    layout: how what a stage makes lies in memory between kernels, given how its operands lie (None
        for what is plain whatever it feeds, inputs and states; weights have no entry) and the names
        of the schedules that there are to choose from.
    handed_out: whether what a stage makes is better plain where nobody but the caller reads it, who
        has everything plain: what is blocked is copied in the end.
    schedules: the ways to run a task; one of them must be able to run any.
    packs: the forms that schedules pack weights in, for recipes that were kept.
    alignment: bytes that every buffer in the arena and every packed weight begins at a multiple of.
    parts: bytes that a part of the channels begins at a multiple of inside of a position that has
        all of them side by side, in memory; 0: such parts have memory of their own.
    rounded: what a stage reads as factors of products that are computed in fewer bits, by name, and
        the type that they are rounded to.
    at_once: how many samples of a batch a program does best to meet at once, a divisor of the
        batch, given the graph of one sample. Samples are known to be apart.
    preferred: schedules that go before cheaper ones, by the digests of tasks.
    """

    name: str
    facts: str
    layout: Callable[[Stage, Mapping[str, Layout | None], frozenset[str]], Layout]
    schedules: tuple[Schedule, ...]
    packs: Mapping[str, type[Pack]]
    alignment: int
    rounded: Callable[[Stage], Mapping[str, DType]] = lambda _: {}
    handed_out: Callable[[Stage, Mapping[str, Layout | None], frozenset[str]], bool] = (
        lambda _stage, _operands, _schedules: False
    )
    parts: int = 0
    at_once: Callable[[Graph, Batch], int] = lambda _, batch: batch.samples
    preferred: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def joins(self) -> bool:
        """Whether some schedule runs several tasks of a group as one."""
        return any(schedule.joins for schedule in self.schedules)

    @property
    def known(self) -> frozenset[str]:
        """The names of its schedules."""
        return frozenset(schedule.name for schedule in self.schedules)

    def samples_at_once(self, one: Graph, samples: int, threads: int) -> int:
        """How many samples a team does best to meet at once, by the schedules that are known."""
        return self.at_once(one, Batch(samples, threads, self.known))

    def preferring(self, schedules: Mapping[str, str]) -> Machine:
        """The same machine with the schedules of some tasks chosen, by the digests of those. What
        no longer applies is passed over."""
        if not schedules:
            return self
        chosen = repr(sorted(schedules.items())).encode()
        facts = f"{self.facts}\npreferring {hashlib.sha256(chosen).hexdigest()}"
        return replace(self, preferred=dict(schedules), facts=facts)

    def without(self, *names: str) -> Machine:
        """The same machine that does not know some schedules."""
        left = tuple(schedule for schedule in self.schedules if schedule.name not in names)
        return replace(self, schedules=left, facts="\nwithout ".join((self.facts, *names)))

    def bids(self, task: Task) -> list[tuple[float, Schedule]]:
        """(predicted cycles, schedule) of all that apply, the best first; of equals the one that
        is listed first; before all the one that is preferred. None may apply to a task with an
        ending, which then is two, or with earlier ones, which then are tasks of their own."""
        asked = (s for s in self.schedules if s.endings or task.ending is None)
        asked = (s for s in asked if s.joins or not task.earlier)
        offers = ((schedule.cost(task), schedule) for schedule in asked)
        made = [(cost, schedule) for cost, schedule in offers if cost is not None]
        first = self.preferred.get(task.digest) if self.preferred else None
        return sorted(made, key=lambda offer: (offer[1].name != first, offer[0]))


def pack_forms(*forms: type[Pack]) -> dict[str, type[Pack]]:
    """Forms by their names."""
    return {form.__name__: form for form in forms}
