"""A kernel under construction whose buffers are declared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from convdsl.kernel.builder import Builder
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Buffer
from convdsl.schedules.chain import declare_outputs
from convdsl.schedules.emission import View
from convdsl.schedules.task import Arguments, Output, Scheduled, Scratch, Task


@dataclass(frozen=True)
class Frame:
    """A kernel whose buffers are declared: operands as they lie or as said, and weights as in
    their files; those `packed` are brought to that in each call. `outputs` are the task's, or
    those of all that the kernel computes."""

    b: Builder
    views: dict[str, View]
    arguments: Arguments

    @staticmethod
    def open(
        task: Task,
        name: str,
        lanes: int = 1,
        layouts: Mapping[str, Layout] | None = None,
        packed: Collection[str] = (),
        outputs: Sequence[Output] | None = None,
    ) -> Frame:
        b = Builder(name, task.element, lanes)
        views: dict[str, View] = {}
        for operand in task.operands:
            layout = (layouts or {}).get(operand.var.name, operand.layout)
            layout = layout or Layout(operand.var.type.sizes)
            buffer = b.buffer(operand.var.name, operand.var.type.dtype, layout.size)
            views[operand.var.name] = View(buffer, layout)
        packs = [
            views[o.var.name].layout if o.static or o.var.name in packed else None
            for o in task.operands
        ]
        made = declare_outputs(b, task.outputs if outputs is None else outputs)
        arguments = (*zip(views, packs, strict=True), *((output, None) for output in made))
        return Frame(b, views | made, arguments)

    def finish(self, private: Iterable[Buffer] = ()) -> Scheduled:
        """The kernel with what its buffers hold, and the `private` memory of its iterations."""
        buffers = tuple(private)
        arguments = (*self.arguments, *((buffer.name, None) for buffer in buffers))
        scratch = tuple(Scratch(b.name, b.dtype, b.size, private=True) for b in buffers)
        return Scheduled(((self.b.kernel(), arguments),), scratch)
