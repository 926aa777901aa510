"""The kernels around a card's Winograd products: a thread takes some neighbouring channels of one
tile through a transform, all of it in registers.

    V = B^T d B        U = G g G^T        y = A^T M A, then the epilogue

Neighbouring threads have neighbouring channels. All loops over a tile are unrolled, since what is
in registers cannot be chosen by a counter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import (
    Cast,
    Const,
    Gather,
    IndexTest,
    Kernel,
    Lane,
    Load,
    Select,
    Value,
    ValueType,
)
from convdsl.schedules.chain import emit_chain
from convdsl.schedules.cuda.frame import block_of, each, guarded, unravelled
from convdsl.schedules.cuda.winograd_filters import filter_index
from convdsl.schedules.cuda.winograd_plan import FILTERS, PRODUCTS, TILES, Winograd
from convdsl.schedules.emission import Emitter, View, extent_of, lane_symbol
from convdsl.schedules.frame import Frame
from convdsl.schedules.operands import operand_layout
from convdsl.schedules.steps import Steps, transformed
from convdsl.schedules.task import Scheduled
from convdsl.tensor import Dim, DType

_Given: TypeAlias = Callable[[int, int], Value]
_Made: TypeAlias = Callable[[int, int, Value], None]


def transform(b: Builder, matrices: Sequence[Steps], given: _Given, made: _Made) -> None:
    """made(i, j, value) for all results of M x N^T, x[i, j] = given(i, j); of M x where a tile has
    one axis, i is 0 then."""
    second = matrices[-1]
    width = second.inputs
    if len(matrices) == 1:
        rows = [[b.let(given(0, j), "d") for j in range(width)]]
    else:
        first = matrices[0]
        columns = [
            transformed(b, first, [b.let(given(i, j), "d") for i in range(first.inputs)])
            for j in range(width)
        ]
        rows = [list(row) for row in zip(*columns, strict=True)]
    for i, row in enumerate(rows):
        for j, value in enumerate(transformed(b, second, row)):
            made(i, j, value)


def inputs_kernel(made: Winograd, target: CudaTarget, name: str) -> Kernel:
    """V of the input."""
    conv, tiling, lanes = made.conv, made.tiling, made.lanes
    b = Builder(name, DType.F32, lanes)
    x = View(b.buffer(conv.x.tensor.name, conv.x.dtype, made.x.size), made.x)
    v = b.buffer(TILES, made.stored, made.inputs_size, written=True)
    extents = (conv.groups, tiling.count, made.channels // lanes)
    total = conv.groups * tiling.count * extents[2]
    with each(b, total, block_of(target, total)) as number:
        group, tile, vector = unravelled(number, extents)
        image, firsts = tiling.place(tile)
        channel = vector * lanes

        def given(i: int, j: int) -> Value:
            numbers = tiling.spread(i, j)
            index = [
                line.input(first, at)
                for line, first, at in zip(tiling.lines, firsts, numbers, strict=True)
            ]
            where = x.layout.offset([image, group * conv.channels_in + channel, *index])
            type = ValueType(conv.x.dtype, lanes)
            loaded = b.let(Load(x.buffer, where, type, tiling.guards(index), 0.0), "d")
            return _before(_as(loaded, DType.F32), channel, conv.channels_in)

        def put(i: int, j: int, value: Value) -> None:
            matrix = group * tiling.products + i * _width(made) + j
            b.store(
                v, (matrix * tiling.count + tile) * made.channels + channel, _as(value, made.stored)
            )

        transform(b, [line.form.inputs for line in tiling.active], given, put)
    return b.kernel()


def filters_kernel(made: Winograd, target: CudaTarget, name: str) -> Kernel:
    """U[z, c, k] of filters that are known in calls only."""
    conv, tiling = made.conv, made.tiling
    w = conv.w.tensor
    layout = made.task.operand(w.name).layout or Layout(w.type.sizes)
    b = Builder(name, DType.F32, 1)
    array = b.buffer(w.name, conv.w.dtype, layout.size)
    u = b.buffer(FILTERS, made.stored, made.filters_size, written=True)
    extents = (conv.groups, made.channels, made.filters)
    total = conv.groups * made.channels * made.filters
    with each(b, total, block_of(target, total)) as number:
        group, c, k = unravelled(number, extents)
        inside = (IndexTest("lt", c, conv.channels_in), IndexTest("lt", k, conv.channels_out))

        def given(i: int, j: int) -> Value:
            where = layout.offset(filter_index(conv, group, k, c, tiling.spread(i, j)))
            return _as(Load(array, where, ValueType(conv.w.dtype), inside, 0.0), DType.F32)

        def put(i: int, j: int, value: Value) -> None:
            matrix = group * tiling.products + i * _width(made) + j
            b.store(u, (matrix * made.channels + c) * made.filters + k, _as(value, made.stored))

        transform(b, [line.form.filters for line in tiling.active], given, put)
    return b.kernel()


def outputs_kernel(made: Winograd, target: CudaTarget, name: str) -> Scheduled:
    """The sums of M, and what the task makes of them."""
    conv, tiling, lanes = made.conv, made.tiling, made.lanes
    task, channels = made.rest, extent_of(conv.k)
    own = {o.var.name: operand_layout(o, task.reads, conv.k, made.filters) for o in task.operands}
    frame = Frame.open(task, name, lanes, own)
    b = frame.b
    m = b.buffer(PRODUCTS, DType.F32, made.products_size)
    extents = (conv.groups, tiling.count, made.filters // lanes)
    total = conv.groups * tiling.count * extents[2]
    with each(b, total, block_of(target, total)) as number:
        group, tile, vector = unravelled(number, extents)
        image, firsts = tiling.place(tile)
        counts = [line.outputs(first) for line, first in zip(tiling.lines, firsts, strict=True)]
        first = group * conv.channels_out + vector * lanes

        def given(i: int, j: int) -> Value:
            matrix = group * tiling.products + i * _width(made) + j
            where = (matrix * tiling.count + tile) * made.filters + vector * lanes
            return Load(m, where, ValueType(DType.F32, lanes))

        def put(i: int, j: int, value: Value) -> None:
            numbers = tiling.spread(i, j)
            places = [
                line.output(begin, at)
                for line, begin, at in zip(tiling.lines, firsts, numbers, strict=True)
            ]
            at = {conv.n.name: image, **tiling.bind(places)}
            inside = (IndexTest("lt", n, c) for n, c in zip(numbers, counts, strict=True))
            with guarded(b, *inside):
                if made.whole_vectors and lanes > 1:
                    here = {**at, conv.k.name: first + lane_symbol(lanes)}
                    ends = {conv.k.name: channels}
                    known = ((conv.reduce, value),)
                    emitter = Emitter(b, frame.views, lanes, known=known, ends=ends)
                    emit_chain(emitter, task, here, {**at, conv.k.name: first})
                    return
                for lane in range(lanes):
                    alone = {**at, conv.k.name: first + lane}
                    with guarded(b, IndexTest("lt", vector * lanes + lane, conv.channels_out)):
                        known = ((conv.reduce, Lane(value, lane)),)
                        emit_chain(Emitter(b, frame.views, 1, known=known), task, alone, alone)

        transform(b, [line.form.outputs for line in tiling.active], given, put)
    return Scheduled.one(b.kernel(), (*frame.arguments, (PRODUCTS, None)))


def _width(made: Winograd) -> int:
    """Products along the last axis of a tile."""
    return made.tiling.active[-1].form.products


def _as(value: Value, dtype: DType) -> Value:
    """Rounded on its way to memory, or widened on its way from there."""
    if value.type.dtype is dtype:
        return value
    return Cast(value, ValueType(dtype, value.type.lanes))


def _before(value: Value, first: Dim, end: int) -> Value:
    """Zero in lanes that are filling, which may hold anything."""
    lanes = value.type.lanes
    tests = [IndexTest("lt", first + lane, end) for lane in range(lanes)]
    if all(decide(test) for test in tests):
        return value
    zero = Const(0.0, ValueType(DType.F32))
    kept = [Select(test, Lane(value, lane), zero) for lane, test in enumerate(tests)]
    return Gather(tuple(kept), value.type) if lanes > 1 else Select(tests[0], value, zero)
