"""Layouts: packing, unpacking and offsets tell of the same places."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.kernel.evaluate import evaluate as evaluate_stages
from convdsl.kernel.expr import TensorExpr, TensorVar
from convdsl.kernel.layout import Layout
from convdsl.tensor import DType, TensorType, evaluate, symbol


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=5)))
    if draw(st.booleans()):
        return Layout(shape)
    return Layout(shape, draw(st.integers(0, len(shape) - 1)), draw(st.sampled_from([1, 2, 4, 8])))


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(1, np.prod(shape) + 1).reshape(shape)


def packed(layout: Layout, array: np.ndarray) -> np.ndarray:
    flat = np.full(layout.size, -7)
    layout.pack(array, flat)
    return flat


@pytest.mark.dear(share=4)
@given(layouts())
def test_pack_puts_each_element_at_its_offset(layout: Layout) -> None:
    array = numbered(layout.shape)
    flat = packed(layout, array)
    assert flat.shape == (layout.size,)
    offsets = [layout.offset(index) for index in np.ndindex(*layout.shape)]
    assert len(set(offsets)) == len(offsets)
    assert [flat[offset] for offset in offsets] == array.reshape(-1).tolist()
    filling = np.delete(flat, offsets)
    assert not filling.any()


@pytest.mark.dear(share=4)
@given(layouts(), st.data())
def test_stages_write_what_pack_writes(layout: Layout, data: st.DataObject) -> None:
    """Also where what is one axis of the layout is two or three of the source."""
    shape: list[int] = []
    for extent in layout.shape:
        parts = data.draw(st.sampled_from([p for p in PARTS if prod(p) == extent] or [(extent,)]))
        shape += parts
    source = TensorVar("x0", TensorType(DType.I64, tuple(shape)))
    array = numbered(tuple(shape))
    flat = np.full(layout.size, -7)
    for first, stage in layout.stages(source):
        made = evaluate_stages(TensorExpr((source,), (stage,), ("t0",)), {"x0": array})["t0"]
        flat[first : first + made.size] = made.reshape(-1)
    np.testing.assert_array_equal(flat, packed(layout, array))


PARTS = [(1, 1), (2, 1), (1, 2), (2, 2), (2, 3), (3, 2), (1, 5), (6, 1), (1, 2, 3), (7, 1, 1)]


@pytest.mark.dear(share=4)
@given(layouts())
def test_unpack_undoes_pack(layout: Layout) -> None:
    array = numbered(layout.shape)
    np.testing.assert_array_equal(layout.unpack(packed(layout, array)), array)


@given(layouts())
def test_unpack_ignores_the_filling(layout: Layout) -> None:
    array = numbered(layout.shape)
    flat = packed(layout, array)
    flat[flat == 0] = -1
    np.testing.assert_array_equal(layout.unpack(flat), array)


@pytest.mark.dear(share=4)
@given(layouts(), st.data())
def test_symbolic_offsets_evaluate_to_the_plain_ones(layout: Layout, data: st.DataObject) -> None:
    at = [data.draw(st.integers(0, extent - 1)) for extent in layout.shape]
    names = [f"i{axis}" for axis in range(len(at))]
    symbols = [
        symbol(name, minimum=0, maximum=extent - 1)
        for name, extent in zip(names, layout.shape, strict=True)
    ]
    bound = dict(zip(names, at, strict=True))
    assert evaluate(layout.offset(symbols), bound) == layout.offset(at)


def test_channel_blocks_of_a_picture() -> None:
    layout = Layout((2, 20, 3, 5), 1, 16)
    assert layout.blocks == 2
    assert layout.physical == (2, 2, 3, 5, 16)
    assert layout.size == 2 * 32 * 15
    assert layout.offset((1, 17, 2, 4)) == ((((1 * 2 + 1) * 3 + 2) * 5) + 4) * 16 + 1
    assert str(layout) == "blocked(axis 1 by 16)"
    assert str(Layout((2, 3))) == "plain"


def test_a_part_of_every_position() -> None:
    """Its places are those of the whole, from its first element on; nothing is behind the last."""
    whole, part = Layout((2, 12, 3, 5), 1, 12), Layout((2, 8, 3, 5), 1, 8).inside(12)
    for index in ((0, 0, 0, 0), (0, 7, 2, 4), (1, 3, 1, 1), (1, 7, 2, 4)):
        n, c, *space = index
        assert part.offset(index) == whole.offset((n, c + 4, *space)) - 4
    assert (part.size, part.held, part.gap) == (whole.size - 4, 2 * 3 * 5 * 8, 4)
    assert part.offset((1, 7, 2, 4)) == part.size - 1
