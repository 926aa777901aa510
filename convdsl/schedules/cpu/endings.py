"""Reductions that the kernel of a contraction ends in.

Each piece of its parallel work adds up what it makes, tile by tile, in registers, and writes
that to scratch: a tensor [image, piece, channel], blocked along the channels. A second task, an
ordinary reduction of that tensor, finds the results. What a piece is follows from shapes alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Axis, Expr, Read, Reduce, Stage, TensorVar, transform
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Buffer
from convdsl.kernel.target import Target
from convdsl.schedules.accumulators import Accumulators
from convdsl.schedules.cpu import generic, reduction
from convdsl.schedules.emission import Emitter, extent_of
from convdsl.schedules.task import Ending, Operand, Scheduled, Scratch, Task
from convdsl.tensor import Dim, TensorType
from convdsl.tensor.records import record


def may_end(task: Task, image: Axis, channel: Axis) -> bool:
    """Whether the results of a task's ending, if it has one, are of images, channels, or all."""
    if task.ending is None:
        return True
    known = {image.name, channel.name}
    wide = {axis.name for axis in task.ending.axes if axis.extent != 1}
    sums = all(r.op in ("sum", "max", "min") and r.dtype.is_float for r in task.ending.reduces)
    return wide <= known and sums


@record
class Sums:
    """What the pieces of a kernel add up: near accumulators over a tile, far ones over a piece, a
    slot for each of `slots` vectors of channels; and where it is written."""

    ending: Ending
    image: Axis
    channel: Axis
    layout: Layout
    buffers: tuple[Buffer, ...]
    near: Accumulators
    far: Accumulators

    @staticmethod
    def of(b: Builder, ending: Ending, image: Axis, channel: Axis, pieces: int, slots: int) -> Sums:
        shape = (extent_of(image), pieces, extent_of(channel))
        layout = Layout(shape, 2, b.lanes)
        buffers = tuple(
            b.buffer(_name(number), reduce.dtype, layout.size, written=True)
            for number, reduce in enumerate(ending.reduces)
        )
        near, far = (Accumulators.of(b, ending.reduces, slots, b.lanes) for _ in range(2))
        return Sums(ending, image, channel, layout, buffers, near, far)

    def add(self, slot: int, emitter: Emitter, at: Mapping[str, Dim]) -> None:
        """The values at one position, which `emitter` holds."""
        self.near.add(slot, emitter, at, None)

    def end_tile(self, slots: int) -> None:
        for slot in range(slots):
            self.far.take(slot, self.near.values(slot))

    def end_piece(self, image: Dim, piece: Dim, channel: Dim, slots: int) -> None:
        """Write what was added up, of the vectors of channels from `channel` on."""
        lanes = self.far.b.lanes
        for slot in range(slots):
            where = self.layout.offset([image, piece, channel + slot * lanes])
            for buffer, value in zip(self.buffers, self.far.values(slot), strict=True):
                self.far.b.store(buffer, where, value)

    def end_nothing(self, image: Dim, piece: Dim, channel: Dim, slots: int) -> None:
        """Write what adds nothing, for a piece that does not exist."""
        self.far.clear()
        self.end_piece(image, piece, channel, slots)

    def combined(self, task: Task, first: Scheduled, name: str, target: Target) -> Scheduled:
        """The kernels given, and those that find the results."""
        late = self._late(task)
        offers = (reduction.cost(late, target), generic.cost(late, target))
        chosen = generic.emit if offers[0] is None else reduction.emit
        second = chosen(late, f"{name}_sums", target)
        own = (Scratch(buffer.name, buffer.dtype, buffer.size) for buffer in self.buffers)
        return first.then(second, *own)

    def _late(self, task: Task) -> Task:
        """The ending as a task of its own, over what the pieces wrote."""
        ending = self.ending
        type = TensorType(ending.reduces[0].dtype, self.layout.shape)
        written = {
            reduce: TensorVar(_name(number), TensorType(reduce.dtype, type.shape))
            for number, reduce in enumerate(ending.reduces)
        }
        kept = {axis.name for axis in ending.axes}
        piece = Axis("piece", self.layout.shape[1])
        axes = tuple(a for a in (self.image, piece, self.channel) if a.name not in kept)
        index = (self.image.i, piece.i, self.channel.i)

        def rule(node: Expr) -> Expr | None:
            if isinstance(node, Reduce):
                return Reduce(node.op, axes, Read(written[node], index))
            return None

        stages = tuple(
            Stage(stage.target, stage.axes, transform(stage.body, rule)) for stage in ending.stages
        )
        operands = [Operand(var, self.layout) for var in written.values()]
        late = Task(task.op, stages, tuple(operands), ending.outputs, ending.outputs[0].layout)
        names = {read.tensor.name for read in late.reads}
        operands += [o for o in task.operands if o.var.name in names]
        return Task(task.op, stages, tuple(operands), late.outputs, late.layout)


def _name(number: int) -> str:
    """Of the scratch for one reduction."""
    return f"sums{number}"
