"""Fields that differ from one output position to the next: extremes over all of them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from graphs import Builder

from convdsl.analysis.receptive_field import AxisField, receptive_fields
from convdsl.ir.graph import Value
from convdsl.tensor import Dim, symbol

HALF = Fraction(1, 2)


def field(b: Builder, value: Value, axis: int = 0) -> AxisField | None:
    b.output(y=value)
    return receptive_fields(b.graph)[value]["x"][axis]


def line(extent: Dim = 16) -> tuple[Builder, Value]:
    b = Builder()
    return b, b.input("x", 1, 4, extent)


@pytest.mark.parametrize("extent", [16, symbol("L")], ids=["known", "symbolic"])
@pytest.mark.parametrize(
    ("attributes", "size", "smallest", "padding"),
    [
        ({"kernel": 2, "stride": 2}, 1, 1, 0),
        ({"kernel": 3, "stride": 2}, 2, 1, 1),
        ({"kernel": 4, "stride": 2, "pad": 1}, 2, 2, 1),
        ({"kernel": 5, "stride": 2}, 3, 2, 2),
        ({"kernel": 1, "stride": 2, "output_pad": 1}, 1, 0, 0),  # every other sees the bias alone
        ({"kernel": 3, "stride": 2, "dilation": 2}, 3, 0, 2),
    ],
)
def test_transposed_convolutions(extent: Dim, attributes, size, smallest, padding) -> None:
    b, x = line(extent)
    y = b("conv_transpose", x, channels=4, **attributes)
    assert field(b, y) == AxisField(size, smallest, HALF, padding, True)


@pytest.mark.parametrize("extent", [16, symbol("L")], ids=["known", "symbolic"])
@pytest.mark.parametrize(
    ("attributes", "size", "smallest"),
    [
        ({"mode": "nearest"}, 1, 1),
        ({"mode": "linear", "coordinates": "half_pixel"}, 2, 2),
        ({"mode": "linear", "coordinates": "asymmetric"}, 2, 1),  # even positions hit the input
    ],
)
def test_resizing(extent: Dim, attributes, size, smallest) -> None:
    b, x = line(extent)
    found = field(b, b("resize", x, scale=(2.0,), **attributes))
    assert found is not None
    assert (found.size, found.smallest, found.stride) == (size, smallest, HALF)


def test_a_filter_on_an_enlarged_map_sees_fewer_of_the_input() -> None:
    b, x = line()
    up = b("resize", x, scale=(2.0,))
    assert field(b, b("conv", up, channels=4, kernel=3)) == AxisField(2, 2, HALF, 1, True)
    b, x = line()
    up = b("conv_transpose", x, channels=4, kernel=2, stride=2)
    y = b("conv", up, channels=4, kernel=5)
    assert field(b, y) == AxisField(3, 3, HALF, 1, True)


def test_down_and_up_again_beside_a_skip() -> None:
    """The U of a U-Net: positions 2i and 2i + 1 share what comes from below."""
    b, x = line()
    skip = b("conv", x, channels=4, kernel=3)
    below = b("conv", b("max_pool", skip, kernel=2), channels=4, kernel=3)
    up = b("conv_transpose", below, channels=4, kernel=2, stride=2)
    assert field(b, up) == AxisField(8, 8, Fraction(1), 3, True)
    assert field(b, b("concat", skip, up)) == AxisField(8, 8, Fraction(1), 3, False)


def test_shuffles_of_pixels() -> None:
    b = Builder()
    x = b.input("x", 1, 4, 8, 8)
    h = b("conv", x, channels=4, kernel=3)
    assert field(b, b("pixel_shuffle", h, factor=2)) == AxisField(3, 3, HALF, 1, True)
    down = b("pixel_unshuffle", x, factor=2)
    assert field(b, down) == AxisField(2, 2, Fraction(2), 0, True)


def test_adaptive_windows() -> None:
    b, x = line(12)
    uneven = b("adaptive_avg_pool", x, size=5)  # 0-3, 2-5, 4-8, 7-10, 9-12
    assert field(b, uneven) == AxisField(4, 3, Fraction(12, 5), 0, True)
    b, x = line(12)
    assert field(b, b("adaptive_max_pool", x, size=4)) == AxisField(3, 3, Fraction(3), 0, True)


def test_transposing_space_swaps_the_axes() -> None:
    b = Builder()
    x = b.input("x", 1, 4, 20, 20)
    h = b("conv", x, channels=4, kernel=(3, 7), stride=(2, 1))
    y = b("relu", b("transpose", h, axes=(0, 1, 3, 2)))
    z = b("max_pool", y, kernel=(3, 2), stride=1)
    b.output(z=z)
    height, width = receptive_fields(b.graph)[z]["x"]
    assert height == AxisField(5, 5, Fraction(2), 1, True)  # along the axis that was first
    assert width == AxisField(9, 9, Fraction(1), 3, True)


def test_channels_after_flattening_mix() -> None:
    b, x = line(6)
    flat = b("flatten", b("conv", x, channels=4, kernel=3))
    assert field(b, flat) == AxisField(3, 3, None, 1, True)
    assert field(b, b("softmax", flat)) == AxisField(8, 8, None, 1, True)


def test_normalisation_over_space_sees_all_of_it() -> None:
    b, x = line(6)
    h = b("conv", x, channels=4, kernel=3)
    normal = field(b, b("instance_norm", h))
    assert normal is not None
    assert (normal.size, normal.smallest) == (8, 8)


def test_what_is_joined_along_space_sees_what_it_saw() -> None:
    b, x = line(6)
    y = b("concat", x, b("conv", x, channels=4, kernel=3), axis=2)
    assert field(b, y) == field(b, b("relu", y)) == AxisField(3, 1, None, 0, False)


def test_what_is_joined_along_one_axis_goes_on_along_the_other() -> None:
    b = Builder()
    x = b.input("x", 1, 1, 8, 8)
    parts = [b("conv", x, channels=2, kernel=3, stride=2) for _ in range(2)]
    y = b("concat", *parts, axis=3)
    b.output(y=y)
    height, width = receptive_fields(b.graph)[y]["x"]
    assert height == AxisField(3, 3, Fraction(2), 1, True)
    assert width == AxisField(3, 3, None, 1, False)
    other = b("conv", x, channels=2, kernel=3, stride=2, pad=((2, 0), (1, 1)))
    z = b("concat", parts[0], other, axis=3)
    b.output(z=z)
    height, _ = receptive_fields(b.graph)[z]["x"]
    assert height is not None
    assert not height.aligned
