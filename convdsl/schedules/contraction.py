"""Finds convolutions and matrix products in the structure of a stage.

A contraction is a stage whose body holds exactly one sum of products, of a data tensor and a
weight; all around it, and the stages after it, is the epilogue. Nothing here looks at operator
names: a convolution is what reads like one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from convdsl.kernel.expr import Axis, Binary, Read, Reduce, walk
from convdsl.schedules.emission import extent_of
from convdsl.schedules.task import Task
from convdsl.tensor import Dim, substitute


@dataclass(frozen=True, slots=True)
class Space:
    """One spatial axis: input position = out * stride + tap * dilation - pad."""

    out: Axis
    tap: Axis | None  # None: a single tap
    extent: int  # of the input
    stride: int
    dilation: int
    pad: int

    @property
    def taps(self) -> int:
        return 1 if self.tap is None else extent_of(self.tap)

    @property
    def outs(self) -> int:
        return extent_of(self.out)

    @property
    def inside(self) -> bool:
        """No tap ever leaves the input."""
        last = (self.outs - 1) * self.stride + (self.taps - 1) * self.dilation - self.pad
        return self.pad <= 0 and last < self.extent


@dataclass(frozen=True, slots=True)
class Convolution:
    """y[n, k, p..] = epilogue(sum over c, r.. of x[n, g C/G + c, p U + r D - P ..] w[k, c, r..])

    where g is the group that the output channel k belongs to.
    """

    reduce: Reduce
    x: Read
    w: Read
    n: Axis
    k: Axis
    c: Axis | None  # None: one input channel a group
    groups: int
    space: tuple[Space, ...]
    flip: bool

    @property
    def channels_in(self) -> int:
        """Input channels of one group."""
        return 1 if self.c is None else extent_of(self.c)

    @property
    def channels_out(self) -> int:
        """Output channels of one group."""
        return extent_of(self.k) // self.groups

    @property
    def taps(self) -> int:
        total = 1
        for space in self.space:
            total *= space.taps
        return total


def find_product(task: Task) -> tuple[Reduce, Read, Read] | None:
    """The only reduction of the task: a sum of data times weight."""
    found = [node for node in walk(task.root.body) if isinstance(node, Reduce)]
    if len(found) != 1 or found[0].op != "sum":
        return None
    body = found[0].body
    if not (isinstance(body, Binary) and body.op == "mul"):
        return None
    a, b = body.a, body.b
    if not (isinstance(a, Read) and isinstance(b, Read)):
        return None
    if task.operand(a.tensor.name).static:
        a, b = b, a
    if task.operand(a.tensor.name).static or not task.operand(b.tensor.name).static:
        return None
    if b.outside is not None:
        return None
    if any(r.tensor.name == b.tensor.name and r is not b for r in task.reads):
        return None
    return found[0], a, b


@lru_cache(maxsize=512)
def match_convolution(task: Task) -> Convolution | None:
    """The convolution that a task is, or None."""
    found = find_product(task)
    if found is None or len(task.axes) < 3:
        return None
    reduce, x, w = found
    n, k, *outs = task.axes
    if len(x.index) != 2 + len(outs) or len(w.index) != 2 + len(outs):
        return None
    if x.index[0] != n.i or w.index[0] != k.i or (x.outside or 0.0) != 0.0:
        return None
    by_name = {axis.name: axis for axis in reduce.axes}
    c = _single_axis(w.index[1], by_name)
    if c is None and w.index[1] != 0:
        return None
    channels_in = 1 if c is None else extent_of(c)
    groups = _groups(x.index[1], k, c, channels_in)
    if groups is None:
        return None
    taps: list[Axis | None] = []
    flips: set[bool] = set()
    for index in w.index[2:]:
        tap = _single_axis(index, by_name)
        mirrored = _mirrored_axis(index, by_name)
        if tap is None and mirrored is None and index != 0:
            return None
        taps.append(tap or mirrored)
        if tap is not None or mirrored is not None:
            flips.add(mirrored is not None)
    if len(flips) > 1:
        return None
    space: list[Space] = []
    for index, out, tap, extent in zip(
        x.index[2:], outs, taps, x.tensor.type.shape[2:], strict=True
    ):
        assert isinstance(extent, int)
        made = _space(index, out, tap, extent)
        if made is None or (x.outside is None and not made.inside):
            return None
        space.append(made)
    used = {axis.name for axis in (c, *taps) if axis is not None}
    if used != set(by_name):
        return None
    return Convolution(reduce, x, w, n, k, c, groups, tuple(space), flips == {True})


def _single_axis(index: Dim, axes: dict[str, Axis]) -> Axis | None:
    return next((axis for axis in axes.values() if index == axis.i), None)


def _mirrored_axis(index: Dim, axes: dict[str, Axis]) -> Axis | None:
    mirrored = (a for a in axes.values() if index == a.extent - 1 - a.i)
    return next((axis for axis in mirrored if extent_of(axis) > 1), None)


def _groups(index: Dim, k: Axis, c: Axis | None, channels_in: int) -> int | None:
    """Number of groups G where index = (k // (K / G)) * C/G + c."""
    rest = index - (0 if c is None else c.i)
    if rest == 0:
        return 1
    outputs = extent_of(k)
    for groups in range(2, outputs + 1):
        if outputs % groups == 0 and (k.i // (outputs // groups)) * channels_in == rest:
            return groups
    return None


def _space(index: Dim, out: Axis, tap: Axis | None, extent: int) -> Space | None:
    """Match index = out * stride + tap * dilation - pad."""
    stride = _coefficient(index, out)
    dilation = 1 if tap is None else _coefficient(index, tap)
    at = {out.name: 0} | ({tap.name: 0} if tap is not None else {})
    constant = substitute(index, at)
    if stride is None or dilation is None or not isinstance(constant, int):
        return None
    if out.i * stride + (0 if tap is None else tap.i * dilation) + constant != index:
        return None
    if (stride < 1 and extent_of(out) > 1) or (dilation < 1 and tap and extent_of(tap) > 1):
        return None
    return Space(out, tap, extent, max(stride, 1), max(dilation, 1), -constant)


def _coefficient(index: Dim, axis: Axis) -> int | None:
    """How far the index moves for a step along the axis, where that is constant."""
    step = substitute(index, {axis.name: 1}) - substitute(index, {axis.name: 0})
    return step if isinstance(step, int) else None
