"""Convolutions for the tests of schedules: drawn, run, and compared with double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from executors import interpreted, machine_code
from graphs import Builder, evaluate_graph, random_arrays
from hypothesis import assume
from hypothesis import strategies as st
from layer_steps import EPSILON

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.target import Target
from convdsl.lowering.lower import lower
from convdsl.runtime.cpu.code import aligned
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Window:
    """Of steps of one, with any borders."""

    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    pad: tuple[tuple[int, int], ...]

    @property
    def reach(self) -> list[int]:
        """Along each axis, from the first element that it reads to the last."""
        return [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]

    @property
    def attributes(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "dilation": self.dilation, "pad": self.pad}


@st.composite
def windows(
    draw: st.DrawFn, kernels: Sequence[tuple[int, ...]], dilations: Sequence[int] = (1, 1, 1, 2, 3)
) -> Window:
    """One of the filters, what lies between its taps, and borders of up to their number."""
    kernel = draw(st.sampled_from(kernels))
    dilation = tuple(draw(st.sampled_from(dilations)) for _ in kernel)
    pad = tuple((draw(st.integers(0, k)), draw(st.integers(0, k))) for k in kernel)
    return Window(kernel, dilation, pad)


def in_f32(graph: Graph) -> dict[str, Array]:
    """What goes into a graph, drawn."""
    return {name: a.astype(np.float32) for name, a in random_arrays(graph, seed=5).items()}


@st.composite
def convolutions(
    draw: st.DrawFn, kinds: tuple[str, ...] = ("one", "one", "depthwise", "whole", "ragged")
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """(input shape, attributes): 1 to 3 axes, ragged channels, windows that hang over borders."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    kind = draw(st.sampled_from(kinds))
    count = {
        "one": st.just(1),
        "depthwise": st.integers(2, 40),
        "whole": st.sampled_from([2, 3]),
        "ragged": st.integers(2, 5),
    }[kind]
    groups_count = draw(count)
    per_group_in = 1 if kind == "depthwise" else draw(st.integers(1, 20))
    per_group_out = {
        "one": st.integers(1, 70),
        "depthwise": st.just(1),
        "whole": st.sampled_from([16, 32]),
        "ragged": st.integers(1, 9),
    }[kind]
    kernel = tuple(draw(st.integers(1, 7 if axis == rank - 1 else 3)) for axis in range(rank))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    dilation = tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(rank))
    pad = draw(
        st.one_of(
            st.sampled_from(["same", "valid"]),
            st.tuples(*[st.tuples(st.integers(0, k), st.integers(0, k)) for k in kernel]),
        )
    )
    space = [draw(st.integers(1, 40 if axis == rank - 1 else 6)) for axis in range(rank)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    borders = ((0, 0),) * rank if pad == "valid" else pad
    if pad != "same":
        assume(all(e + a + b >= r for e, (a, b), r in zip(space, borders, reach, strict=True)))
    attributes = {
        "channels": groups_count * draw(per_group_out),
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "pad": pad,
        "groups": groups_count,
        "bias": draw(st.booleans()),
        "flip": draw(st.sampled_from([False, False, False, True])),
    }
    batch = draw(st.sampled_from([1, 1, 2, 3]))
    return (batch, groups_count * per_group_in, *space), attributes


def conv_graph(
    shape: tuple[int, ...], attributes: Mapping[str, Any], dtype: DType = DType.F32
) -> Graph:
    b = Builder()
    return b.output(y=b("conv", b.input("x", *shape, dtype=dtype), **attributes))


def check(
    graph: Graph,
    dtype: DType = DType.F32,
    cpu: str = "native",
    *,
    loops: bool = False,
    without: tuple[str, ...] = (),
) -> list[str]:
    """Run a graph by machine code (or the loop interpreter), compare with the oracle in double
    precision, and give the schedules it ran by: the cheapest, but for some."""
    target = find_target(cpu)
    arrays = {name: a.astype(dtype.numpy) for name, a in random_arrays(graph, seed=5).items()}
    doubles = {name: a.astype(np.float64) for name, a in arrays.items()}
    expected = evaluate_graph(graph, doubles)
    found, schedules = run(graph, arrays, target, loops=loops, without=without)
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == np.dtype(dtype.numpy)
        span = float(np.max(np.abs(expected[name]), initial=1.0))
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=256 * EPSILON[dtype] * span)
    return schedules


def run(
    graph: Graph,
    arrays: Mapping[str, Array],
    target: Target,
    *,
    loops: bool = False,
    without: tuple[str, ...] = (),
) -> tuple[dict[str, Array], list[str]]:
    """(outputs by name, schedules in order)."""
    lowered = lower(graph, cpu_machine(target).without(*without), "test")
    weights = aligned(lowered.program.weight_bytes)
    weights[:] = 0xFF
    lowered.pack_weights(arrays, weights)
    inputs = [np.ascontiguousarray(arrays[port.name]) for port in lowered.program.inputs]
    runner = interpreted if loops else partial(machine_code, target=target)
    outputs = runner(lowered, weights, inputs)
    named = {p.name: a for p, a in zip(lowered.program.outputs, outputs, strict=True)}
    return named, [choice.schedule for choice in lowered.choices]
