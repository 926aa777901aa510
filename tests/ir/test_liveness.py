"""Live ranges over an execution order."""

from __future__ import annotations

import pytest

from convdsl.ir.liveness import LiveRange, live_ranges, occupancy
from convdsl.tensor import symbol


def test_a_chain_hands_its_values_on() -> None:
    steps = [(["x"], ["a"]), (["a"], ["b"]), (["b"], ["y"])]
    ranges = live_ranges(steps, before=["x"], after=["y"])
    assert ranges == {
        "x": LiveRange(0, 0),
        "a": LiveRange(0, 1),
        "b": LiveRange(1, 2),
        "y": LiveRange(2, 2),
    }
    assert ranges["x"].overlaps(ranges["a"])
    assert not ranges["x"].overlaps(ranges["b"])


def test_a_skip_stays_alive_and_an_output_to_the_end() -> None:
    steps = [(["x"], ["a"]), (["a"], ["b"]), (["b"], ["c"]), (["a", "c"], ["y"])]
    ranges = live_ranges(steps, before=["x", "late"], after=["b", "y"])
    assert ranges["a"] == LiveRange(0, 3)
    assert ranges["b"] == LiveRange(1, 3)
    assert ranges["late"] == LiveRange(0, 0)  # given and never read
    sizes = {"x": 1, "late": 5, "a": 10, "b": 100, "c": 1000, "y": 10000}
    assert occupancy(ranges, sizes, 4) == [16, 110, 1110, 11110]


def test_what_nothing_reads_lives_where_it_is_written() -> None:
    assert live_ranges([([], ["a"]), ([], ["b"])]) == {"a": LiveRange(0, 0), "b": LiveRange(1, 1)}


def test_sizes_may_be_symbolic() -> None:
    n = symbol("N")
    ranges = live_ranges([(["x"], ["y"])], before=["x"], after=["y"])
    assert [str(total) for total in occupancy(ranges, {"x": 3 * n, "y": 2 * n}, 1)] == ["5*N"]


def test_reading_the_unwritten_is_an_error() -> None:
    with pytest.raises(ValueError, match="step 0 reads 'a'"):
        live_ranges([(["a"], ["b"])])
    with pytest.raises(ValueError, match="'z' is wanted"):
        live_ranges([([], ["b"])], after=["z"])
