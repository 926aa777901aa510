"""Convolutions in machine code of three widths of vectors, against double precision."""

from __future__ import annotations

from typing import Any

import pytest
from drawn_convolutions import check, conv_graph, convolutions
from hypothesis import given, settings

from convdsl.tensor import DType

CPUS = ["native", "x86-64-v3", "x86-64-v2"]
EXAMPLES = 12


@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=EXAMPLES)
@given(drawn=convolutions())
def test_drawn_convolutions(drawn: tuple[Any, Any], cpu: str) -> None:
    check(conv_graph(*drawn), cpu=cpu)


@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=EXAMPLES // 2)
@given(drawn=convolutions())
def test_drawn_convolutions_in_f64(drawn: tuple[Any, Any], cpu: str) -> None:
    check(conv_graph(*drawn, DType.F64), DType.F64, cpu)


@settings(max_examples=EXAMPLES)
@given(drawn=convolutions(("depthwise",)))
def test_drawn_depthwise_convolutions(drawn: tuple[Any, Any]) -> None:
    assert check(conv_graph(*drawn))[-2:] in (["depthwise", "generic"], ["generic", "generic"])
