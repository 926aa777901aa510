"""Data movement over maps of few positions, channels around the width of a vector: what lies side
by side by chance is not read past its end."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeAlias

import pytest
from drawn_convolutions import check
from graphs import Builder
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.ir.graph import Value

Move: TypeAlias = Callable[[st.DrawFn, Builder, Value], Value]
CHANNELS = st.one_of(st.integers(1, 9), st.integers(14, 18), st.integers(30, 35))
LARGEST = 4096  # elements that a chain may grow to


def slice_(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    axis = draw(st.integers(0, h.type.rank - 1))
    extent = h.type.sizes[axis]
    start = draw(st.integers(0, extent - 1))
    stop, step = draw(st.integers(start + 1, extent)), draw(st.integers(1, 3))
    if draw(st.booleans()):
        return b("slice", h, axes=(axis,), start=(start,), stop=(stop,), step=(step,))
    after = start - 1 - extent if start == 0 else start - 1  # -extent - 1: before the first
    return b("slice", h, axes=(axis,), start=(stop - 1,), stop=(after,), step=(-step,))


def split_and_join(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    axis = draw(st.integers(1, h.type.rank - 1))
    extent = h.type.sizes[axis]
    parts = draw(st.sampled_from([n for n in range(1, extent + 1) if extent % n == 0]))
    size = extent // parts
    cut = [
        b("slice", h, axes=(axis,), start=(k * size,), stop=((k + 1) * size,)) for k in range(parts)
    ]
    return b("concat", *draw(st.permutations(cut)), axis=axis)


def concat(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    axis = draw(st.integers(1, h.type.rank - 1))
    return b("concat", b("relu", h), h, b("neg", h), axis=axis)


def pad(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    axis = draw(st.integers(0, h.type.rank - 1))
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 17))
    value = draw(st.sampled_from([0.0, 1.5]))
    return b("pad", h, pad=((before, after),), axes=(axis,), value=value)


def fold(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    axis = draw(st.integers(0, h.type.rank - 1))
    mode = draw(st.sampled_from(["reflect", "replicate", "circular"]))
    most = h.type.sizes[axis] - (mode == "reflect")
    pair = (draw(st.integers(0, min(most, 3))), draw(st.integers(0, min(most, 3))))
    return b("pad", h, pad=(pair,), axes=(axis,), mode=mode)


def transpose(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    return b("transpose", h, axes=tuple(draw(st.permutations(range(h.type.rank)))))


def reshape(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    total = prod(h.type.sizes)
    first = draw(st.sampled_from([n for n in range(1, total + 1) if total % n == 0]))
    rest = total // first
    second = draw(st.sampled_from([n for n in range(1, rest + 1) if rest % n == 0]))
    shape = draw(st.permutations([first, second, rest // second, 1]))
    return b("reshape", h, shape=tuple(shape))


def shuffle(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    extent = h.type.sizes[1]
    groups = draw(st.sampled_from([n for n in range(1, extent + 1) if extent % n == 0]))
    return b("channel_shuffle", h, groups=groups)


def tile(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    return b("tile", h, repeats=tuple(draw(st.integers(1, 3)) for _ in range(h.type.rank)))


def expand(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    shape = tuple(draw(st.integers(1, 18)) if e == 1 else e for e in h.type.sizes)
    return b("expand", h, shape=shape)


def mean(draw: st.DrawFn, b: Builder, h: Value) -> Value:
    """Not a movement: what leaves a kernel over one position."""
    return b("reduce_mean", h, axes=(h.type.rank - 1,))


MOVES: dict[str, Move] = {
    move.__name__: move
    for move in (
        *(slice_, split_and_join, concat, pad, fold, transpose),
        *(reshape, shuffle, tile, expand, mean),
    )
}


@pytest.mark.dear
@pytest.mark.parametrize(
    "cpu",
    ["native", *(pytest.param(f"x86-64-v{n}", marks=pytest.mark.drawn) for n in (2, 3, 4))],
)
@pytest.mark.parametrize("first", MOVES)
@settings(max_examples=4)
@given(data=st.data())
def test_chains_of_movements(first: str, cpu: str, data: st.DataObject) -> None:
    """By machine code where this processor has the instructions, and by the interpreter, which
    sees every access."""
    draw = data.draw
    b = Builder()
    space = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(draw(st.integers(1, 2)))]
    h = b.input("x", draw(st.integers(1, 3)), draw(CHANNELS), *space)
    h = b("relu", h) if draw(st.booleans()) else h
    names = [first, *draw(st.lists(st.sampled_from(sorted(MOVES)), max_size=3))]
    for name in names:
        if prod(h.type.sizes) <= LARGEST:
            h = MOVES[name](draw, b, h)
    graph = b.output(y=b("relu", h), z=h)
    check(graph, cpu=cpu, loops=True)
    if cpu != "x86-64-v4":
        check(graph, cpu=cpu)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("channels", "start", "stop"), [(3, 1, 3), (16, 1, 17), (33, 15, 33)])
def test_slices_of_pooled_channels(batch: int, channels: int, start: int, stop: int) -> None:
    """A vector of lanes that begins within the last block reached past it: KernelError."""
    b = Builder()
    pooled = b("avg_pool", b.input("x", batch, channels, 4, 4), kernel=4)
    b.output(y=b("slice", pooled, axes=(1,), start=(start,), stop=(min(stop, channels),)))
    check(b.graph)
    check(b.graph, loops=True)
