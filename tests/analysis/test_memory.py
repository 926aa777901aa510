"""Peak memory by liveness over the graph as written."""

from __future__ import annotations

from graphs import Builder

from convdsl.analysis.memory import peak_activation_bytes
from convdsl.tensor import DType, symbol


def test_a_residual_holds_three_maps() -> None:
    b = Builder()
    x = b("relu", b.input("x", 1, 4, 8, 8))
    h = b("conv", b("conv", x, channels=4, kernel=3), channels=4, kernel=3)
    peak = peak_activation_bytes(b.output(y=b("add", h, x)))
    assert peak.bytes == 3 * 4 * 64 * 4
    assert peak.at is not None
    assert peak.at.name == "conv2"  # its input, its output and the skip; later ones tie


def test_inputs_count_from_the_start_and_outputs_to_the_end() -> None:
    b = Builder()
    x, late = b.input("x", 1, 10), b.input("late", 1, 1000)
    h = b("relu", x)
    early = b("relu6", h)
    b.output(early=early, y=b("concat", b("relu", h), late))
    # at concat: early, relu, late and what they join to
    assert peak_activation_bytes(b.graph).bytes == 4 * (10 + 10 + 1000 + 1010)


def test_dtypes_weigh_and_weights_do_not() -> None:
    b = Builder()
    x = b.input("x", 2, 3, dtype=DType.F64)
    b.output(y=b("mul", x, b("sqrt", b.parameter("p", 1000, 1, 3, dtype=DType.F64))))
    assert peak_activation_bytes(b.graph).bytes == 8 * (6 + 6000)


def test_symbolic_sizes_take_the_provably_largest() -> None:
    n = symbol("N")
    b = Builder()
    x = b.input("x", n, 4, 8, 8)
    h = b("conv", x, channels=8, kernel=3)
    peak = peak_activation_bytes(b.output(y=b("max_pool", h, kernel=2)))
    assert str(peak.bytes) == "3072*N"
    assert peak.at is not None
    assert peak.at.name == "conv1"


def test_symbols_that_leave_it_open_leave_the_place_open() -> None:
    b = Builder()
    n, m = symbol("N"), symbol("M")
    x, z = b.input("x", n, 4), b.input("z", m, 4)
    b.output(a=b("relu", b("relu", x)), b=b("relu", b("relu", z)))
    peak = peak_activation_bytes(b.graph)
    assert str(peak.bytes) == "max(16*N + 32*M, 32*N + 16*M)"
    assert peak.at is None
    bound = peak_activation_bytes(b.graph.bind({"N": 1, "M": 9}))
    assert bound.bytes == 16 * (1 + 2 * 9)


def test_nothing_but_an_input() -> None:
    b = Builder()
    x = b.input("x", 1, 10)
    peak = peak_activation_bytes(b.output(y=x))
    assert (peak.bytes, peak.at) == (40, None)
