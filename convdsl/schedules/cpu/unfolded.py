"""Convolutions that read no position twice: first what they read is put side by side.

Strided ones of one tap, and those of patches, whose steps are as long as their filters. What is
left is a product of matrices, whose tiles run over rows and columns as one: none is cut off at the
end of a row, and all that a line of the cache brings is wanted by every tile of channels. The copy
is of a map at the most, once; the products meet it once for each such tile.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from convdsl.kernel.expr import Axis, Binary, Expr, Read, Reduce, Stage, TensorVar, transform
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import Convolution, Space, match_convolution
from convdsl.schedules.cpu.direct import direct
from convdsl.schedules.cpu.generic import generic
from convdsl.schedules.task import Operand, Output, Schedule, Scheduled, Scratch, Task
from convdsl.tensor import Dim, TensorType, floor_div
from convdsl.tensor.records import record

_COPIED = 3.0  # cycles of a vector from beyond the second-level cache into it
_GATHERED = 1.0  # cycles of an element that is brought into a vector by itself


@record
class Unfolded:
    """A task that makes a map of what is read, and the one that is left to do with it."""

    copy: Task
    rest: Task

    @property
    def map(self) -> Output:
        return self.copy.outputs[0]


@lru_cache(maxsize=512)
def unfolded(task: Task) -> Unfolded | None:
    """None where windows overlap, or nothing would change."""
    conv = match_convolution(task.root)
    if conv is None or task.over or len(task.reducing) > 1 or task.layout.axis != 1:
        return None
    given = task.operand(conv.x.tensor.name)
    if all(s.stride == 1 for s in conv.space) or not all(s.inside for s in conv.space):
        return None
    if given.layout is None or given.layout.pitch or task.read_again(given.var.name):
        return None
    if conv.taps == 1:
        wide = conv.groups == 1 or conv.channels_in >= task.layout.block
        return _of_one_tap(task, conv, given) if wide and given.layout.axis == 1 else None
    w = task.operand(conv.w.tensor.name)
    whole = conv.groups == 1 and not conv.order and w.static and not task.read_again(w.var.name)
    if not whole or given.layout.axis is not None or not all(map(_is_of_patches, conv.space)):
        return None
    return _of_patches(task, conv, given, w)


def _is_of_patches(space: Space) -> bool:
    """Whether every element is read once at the most."""
    apart = space.stride >= space.taps and space.dilation == 1
    return (space.taps == 1 or apart) and not space.flip


def _of_one_tap(task: Task, conv: Convolution, given: Operand) -> Unfolded:
    """The map has the input's images and channels, and the output's positions."""
    copy = _copy(task, conv, given, given.var.type.sizes[1])
    var = copy.outputs[0].var

    def rule(node: Expr) -> Expr | None:
        if not (isinstance(node, Read) and node.tensor == given.var):
            return None
        return Read(var, (*node.index[:2], *_positions(conv)))

    body = transform(task.root.body, rule)
    return Unfolded(copy, _rest(task, body, {given.var.name: Operand(var, copy.layout)}))


def _of_patches(task: Task, conv: Convolution, given: Operand, w: Operand) -> Unfolded:
    """The map has a channel for each channel and tap, in the order in which the filters lie."""
    channels = conv.channels_in * conv.taps
    copy = _copy(task, conv, given, channels)
    var = copy.outputs[0].var
    ones = (1,) * len(conv.space)
    filters = TensorVar(
        w.var.name, TensorType(w.var.type.dtype, (conv.channels_out, channels, *ones))
    )
    zeros: tuple[Dim, ...] = (0,) * len(conv.space)
    n, k = (0 if axis.extent == 1 else axis.i for axis in (conv.n, conv.k))
    axis = Axis("unfolded", channels)
    product = Binary(
        "mul",
        Read(var, (n, axis.i, *_positions(conv))),
        Read(filters, (k, axis.i, *zeros)),
    )
    made = Reduce("sum", (axis,), product)
    body = transform(task.root.body, lambda node: made if node == conv.reduce else None)
    operands = {given.var.name: Operand(var, copy.layout), w.var.name: Operand(filters, None)}
    return Unfolded(copy, _rest(task, body, operands))


def _positions(conv: Convolution) -> list[Dim]:
    return [0 if s.outs == 1 else s.out.i for s in conv.space]


def _copy(task: Task, conv: Convolution, given: Operand, channels: int) -> Task:
    """The task that makes the map, in vectors of channels."""
    shape = (given.var.type.sizes[0], channels, *(s.outs for s in conv.space))
    layout = Layout(shape, 1, task.layout.block)
    var = TensorVar(f"{given.var.name}_unfolded", TensorType(given.var.type.dtype, shape))
    image, channel = Axis("image", shape[0]), Axis("channel", channels)
    rest: Dim = channel.i
    index: list[Dim] = []
    for space in reversed(conv.space):
        above = floor_div(rest, space.taps)
        index.insert(0, space.out.i * space.stride + rest - above * space.taps - space.pad)
        rest = above
    read = Read(given.var, (image.i, rest, *index))
    made = Stage(var, (image, channel, *(s.out for s in conv.space)), read)
    return Task("unfolded", (made,), (given,), (Output(var, layout),), layout)


def _rest(task: Task, body: Expr, operands: dict[str, Operand]) -> Task:
    """The task with another sum, of other operands in the places of theirs."""
    root = replace(task.root, body=body)
    stages = tuple(root if stage is task.root else stage for stage in task.stages)
    given = tuple(operands.get(o.var.name, o) for o in task.operands)
    return replace(task, stages=stages, operands=given)


def cost(task: Task, target: Target) -> float | None:
    """Cycles of the copy, and of the direct sums."""
    made = unfolded(task)
    rest = None if made is None else direct(target).cost(made.rest)
    if made is None or rest is None:
        return None
    layout, (given,) = made.copy.layout, made.copy.operands
    assert given.layout is not None
    whole = given.layout.axis == 1
    return rest + (layout.held / layout.block * _COPIED if whole else layout.held * _GATHERED)


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """Both, one after the other."""
    made = unfolded(task)
    assert made is not None
    first = generic(target).emit(made.copy, f"{name}_unfolded")
    rest = direct(target).emit(made.rest, name)
    between = Scratch(made.map.var.name, made.map.var.type.dtype, made.map.layout.size)
    return first.then(rest, between)


def unfolding(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "unfolded",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        endings=True,
    )
