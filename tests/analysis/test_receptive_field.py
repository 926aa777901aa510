"""Receptive fields: windows, branches, regroupings, several inputs; checked by perturbation."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from graphs import Builder, evaluate_graph, random_arrays

from convdsl.analysis.access import Access, Span, Taps, places, read_access, window_access
from convdsl.analysis.receptive_field import AxisField, receptive_fields
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.tensor import Dim, Window, symbol


def field(graph: Graph, value: Value, name: str = "x") -> tuple[AxisField | None, ...]:
    return receptive_fields(graph)[value][name]


def figures(graph: Graph, value: Value, name: str = "x") -> list[tuple]:
    """(size, smallest, stride, padding, aligned) per axis."""
    found = []
    for axis in field(graph, value, name):
        assert axis is not None
        found.append((axis.size, axis.smallest, axis.stride, axis.padding, axis.aligned))
    return found


def test_axes_are_independent() -> None:
    b = Builder()
    x = b.input("x", 1, 2, 20, 30)
    h = b("conv", x, channels=2, kernel=(3, 5), stride=(2, 1), pad=((1, 0), (0, 3)))
    y = b("max_pool", h, kernel=(2, 3), stride=(1, 2))
    assert figures(b.output(y=y), y) == [(5, 5, 2, 1, True), (7, 7, 2, 0, True)]


def test_one_and_three_dimensions() -> None:
    b = Builder()
    x, v = b.input("x", 1, 2, 20), b.input("v", 1, 2, 8, 9, 10)
    y = b("conv", b("conv", x, channels=2, kernel=3, dilation=2), channels=2, kernel=3)
    w = b("conv", v, channels=2, kernel=(1, 3, 5))
    graph = b.output(y=y, w=w)
    assert figures(graph, y) == [(7, 7, 1, 3, True)]
    assert [f[0] for f in figures(graph, w, "v")] == [1, 3, 5]


def test_branches_that_agree_in_centre_are_aligned() -> None:
    b = Builder()
    x = b.input("x", 1, 2, 20, 20)
    three, one = b("conv", x, channels=2, kernel=3), b("conv", x, channels=2, kernel=1)
    five = b("conv", x, channels=2, kernel=5, pad=((1, 3), (2, 2)))
    y, z = b("add", three, one), b("concat", three, five)
    graph = b.output(y=y, z=z)
    assert figures(graph, y) == [(3, 3, 1, 1, True)] * 2
    assert figures(graph, z) == [(5, 5, 1, 1, False), (5, 5, 1, 2, True)]


def test_several_inputs() -> None:
    b = Builder()
    x, z = b.input("x", 1, 2, 20, 20), b.input("z", 1, 2, 20, 20)
    vector = b.input("vector", 1, 7)
    h = b("conv", x, channels=2, kernel=3)
    y = b("add", h, z)
    b("relu", vector)
    graph = b.output(y=y)
    assert figures(graph, y) == [(3, 3, 1, 1, True)] * 2
    assert figures(graph, y, "z") == [(1, 1, 1, 0, True)] * 2
    assert field(graph, y, "vector") == ()
    assert figures(graph, h, "z") == [(0, 0, None, None, True)] * 2


def test_global_pooling_and_linear_layers_see_it_all() -> None:
    b = Builder()
    x = b.input("x", 1, 2, 20, symbol("W"))
    h = b("conv", x, channels=2, kernel=3, stride=2)
    y = b("linear", b("flatten", b("avg_pool", h, kernel="global")), channels=3)
    graph = b.output(y=y)
    height, width = figures(graph, y)
    assert height == (2 * 9 + 3, 2 * 9 + 3, None, 1, True)
    assert str(width[0]) == "2*floor((W + 1)/2) + 1"


def test_flattened_maps_keep_their_size_and_linear_layers_join_them() -> None:
    b = Builder()
    x = b.input("x", 1, 2, 6, 8)
    flat = b("flatten", b("conv", x, channels=3, kernel=3))
    y = b("linear", flat, channels=4)
    graph = b.output(y=y)
    assert figures(graph, flat) == [(3, 3, None, 1, True)] * 2
    assert figures(graph, y) == [(8, 8, None, 1, True), (10, 10, None, 1, True)]


def test_regrouping_channels_leaves_space_alone() -> None:
    b = Builder()
    x = b.input("x", symbol("N"), 6, symbol("H"), 8)
    h = b("conv", x, channels=6, kernel=3)
    y = b("reshape", h, shape=(-1, 2, 3, symbol("H"), 8))
    graph = b.output(y=y)
    assert figures(graph, y) == [(3, 3, 1, 1, True)] * 2


def test_a_gate_sees_all_and_a_gated_map_all_of_both() -> None:
    b = Builder()
    x = b.input("x", 1, 2, 12, 12)
    h = b("conv", x, channels=2, kernel=3)
    gate = b("avg_pool", h, kernel="global")
    y = b("mul", h, gate)
    graph = b.output(y=y)
    assert figures(graph, y) == [(14, 14, None, 1, False)] * 2
    b = Builder()
    x = b.input("x", 1, 2, symbol("H"), 12)
    y = b("mul", x, b("avg_pool", x, kernel="global"))
    height, width = field(b.output(y=y), y)
    assert height is None  # how far a map reaches beyond its gate depends on the position
    assert width is not None
    assert width.size == 12


def attended(side: int, pool: bool) -> tuple[Graph, Value]:
    """Every position of a map takes from all, laid out as a line and back."""
    b = Builder()
    x = b.input("x", 1, 2, side, side)
    keys = b("max_pool", x, kernel=2) if pool else x
    lines = [b("flatten", value, start=2) for value in (x, keys)]
    scores = b("einsum", *lines, equation="ncp,ncq->npq")
    mixed = b("einsum", scores, lines[1], equation="npq,ncq->ncp")
    y = b("add", x, b("reshape", mixed, shape=(1, 2, side, side)))
    return b.output(y=y), y


def test_attention_sees_the_whole_map() -> None:
    for graph, y in (attended(4, False), attended(4, True)):
        assert figures(graph, y) == [(4, 4, None, 0, False)] * 2
    graph, y = attended(5, True)
    assert figures(graph, y) == [(5, 4, None, 0, False)] * 2  # no key holds the last row and column


def test_space_in_channels_is_seen_together_or_not_known() -> None:
    """Channels that hold 2 x 2 positions see as much together, and one of them a position. A sum
    over channels sees them all; as space again they would need what each sees."""
    b = Builder()
    x = b.input("x", 1, 2, 8, 8)
    deep = b("pixel_unshuffle", x, factor=2)
    summed = b("conv", deep, channels=8, kernel=3)
    apart = b("conv", deep, channels=8, kernel=3, groups=8)
    back = [b("pixel_shuffle", value, factor=2) for value in (summed, apart, deep)]
    graph = b.output(a=back[0], b=back[1], c=back[2])
    assert figures(graph, deep) == [(2, 2, 2, 0, True)] * 2
    assert [found[0] for found in figures(graph, back[0])] == [6, 6]
    assert field(graph, back[1]) == field(graph, back[2]) == (None, None)


def test_paths_that_disagree_give_the_extremes_over_positions() -> None:
    """The gate sees 0 .. 11; the outermost positions of the map see one position beyond."""
    b = Builder()
    x = b.input("x", 1, 1, 12)
    y = b("mul", b("conv", x, channels=1, kernel=3), b("avg_pool", x, kernel="global"))
    (axis,) = field(b.output(y=y), y)
    assert axis == AxisField(13, 12, None, 1, False)


def test_padding_by_copies_counts_as_padding() -> None:
    b = Builder()
    x = b.input("x", 1, 2, 12, 12)
    y = b("conv", x, channels=2, kernel=5, pad_mode="reflect")
    assert figures(b.output(y=y), y) == [(5, 5, 1, 2, True)] * 2


def test_weights_that_are_computed_from_an_input_are_seen_too() -> None:
    b = Builder()
    x, w = b.input("x", 1, 2, 12, 12), b.input("w", 2, 2, 3, 3)
    y = b("conv", x, channels=2, kernel=3, bias=False, states={"weight": b("relu", w)})
    graph = b.output(y=y)
    assert figures(graph, y, "w") == [(3, 3, None, 0, True)] * 2


def positions(taps: Taps) -> Span | list[int]:
    return taps if isinstance(taps, Span) else list(taps)


WINDOWED = [
    ("conv", {"channels": 4, "kernel": (3, 2), "stride": (2, 3), "pad": 1, "dilation": (2, 1)}),
    ("conv", {"channels": 4, "kernel": 3, "pad": ((0, 2), (1, 0)), "groups": 2}),
    ("conv", {"channels": 4, "kernel": 3, "pad": "same", "stride": 2, "flip": True}),
    ("max_pool", {"kernel": 3, "stride": 2, "pad": 1, "dilation": 2}),
    ("max_pool", {"kernel": 2, "ceil_mode": True}),
    ("avg_pool", {"kernel": (2, 3), "pad": 1, "count_include_pad": False}),
    ("avg_pool", {"kernel": "global"}),
]


@pytest.mark.parametrize(("op", "attributes"), WINDOWED)
@pytest.mark.parametrize("size", [9, symbol("H", minimum=9)], ids=["known", "symbolic"])
def test_window_records_say_what_the_expressions_read(op: str, attributes, size: Dim) -> None:
    b = Builder()
    node = b(op, b.input("x", 1, 4, size, 11), **attributes).node
    assert isinstance(node, OpNode)
    window = node.op.window(node.call)
    assert isinstance(window, Window)
    (stage,) = node.call.kernel.stages
    for place in places(stage):
        if place.read.tensor.name == "x":
            for axis in range(2):
                stated = window_access(window, axis)
                read = read_access(place, axis + 2, stage.axes)
                assert read is not None
                assert [*map(positions, read.phases)] == [*map(positions, stated.phases)]
                if read.axis is not None:
                    assert (read.axis, read.advance) == (stated.axis, stated.advance)


def test_accesses_of_indices_that_are_not_affine() -> None:
    b = Builder()
    node = b("flatten", b.input("x", 2, 3, 2, 4)).node
    assert isinstance(node, OpNode)
    (stage,) = node.call.kernel.stages
    (place,) = places(stage)
    rows = read_access(place, 2, stage.axes)
    columns = read_access(place, 3, stage.axes)
    assert rows == Access(1, 0, ((0,),) * 4 + ((1,),) * 4)
    assert columns == Access(1, 0, ((0,), (1,), (2,), (3,)))


def sees(graph: Graph, name: str = "x") -> np.ndarray:
    """By perturbation: [output position, input position] along the last axis."""
    arrays = random_arrays(graph)
    (before,) = evaluate_graph(graph, arrays).values()
    extent = arrays[name].shape[-1]
    moved = []
    for position in range(extent):
        changed = dict(arrays)
        changed[name] = arrays[name].copy()
        changed[name][..., position] += 10.0
        (after,) = evaluate_graph(graph, changed).values()
        moved.append(np.any(after != before, axis=tuple(range(before.ndim - 1))))
    return np.stack(moved, axis=1)


def test_perturbation_agrees_on_every_position_of_a_branched_line() -> None:
    b = Builder()
    x = b.input("x", 1, 2, 31)
    h = b("conv", x, channels=2, kernel=3, stride=2, pad=((2, 0),))
    wide = b("conv", h, channels=2, kernel=3, dilation=3, groups=2)
    y = b("avg_pool", b("concat", h, wide), kernel=3, stride=2, pad=1)
    graph = b.output(y=y)
    (axis,) = field(graph, y)
    assert axis is not None
    assert axis.stride == Fraction(4)
    moved = sees(graph)
    for o, i in itertools.product(range(moved.shape[0]), range(31)):
        lo = 4 * o - axis.padding
        if not lo <= i < lo + axis.size:
            assert not moved[o, i]
        elif i in (lo, lo + axis.size - 1):
            assert moved[o, i]
