"""What every contraction schedule shares around its accumulators: buffers and the fused store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Reduce
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Buffer, Registers, Value, ValueType, Var
from convdsl.schedules.chain import declare_outputs, emit_stages, store_outputs, store_parts
from convdsl.schedules.cpu.together import side_by_side, vectors_together
from convdsl.schedules.emission import Emitter, View, extent_of
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.task import Output, Pack, Scheduled, Scratch, Task
from convdsl.tensor import Dim, DType, floor_div
from convdsl.tensor.records import record


@record
class Sum:
    """A vector of sums: where its axes are, the one along vectors at first + lane; the lanes from
    `valid` on do not exist."""

    at: Mapping[str, Dim]
    first: Dim
    value: Value
    valid: int | None = None


def waiting_in(task: Task, dtype: DType) -> Output | None:
    """An output that sums of a type may lie in before they are complete, if one has it."""
    return next((o for o in task.outputs if o.var.type.dtype is dtype), None)


@record
class Draft:
    """A kernel under construction: its buffers as views, the outputs' among them; operands in
    packed form; the reduction whose values the schedule computes, and the axis that vectors
    run along."""

    task: Task
    b: Builder
    reduce: Reduce
    axis: Axis
    views: Mapping[str, View]
    packed: Mapping[str, Buffer]
    arguments: tuple[tuple[str, Pack | None], ...]

    def registers(self, count: int) -> Registers:
        """Accumulators of the reduction."""
        return self.b.registers(count, ValueType(self.reduce.dtype, self.b.lanes))

    def view(self, name: str) -> View:
        """An operand as the sums read it: packed in vectors of channels, or as it lies."""
        buffer = self.packed.get(name)
        if buffer is None:
            return self.views[name]
        (pack,) = (pack for called, pack in self.arguments if called == name and pack is not None)
        assert isinstance(pack, Layout)
        return View(buffer, pack)

    def repeat(self, at: Mapping[str, Dim]) -> Dim:
        """Which of its repetitions the task is at."""
        place: Dim = 0
        for axis in self.task.over:
            place = place * extent_of(axis) + at[axis.name]
        return place

    @property
    def waiting(self) -> Output | None:
        """As `waiting_in`."""
        return waiting_in(self.task, self.reduce.dtype)

    def store(
        self,
        at: Mapping[str, Dim],
        first: Dim,
        value: Value,
        valid: int | None = None,
        loaded: dict[tuple[str, Dim], Var] | None = None,
        *,
        torn: bool = False,
    ) -> Emitter:
        """Run the task's stages on one vector of sums and store what leaves. `at` binds the
        axes, the one along vectors to first + lane; lanes from `valid` on do not exist. `loaded`
        is shared by the stores of one tile. `torn`: the vector begins within a block of the
        output. Gives an emitter that holds the values, for an ending."""
        task, known = self.task, ((self.reduce, value),)
        emitter = Emitter(self.b, self.views, self.b.lanes, valid, known, loaded)
        start = {**at, self.axis.name: first}
        held = emit_stages(emitter, task.stages, task.outputs, at, task.ended)
        if torn:
            parts = self.parts(at, first, valid or self.b.lanes)
            store_parts(emitter, task.outputs, task.axes, held, parts)
        else:
            store_outputs(emitter, task.outputs, task.axes, held, start, valid)
        return emitter.holding(held)

    def store_all(
        self,
        sums: Sequence[Sum],
        loaded: dict[tuple[str, Dim], Var] | None = None,
        *,
        torn: bool = False,
    ) -> list[Emitter]:
        """The same of all sums of a tile, several side by side where functions are written out."""

        def stored(s: Sum) -> Emitter:
            return self.store(s.at, s.first, s.value, s.valid, loaded, torn=torn)

        many = vectors_together(stage.body for stage in self.task.stages)
        makers = [partial(stored, each) for each in sums]
        return side_by_side(self.b, many, makers, (loaded or {}).values)

    def parts(
        self, at: Mapping[str, Dim], first: Dim, count: int
    ) -> list[tuple[Mapping[str, Dim], int, int]]:
        """(place, first lane, lanes) of the parts of a vector that are each within a block: two
        where it is known where it begins, else one for each lane."""
        block = self.b.lanes
        before = first - floor_div(first, block) * block
        rest = max(0, before + count - block) if isinstance(before, int) else 0
        own = [(0, count - rest), (count - rest, rest)]
        if not isinstance(before, int):
            own = [(lane, 1) for lane in range(count)]
        return [({**at, self.axis.name: first + i}, i, lanes) for i, lanes in own if lanes]

    def finish(self, more: Sequence[Buffer] = (), private: Sequence[Buffer] = ()) -> Scheduled:
        """The kernel with its arguments, then what the schedule has declared itself, `private`
        memory of its iterations at the end."""
        own = ((buffer.name, None) for buffer in (*more, *private))
        scratch = (Scratch(b.name, b.dtype, b.size, private=True) for b in private)
        return Scheduled(((self.b.kernel(), (*self.arguments, *own)),), tuple(scratch))


def open_draft(
    task: Task, name: str, reduce: Reduce, lanes: int, axis: Axis, packs: Mapping[str, Pack]
) -> Draft:
    """Declare the buffers: packed operands as given, other weights blocked along the vectors' axis.
    An operand that is packed and read by the epilogue too is handed over in both forms."""
    b = Builder(name, reduce.dtype, lanes)
    views: dict[str, View] = {}
    packed: dict[str, Buffer] = {}
    arguments: list[tuple[str, Pack | None]] = []
    for operand in task.operands:
        var, pack = operand.var, packs.get(operand.var.name)
        again = task.read_again(var.name)
        if pack is not None:
            called = f"{var.name}_packed" if again else var.name
            packed[var.name] = b.buffer(called, var.type.dtype, pack.size)
            arguments.append((var.name, pack))
        if pack is None or again:
            layout = operand_layout(operand, task.reads, axis, lanes)
            views[var.name] = View(b.buffer(var.name, var.type.dtype, layout.size), layout)
            arguments.append((var.name, layout if operand.static else None))
    views |= declare_outputs(b, task.outputs)
    arguments += [(output.var.name, None) for output in task.outputs]
    return Draft(task, b, reduce, axis, views, packed, tuple(arguments))
