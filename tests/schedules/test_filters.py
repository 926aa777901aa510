"""Packed filters: NumPy's packing and the stages that do the same in a call, element by element."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import TensorExpr, TensorVar
from convdsl.kernel.layout import Layout
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.task import Pack
from convdsl.tensor import DType, TensorType


@st.composite
def packs(draw: st.DrawFn) -> tuple[FilterPack, tuple[int, ...]]:
    """(pack, shape of the array): any order of the axes, some of them joined."""
    outer = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    taps = draw(st.lists(st.integers(1, 3), max_size=2))
    shape = (draw(st.integers(1, 20)), draw(st.integers(1, 9)), *taps)
    lanes, c_block = draw(st.sampled_from([2, 4])), draw(st.sampled_from([1, 4, shape[1]]))
    tile = draw(st.integers(1, min(4, -(-shape[0] // lanes))))
    extents = (*outer, *shape)
    long = [position for position, extent in enumerate(extents) if extent > 1]
    order = draw(st.permutations(long))
    lies = [extents[position] for position in order] or [1]
    if len(lies) > 1 and draw(st.booleans()):  # two neighbours in one
        at = draw(st.integers(0, len(lies) - 2))
        lies[at : at + 2] = [lies[at] * lies[at + 1]]
    in_order = order == long and draw(st.booleans())
    pack = FilterPack(shape, lanes, tile, c_block, outer, () if in_order else tuple(order))
    return pack, tuple(lies)


def by_stages(pack: Pack, array: np.ndarray) -> np.ndarray:
    """The packed buffer, NaN where no stage writes."""
    out = np.full(pack.size, np.nan)
    x = TensorVar("x0", TensorType(DType.F64, array.shape))
    for start, stage in pack.stages(x):
        part = evaluate(TensorExpr((x,), (stage,), (stage.target.name,)), {"x0": array})
        (made,) = part.values()
        assert np.isnan(out[start : start + made.size]).all(), "written twice"
        out[start : start + made.size] = made.ravel()
    return out


@pytest.mark.dear(share=4)
@given(drawn=packs())
def test_both_ways_agree(drawn: tuple[FilterPack, tuple[int, ...]]) -> None:
    pack, shape = drawn
    array = np.arange(1.0, prod(shape) + 1).reshape(shape)
    once = np.full(pack.size, np.nan)
    pack.pack(array, once)
    made = by_stages(pack, array)
    real = once > 0  # filling may be anything
    np.testing.assert_array_equal(made[real], once[real])
    assert not np.isnan(made).any()


@pytest.mark.dear(share=4)
@given(drawn=packs())
def test_every_filter_is_where_its_tile_reads_it(
    drawn: tuple[FilterPack, tuple[int, ...]],
) -> None:
    pack, shape = drawn
    array = np.arange(1.0, prod(shape) + 1).reshape(shape)
    once = np.full(pack.size, np.nan)
    pack.pack(array, once)
    extents = (*pack.outer, *pack.shape)
    if pack.order:
        view = array.reshape([extents[position] for position in pack.order])
        absent = [p for p in range(len(extents)) if p not in pack.order]
        moved = view.reshape([1] * len(absent) + list(view.shape))
        logical = np.moveaxis(moved, range(len(extents)), (*absent, *pack.order))
    else:
        logical = array.reshape(extents)
    taps = list(product(*map(range, pack.shape[2:])))
    for index in np.ndindex(*extents):
        outer, (k, c, *at) = index[: len(pack.outer)], index[len(pack.outer) :]
        block, lane = divmod(k, pack.lanes)
        first = min(block // pack.tile * pack.tile, pack.whole)
        first = pack.whole if block >= pack.whole else first
        blocks = pack.tile if block < pack.whole else pack.blocks - pack.whole
        panel, within = divmod(c, pack.c_block)
        row = (panel * pack.taps + taps.index(tuple(at))) * pack.c_block + within
        start = pack.start(outer, first, blocks)
        assert isinstance(start, int)
        where = start + (row * blocks + block - first) * pack.lanes + lane
        assert once[where] == logical[index]


@pytest.mark.dear(share=4)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    block=st.sampled_from([1, 2, 4]),
    data=st.data(),
)
def test_layouts_too(shape: list[int], block: int, data: st.DataObject) -> None:
    axis = data.draw(st.one_of(st.none(), st.integers(0, len(shape) - 1)))
    layout = Layout(tuple(shape), axis, block if axis is not None else 1)
    array = np.arange(1.0, prod(shape) + 1).reshape(shape)
    once = np.full(layout.size, np.nan)
    layout.pack(array, once)
    np.testing.assert_array_equal(by_stages(layout, array), once)


@pytest.mark.dear(share=4)
@given(drawn=packs(), data=st.data())
def test_a_part_is_packed_as_if_it_were_all(
    drawn: tuple[FilterPack, tuple[int, ...]], data: st.DataObject
) -> None:
    pack, shape = drawn
    starts = [data.draw(st.integers(0, 2)) for _ in shape]
    steps = [data.draw(st.integers(1, 3)) for _ in shape]
    whole = [a + (count - 1) * b + 1 for a, b, count in zip(starts, steps, shape, strict=True)]
    array = np.arange(1.0, prod(whole) + 1).reshape(whole)
    along = zip(starts, steps, shape, strict=True)
    places = tuple(slice(a, a + count * step, step) for a, step, count in along)
    flat = tuple(n for three in zip(starts, steps, shape, strict=True) for n in three)
    part = replace(pack, part=flat)
    expected, once = np.zeros(pack.size), np.zeros(pack.size)
    pack.pack(array[places], expected)
    part.pack(array, once)
    np.testing.assert_array_equal(once, expected)
    real = expected > 0
    np.testing.assert_array_equal(by_stages(part, array)[real], expected[real])
