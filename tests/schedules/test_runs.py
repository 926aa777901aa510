"""Which positions of a tile a tap reaches, told from the ends of what it meets."""

from __future__ import annotations

import pytest

from convdsl.kernel.expr import Axis
from convdsl.schedules.contraction import Space
from convdsl.schedules.cpu.runs import runs_of


@pytest.mark.parametrize("width", [1, 3, 6, 14])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 5])
def test_each_tap_reaches_what_lies_in_the_input(width: int, stride: int, dilation: int) -> None:
    for taps in (1, 2, 5):
        for extent in (1, 4, 17):
            for pad in (-2, 0, 1, 3, 9):
                outs = max((extent + 2 * pad - (taps - 1) * dilation - 1) // stride + 1, 1)
                space = Space(Axis("p", outs), Axis("r", taps), extent, stride, dilation, pad)
                start = 0
                for run in runs_of(space, width):
                    assert run.start == start
                    for number in range(run.count):
                        first = start + number * run.width
                        for tap in range(taps):
                            at = [
                                (first + j) * stride + tap * dilation - pad
                                for j in range(run.width)
                            ]
                            met = tuple(j for j, x in enumerate(at) if 0 <= x < extent)
                            assert run.reach[tap] == met
                    start += run.count * run.width
                assert start == outs
