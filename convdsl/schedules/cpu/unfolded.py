"""Convolutions that read no position twice: first what they read is put side by side.

Strided ones of one tap, and those of patches, whose steps are as long as their filters; of plain
inputs rows in steps first, which are then turned into vectors of channels. What is
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
from convdsl.schedules.cpu.direct_plan import STREAMS
from convdsl.schedules.cpu.generic import generic
from convdsl.schedules.cpu.planar import planar
from convdsl.schedules.cpu.transpose import transpose
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Operand, Output, Schedule, Scheduled, Scratch, Task
from convdsl.tensor import Dim, TensorType, floor_div
from convdsl.tensor.records import record

_COPIED = 3.0  # cycles of a vector from beyond the second-level cache into it
_WORTH_TURNING = 4.0  # cycles of multiply-adds for each element, beside 1.3 of copies and lines
_GATHERED = 1.6  # cycles of an element that is brought into a vector by itself
_RAGGED = 2.8  # the same where rows of taps are no whole vectors: from one of two rows
_TURNED = 1.5  # cycles of an element of rows of taps that are turned into planes, at least


@record
class Unfolded:
    """Tasks that make a map of what is read, one of what the other has made, and the one that is
    left to do with it."""

    copies: tuple[Task, ...]
    rest: Task

    @property
    def maps(self) -> tuple[Output, ...]:
        return tuple(copy.outputs[0] for copy in self.copies)


@lru_cache(maxsize=512)
def unfolded(task: Task) -> Unfolded | None:
    """None where windows overlap, or nothing would change."""
    conv = match_convolution(task.root)
    if conv is None or task.over or len(task.reducing) > 1 or task.layout.axis not in (1, None):
        return None
    given = task.operand(conv.x.tensor.name)
    if all(s.stride == 1 for s in conv.space) or not all(s.inside for s in conv.space):
        return None
    if given.layout is None or given.layout.pitch or task.read_again(given.var.name):
        return None
    if conv.taps == 1:
        wide = conv.groups == 1 or conv.channels_in >= task.layout.block
        lies_so = given.layout.axis == task.layout.axis or (
            given.layout.axis is None and _is_worth_turning(conv, task)
        )
        return _of_one_tap(task, conv, given) if wide and lies_so else None
    w = task.operand(conv.w.tensor.name)
    whole = conv.groups == 1 and not conv.order and w.static and not task.read_again(w.var.name)
    if not whole or given.layout.axis is not None or not all(map(_is_of_patches, conv.space)):
        return None
    return _of_patches(task, conv, given, w)


def _is_worth_turning(conv: Convolution, task: Task) -> bool:
    """Whether a plain input has more rows than a processor sees coming, and its elements meet
    enough multiply-adds."""
    cycles = conv.channels_out / (2 * task.layout.block)
    return conv.groups == 1 and conv.channels_in >= STREAMS and cycles >= _WORTH_TURNING


def _is_of_patches(space: Space) -> bool:
    """Whether every element is read once at the most."""
    apart = space.stride >= space.taps and space.dilation == 1
    return (space.taps == 1 or apart) and not space.flip


def _of_one_tap(task: Task, conv: Convolution, given: Operand) -> Unfolded:
    """The map has the input's images and channels, and the output's positions."""
    assert given.layout is not None
    copies = [_copy(task, conv, given, given.var.type.sizes[1], given.layout.axis)]
    turned = given.layout.axis != task.layout.axis
    if turned:  # rows in steps are read in vectors of rows, and turned then
        copies.append(_blocked(copies[0], task.layout.block))
    (map,) = copies[-1].outputs
    var = map.var

    def rule(node: Expr) -> Expr | None:
        if not (isinstance(node, Read) and node.tensor == given.var):
            return None
        return Read(var, (*node.index[:2], *_positions(conv)))

    body = transform(task.root.body, rule)
    operands = {given.var.name: Operand(var, map.layout)}
    return Unfolded(tuple(copies), _rest(task, body, operands))


def _of_patches(task: Task, conv: Convolution, given: Operand, w: Operand) -> Unfolded:
    """The map has a channel for each channel and tap, in the order in which the filters lie: in
    vectors of these, or in planes where the output lies so."""
    channels = conv.channels_in * conv.taps
    wanted = _copy(task, conv, given, channels, task.layout.axis)
    copy = wanted if task.layout.axis == 1 else _planes(conv, given)
    (map,) = wanted.outputs
    var = map.var
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
    operands = {given.var.name: Operand(var, map.layout), w.var.name: Operand(filters, None)}
    return Unfolded((copy,), _rest(task, body, operands))


def _planes(conv: Convolution, given: Operand) -> Task:
    """The task that makes the map in planes, with axes of their own for the taps: along the last
    of them elements lie side by side where they come from, so that squares of them are turned."""
    image = Axis("image", given.var.type.sizes[0])
    channel = Axis("channel", conv.channels_in)
    taps = [Axis(f"tap{i}", space.taps) for i, space in enumerate(conv.space)]
    outs = [space.out for space in conv.space]
    axes = (image, channel, *taps, *outs)
    layout = Layout(tuple(extent_of(axis) for axis in axes))
    type = TensorType(given.var.type.dtype, layout.shape)
    var = TensorVar(f"{given.var.name}_unfolded", type)
    index = (
        _place(out) * space.stride + _place(tap) - space.pad
        for space, tap, out in zip(conv.space, taps, outs, strict=True)
    )
    read = Read(given.var, (_place(image), _place(channel), *index))
    return Task("unfolded", (Stage(var, axes, read),), (given,), (Output(var, layout),), layout)


def _place(axis: Axis) -> Dim:
    return 0 if axis.extent == 1 else axis.i


def _positions(conv: Convolution) -> list[Dim]:
    return [0 if s.outs == 1 else s.out.i for s in conv.space]


def _copy(
    task: Task, conv: Convolution, given: Operand, channels: int, blocked: int | None
) -> Task:
    """The task that makes the map, in vectors of channels or plain."""
    shape = (given.var.type.sizes[0], channels, *(s.outs for s in conv.space))
    layout = Layout(shape) if blocked is None else Layout(shape, 1, task.layout.block)
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


def _blocked(copy: Task, lanes: int) -> Task:
    """The task that brings a plain map into vectors of channels."""
    (map,), axes = copy.outputs, copy.axes
    layout = Layout(map.layout.shape, 1, lanes)
    var = replace(map.var, name=f"{map.var.name}_blocked")
    read = Read(map.var, tuple(0 if axis.extent == 1 else axis.i for axis in axes))
    given = (Operand(map.var, map.layout),)
    return Task("blocked", (Stage(var, axes, read),), given, (Output(var, layout),), layout)


def _rest(task: Task, body: Expr, operands: dict[str, Operand]) -> Task:
    """The task with another sum, of other operands in the places of theirs."""
    root = replace(task.root, body=body)
    stages = tuple(root if stage is task.root else stage for stage in task.stages)
    given = tuple(operands.get(o.var.name, o) for o in task.operands)
    return replace(task, stages=stages, operands=given)


def cost(task: Task, target: Target) -> float | None:
    """Cycles of the copy, and of the sums."""
    made = unfolded(task)
    rest = None if made is None else _sums(task, target).cost(made.rest)
    if made is None or rest is None:
        return None
    first, *others = made.copies
    (given,), held = first.operands, first.layout.held
    assert given.layout is not None
    if others or task.layout.axis is None:
        costs = [schedule.cost(copy) for schedule, copy in _ways(made, target)]
        known = [cost for cost in costs if cost is not None]  # single positions are not turned
        turned = max(sum(known), (task.layout.axis is None) * held * _TURNED)
        return rest + turned if len(known) == len(costs) else None
    if given.layout.axis == 1:
        return rest + held / first.layout.block * _COPIED
    return rest + held * (_RAGGED if _row_of_taps(task) % first.layout.block else _GATHERED)


def _row_of_taps(task: Task) -> int:
    """Of a row of the filters."""
    conv = match_convolution(task.root)
    assert conv is not None
    return conv.space[-1].taps


def _sums(task: Task, target: Target) -> Schedule:
    """What runs the product that is left."""
    return direct(target) if task.layout.axis == 1 else planar(target)


def _ways(made: Unfolded, target: Target) -> list[tuple[Schedule, Task]]:
    """Each copy and what runs it."""
    first, *others = made.copies
    turned = transpose(target)
    squares = first.layout.axis is None and turned.cost(first) is not None
    own = turned if squares else generic(target)
    return [(own, first), *((turned, copy) for copy in others)]


def emit(task: Task, name: str, target: Target) -> Scheduled:
    """All, one after the other."""
    made = unfolded(task)
    assert made is not None
    found = _sums(task, target).emit(made.rest, name)
    for schedule, copy in reversed(_ways(made, target)):
        (map,) = copy.outputs
        between = Scratch(map.var.name, map.var.type.dtype, map.layout.size)
        found = schedule.emit(copy, f"{name}_{copy.op}").then(found, between)
    return found


def unfolding(target: Target) -> Schedule:
    """The schedule for a processor."""
    return Schedule(
        "unfolded",
        lambda task: cost(task, target),
        lambda task, name: emit(task, name, target),
        endings=True,
    )
