"""Fields written out element by element, against what really moves with every line of the input."""

from __future__ import annotations

import random

import numpy as np
import pytest
from graphs import Array, Builder, evaluate_graph, random_arrays

import convdsl
from convdsl.analysis.fields import Field
from convdsl.analysis.receptive_field import Known, propagate, receptive_fields
from convdsl.analysis.tables import Table
from convdsl.ir.graph import Graph, Value
from convdsl.tensor import symbol


def truth(graph: Graph, axis: int) -> tuple[Array, Array]:
    """First and last position along `axis` of `x` that each element of `y` moves with; weights and
    inputs are positive, so that nothing cancels."""
    arrays = {name: np.abs(a) + 0.1 for name, a in random_arrays(graph).items()}
    before = evaluate_graph(graph, arrays)["y"]
    lo, hi = np.full(before.shape, 2**62), np.full(before.shape, -(2**62))
    for position in range(arrays["x"].shape[axis]):
        x = arrays["x"].copy()
        x[(slice(None),) * axis + (position,)] += 1.0
        after = evaluate_graph(graph, arrays | {"x": x})["y"]
        moved = np.abs(after - before) > 1e-12 * np.abs(before)
        lo = np.where(moved, np.minimum(lo, position), lo)
        hi = np.where(moved, position, hi)
    return lo, hi


