"""What kernels for a card have in common: their buffers, and how threads find their places."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.cuda_target import WARP, CudaTarget
from convdsl.kernel.expr import Axis, Read
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import IndexTest
from convdsl.schedules.emission import (
    bounds_tests,
    depends_on_lane,
    extent_of,
    lane_stride,
    lane_symbol,
)
from convdsl.tensor import Dim, floor_div, substitute

THREADS = 256
"""Of a block: enough warps to hide a load behind, few enough for any number of registers."""


def block_of(target: CudaTarget, threads: int) -> int:
    """Threads of a block where so many are wanted in all: fewer where else some multiprocessors
    would have nothing to do."""
    wanted = THREADS
    while wanted > 2 * WARP and threads < 2 * wanted * target.facts.multiprocessors:
        wanted //= 2
    return wanted


@contextmanager
def each(b: Builder, total: int, threads: int) -> Generator[Dim]:
    """The body runs once for each number below `total`, neighbours side by side."""
    with (
        b.blocks(("block",), (-(-total // threads),)) as (block,),
        b.threads(("thread",), (threads,)) as (thread,),
        guarded(b, IndexTest("lt", block * threads + thread, total)),
    ):
        yield block * threads + thread


@contextmanager
def guarded(b: Builder, *tests: IndexTest) -> Generator[None]:
    """Statements that run where all tests hold; what is known to hold is not asked."""
    with ExitStack() as stack:
        for test in tests:
            if decide(test) is not True:
                stack.enter_context(b.when(test))
        yield


def along(axis: Axis, lanes: int) -> Dim:
    """Any vector along an axis: the positions of its lanes."""
    return Axis("vector", -(-extent_of(axis) // lanes)).i * lanes + lane_symbol(lanes)


def stride_along(read: Read, layout: Layout, axis: Axis, lanes: int) -> int | None:
    """How far apart lanes along an axis lie; None where they are read one by one."""
    at = {axis.name: along(axis, lanes)}
    index = [substitute(d, at) for d in read.index]
    for number, (place, extent) in enumerate(zip(index, read.tensor.type.sizes, strict=True)):
        if not depends_on_lane(place):
            continue
        filled = number == layout.axis
        own = filled and read.index[number] == axis.i and extent == axis.extent
        asked = not filled or read.outside is not None
        if asked and not own and bounds_tests(place, extent):
            return None
    return lane_stride(layout.offset(index))


def unravelled(number: Dim, extents: Sequence[int]) -> list[Dim]:
    """The position of which a number is the row-major place."""
    found: list[Dim] = []
    for axis, extent in enumerate(extents):
        inner = math.prod(extents[axis + 1 :])
        here = floor_div(number, inner)
        found.append(here if axis == 0 else here - floor_div(number, inner * extent) * extent)
    return found


def position(place: Sequence[Dim], layout: Layout, axes: Sequence[Axis]) -> dict[str, Dim]:
    """The axes at a place of a layout's physical axes."""
    index = list(place)
    if layout.axis is not None:
        lane = index.pop()
        index[layout.axis] = index[layout.axis] * layout.block + lane
    return {axis.name: at for axis, at in zip(axes, index, strict=True)}