def spread(known: Known | None, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The same, as the analysis has it; a path that moves along one axis is laid out."""
    assert known is not None
    if isinstance(known, Table):
        return np.broadcast_to(known.lo, shape), np.broadcast_to(known.hi, shape)
    lo, hi = np.full(shape, 2**62), np.full(shape, -(2**62))
    for index in np.ndindex(shape):
        seen = known.at(dict(enumerate(index)))
        if seen is not None:
            lo[index], hi[index] = seen.lo, seen.hi
    return lo, hi


def check(graph: Graph, axis: int, label: str = "") -> Known | None:
    y = graph.outputs["y"]
    known = propagate(graph)[y].get(("x", axis), Field(()))
    found = spread(known, y.type.shape)  # pyright: ignore[reportArgumentType]
    for mine, real in zip(found, truth(graph, axis), strict=True):
        assert np.array_equal(mine, real), label
    return known


def factors(extent: int) -> list[int]:
    return [n for n in range(2, extent) if extent % n == 0]


def drawn(seed: int) -> Graph:
    """Axes cut in two, joined, exchanged, turned round; sums along one added to what is summed."""
    draw = random.Random(seed)
    b = Builder()
    y = b.input("x", 1, 2, draw.choice([4, 6, 9]), draw.choice([4, 6]))
    for _ in range(draw.randint(3, 8)):
        y = draw.choice([cut, cut, joined, exchanged, summed, turned, sliced, doubled])(b, y, draw)
    return b.output(y=y)


def cut(b: Builder, y: Value, draw: random.Random) -> Value:
    shape = list(map(int, y.type.shape))  # pyright: ignore[reportArgumentType]
    axes = [axis for axis in range(1, len(shape)) if factors(shape[axis])]
    if not axes or len(shape) > 6:
        return y
    axis = draw.choice(axes)
    first = draw.choice(factors(shape[axis]))
    shape[axis : axis + 1] = [first, shape[axis] // first]
    return b("reshape", y, shape=tuple(shape))


def joined(b: Builder, y: Value, draw: random.Random) -> Value:
    shape = list(map(int, y.type.shape))  # pyright: ignore[reportArgumentType]
    if len(shape) < 4:
        return y
    axis = draw.randrange(1, len(shape) - 1)
    shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
    return b("reshape", y, shape=tuple(shape))


def exchanged(b: Builder, y: Value, draw: random.Random) -> Value:
    rest = list(range(1, y.type.rank))
    draw.shuffle(rest)
    return b("transpose", y, axes=(0, *rest))


def summed(b: Builder, y: Value, draw: random.Random) -> Value:
    axis = draw.randrange(1, y.type.rank)
    return b("add", y, b("reduce_mean", y, axes=(axis,), keepdims=True))


def turned(b: Builder, y: Value, draw: random.Random) -> Value:
    axis = draw.randrange(1, y.type.rank)
    return b("add", y, b("roll", y, shift=(draw.choice([-1, 1]),), axes=(axis,)))


def sliced(b: Builder, y: Value, draw: random.Random) -> Value:
    axes = [axis for axis in range(1, y.type.rank) if y.type.shape[axis] != 1]
    if not axes:
        return y
    axis = draw.choice(axes)
    return b(
        "slice", y, axes=(axis,), start=(draw.choice([0, 1]),), step=(draw.choice([1, -1, 2]),)
    )


def doubled(b: Builder, y: Value, draw: random.Random) -> Value:
    if y.type.elements > 400:
        return y
    axis = draw.randrange(2, y.type.rank)  # of channels joined, a field is that of all together
    return b("concat", y, summed(b, y, draw), axis=axis)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("block", range(15))
def test_every_element_sees_what_it_moves_with(block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        graph = drawn(seed)
        for axis in (2, 3):
            check(graph, axis, f"seed {seed}, axis {axis}")


@pytest.mark.dear
def test_most_of_the_drawn_are_written_out() -> None:
    """The check above would say little of tables if paths did all."""
    found = 0
    for seed in range(150):
        graph = drawn(seed)
        seen = propagate(graph)[graph.outputs["y"]]
        found += any(isinstance(field, Table) for field in seen.values())
    assert found > 75


def test_windows_and_what_a_convolution_makes_of_them() -> None:
    """Rows in blocks of two, worked on within them and joined; then three rows at a time, of which
    those beyond the borders are zeros and see nothing."""
    b = Builder()
    x = b.input("x", 1, 3, 8, 1)
    blocks = b("reshape", b("transpose", x, axes=(0, 2, 3, 1)), shape=(1, 4, 2, 3))
    mixed = b("reduce_mean", blocks, axes=(2,), keepdims=True)
    whole = b("reshape", b("add", blocks, mixed), shape=(1, 8, 1, 3))
    rows = b("transpose", whole, axes=(0, 3, 1, 2))
    y = b("conv", rows, channels=2, kernel=(3, 1), pad=((1, 1), (0, 0)))
    graph = b.output(y=y)
    height, _width = receptive_fields(graph)[rows]["x"]
    assert height is not None
    assert (height.size, height.smallest, height.stride, height.padding) == (2, 2, None, 0)
    known = check(graph, 2)
    assert isinstance(known, Table)
    assert known.sizes().ravel().tolist() == [2, 4, 4, 4, 4, 4, 4, 2]
    assert known.at({2: 3}) == known.at({2: 4})


def test_what_is_no_part_of_the_input_sees_nothing_of_it() -> None:
    """A class token before the rows of an image."""
    b = Builder()
    x = b.input("x", 1, 4, 6, 2)
    rows = b("transpose", b("flatten", x, start=2), axes=(0, 2, 1))
    y = b("concat", b.parameter("token", 1, 1, 4), rows, axis=1)
    known = check(b.output(y=y), 2)
    assert isinstance(known, Table)
    assert known.first() is None
    assert known.sizes().ravel().tolist() == [0, *[1] * 12]


def test_open_sizes_are_not_written_out() -> None:
    b = Builder()
    x = b.input("x", 1, 4, symbol("H"), 6)
    y = b("concat", x, b("avg_pool", x, kernel=3, stride=1, pad=1), axis=2)
    assert receptive_fields(b.output(y=y))[y]["x"] == (None, None)


def test_a_choice_whose_arms_read_alike_reads_without_it() -> None:
    """Ranks compare every number with every other, those before and after it otherwise."""
    b = Builder()
    y = b("top_k", b.input("x", 1, 1, 6000), k=3, axis=2)
    graph = b.output(y=y)
    (axis,) = receptive_fields(graph)[y]["x"]
    assert axis is not None
    assert (axis.size, axis.smallest) == (6000, 6000)


def test_windows_of_swin() -> None:
    model = convdsl.load("swin_stage", channels=4, heads=1, height=8, width=8, window=4, depth=1)
    graph = model.graph
    rows = {value.name: value for value in receptive_fields(graph)}
    height, width = receptive_fields(graph)[rows["0.add"]]["x"]
    assert height is not None
    assert (height.size, height.smallest) == (4, 4)
    assert height == width


def test_every_patch_of_vit_and_its_class_token_see_the_whole_image() -> None:
    model = convdsl.load("vit_b_32", resolution=96)
    fields = {value.name: axes for value, axes in receptive_fields(model.graph).items()}
    first = fields["concat"]["image"][0]
    assert first is not None
    assert (first.size, first.smallest) == (32, 0)  # a patch, and the token that is none
    for axis in fields["heads.head"]["image"]:
        assert axis is not None
        assert (axis.size, axis.smallest, axis.padding) == (96, 96, 0)
