"""Copies that turn rows into vectors: right, and chosen for filters that are packed in calls."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import drawn_convolutions
import numpy as np
import pytest
from graphs import Builder
from kernels import run_interpreter, run_machine_code

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.builder import Builder as Loops
from convdsl.kernel.caches import Caches
from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import Axis, Read, Stage, TensorExpr, TensorVar
from convdsl.kernel.independence import check_bounds, check_independent
from convdsl.kernel.layout import Layout
from convdsl.kernel.nodes import Load, Parallel, Shuffle, Store, ValueType, walk_statements
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu import transpose
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.task import Operand, Output, Task
from convdsl.tensor import Dim, DType, TensorType

NATIVE = find_target()
AVX512 = find_target("x86-64-v4")
LANES = NATIVE.lanes(DType.F32)
PACKS = [
    ((LANES, LANES), 1, (1,), (3, 3)),
    ((2 * LANES + 3, 2 * LANES), 2, (1,), (1, 1)),  # rows that do not exist
    ((4 * LANES, LANES), 4, (1,), (5,)),
    ((LANES, 2 * LANES), 1, (3,), (2, 2, 2)),
    ((5, 3 * LANES), 1, (2,), ()),
]


@pytest.mark.parametrize(("channels", "tile", "outer", "taps"), PACKS)
def test_packs_are_turned(
    channels: tuple[int, int], tile: int, outer: tuple[int, ...], taps: tuple[int, ...]
) -> None:
    pack = FilterPack((*channels, *taps), LANES, tile, LANES, outer)
    x = TensorVar("x0", TensorType(DType.F32, (*outer, *channels, *taps)))
    array = np.random.default_rng(0).standard_normal(x.type.sizes).astype(np.float32)
    for _, stage in pack.stages(x):
        layout = Layout(stage.target.type.sizes)
        outputs = (Output(stage.target, layout),)
        task = Task("pack", (stage,), (Operand(x, Layout(x.type.sizes)),), outputs, layout)
        assert transpose.cost(task, NATIVE) is not None
        ((kernel, _),) = transpose.emit(task, "pack", NATIVE).kernels
        verify_kernel(kernel)
        check_independent(kernel)
        check_bounds(kernel)
        expected = evaluate(TensorExpr((x,), (stage,), ("t0",)), {"x0": array})["t0"]
        arrays = {"x0": array.ravel()}
        for run in (run_interpreter, run_machine_code):
            np.testing.assert_array_equal(run(kernel, arrays)["t0"], expected.ravel())


def test_weights_that_change_are_packed_so() -> None:
    b = Builder()
    w = b.parameter("w", 64, 64, 3, 3)
    x = b("relu", b.input("x", 1, 64, 16, 16))
    y = b("conv", x, states={"weight": w}, channels=64, kernel=3, bias=False)
    b.update(w, b("mul", w, w))
    choices = lower(b.output(y=y), cpu_machine(NATIVE).without("winograd"), "t").choices
    assert {c.schedule for c in choices if c.nodes == ("pack for conv1",)} == {"transpose"}


def test_lanes_of_two_vectors() -> None:
    """All lanes of one type; numbers beyond both vectors are refused."""
    type = ValueType(DType.F32, 4)

    def kernel(*lanes: int) -> Loops:
        b = Loops("lanes", DType.F32, 4)
        x, y = b.buffer("x", DType.F32, 8), b.buffer("y", DType.F32, 4, written=True)
        with b.parallel(("i",), (1,)):
            b.store(y, 0, Shuffle(Load(x, 0, type), Load(x, 4, type), lanes))
        return b

    array = np.arange(8, dtype=np.float32)
    for run in (run_interpreter, run_machine_code):
        found = run(kernel(7, 0, 0, 4).kernel(), {"x": array})["y"]
        np.testing.assert_array_equal(found, [7, 0, 0, 4])
    with pytest.raises(KernelError, match="lanes"):
        verify_kernel(kernel(0, 1, 2, 8).kernel())


def moved(
    x: TensorVar, axes: tuple[Axis, ...], index: tuple[Dim, ...], layouts: tuple[Layout, Layout]
) -> Task:
    stage = Stage(
        TensorVar("t0", TensorType(DType.F32, [a.extent for a in axes])), axes, Read(x, index)
    )
    output = Output(stage.target, layouts[1])
    return Task("copy", (stage,), (Operand(x, layouts[0]),), (output,), layouts[1])


COPIES = [
    ((1, 2 * LANES, 5, 7), (0, 1, 2, 3), True),
    ((2, LANES + 3, 4, LANES), (0, 1, 2, 3), True),  # a ragged last block
    ((1, 3, 2, LANES + 1), (0, 1, 2, 3), True),  # fewer channels than a block
    ((2, LANES, 1, 3), (0, 1, 2, 3), True),  # rows shorter than a vector
    ((3, LANES + 5, 2 * LANES + 1), (0, 2, 1), False),
    ((2, 3, 2 * LANES, LANES + 2), (0, 2, 3, 1), False),
    ((LANES, 70 * LANES + 3), (1, 0), False),  # several pieces
]


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(("shape", "order", "blocked"), COPIES)
@pytest.mark.parametrize("back", [False, True])
def test_copies_between_layouts_are_turned(
    shape: tuple[int, ...], order: tuple[int, ...], blocked: bool, back: bool
) -> None:
    x = TensorVar("x0", TensorType(DType.F32, shape))
    axes = tuple(Axis(f"i{place}", shape[place]) for place in order)
    index = tuple(axes[order.index(place)].i for place in range(len(shape)))
    plain, other = Layout(shape), Layout(shape, 1, LANES) if blocked else Layout(shape)
    given = other if back else plain
    written = Layout(tuple(axis.extent for axis in axes))
    if blocked and not back:
        written = other
    task = moved(x, axes, index, (given, written))
    if transpose.cost(task, NATIVE) is None:
        assert not back
        assert shape[-1] * shape[-2] < LANES
        return
    ((kernel, _),) = transpose.emit(task, "copy", NATIVE).kernels
    verify_kernel(kernel)
    check_independent(kernel)
    check_bounds(kernel)
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    flat = np.zeros(given.size, np.float32)
    given.pack(array, flat)
    for run in (run_interpreter, run_machine_code):
        found = written.unpack(run(kernel, {"x0": flat})["t0"])
        np.testing.assert_array_equal(found, array.transpose(order))


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("cpu", ["native", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I64], ids=str)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((33, 50, 2), (1, 0, 2)),  # pairs
        ((2, 33, 21, 4), (0, 2, 1, 3)),
        ((3, 40, 17, 2, 2), (0, 2, 1, 3, 4)),  # squares
        ((2, 19, 3, 20, 2), (0, 2, 3, 1, 4)),
        ((20, 16, 8), (1, 0, 2)),
        ((1, 2, 40, 40, 2), (0, 2, 3, 1, 4)),
        ((5, 3, 2), (1, 0, 2)),  # fewer than fill a vector
        ((9, 40, 3), (1, 0, 2)),  # no part of a vector
    ],
)
def test_what_stays_together_moves_together(
    shape: tuple[int, ...], axes: tuple[int, ...], dtype: DType, cpu: str
) -> None:
    b = Builder()
    graph = b.output(y=b("transpose", b.input("x", *shape, dtype=dtype), axes=axes))
    x = np.arange(prod(shape)).astype(dtype.numpy).reshape(shape)
    for loops in (False, True) if cpu == "native" and prod(shape) < 4000 else (False,):
        found, _ = drawn_convolutions.run(graph, {"x": x}, find_target(cpu), loops=loops)
        np.testing.assert_array_equal(found["y"], x.transpose(axes))


@pytest.mark.parametrize("together", [2, 4])
def test_pairs_are_turned_in_registers(together: int) -> None:
    """A tile is loaded and stored in whole vectors."""
    b = Builder()
    x = b.input("x", 64, 48, together)
    made = lower(b.output(y=b("transpose", x, axes=(1, 0, 2))), cpu_machine(AVX512), "t")
    assert [choice.schedule for choice in made.choices] == ["transpose"]
    (kernel,) = made.program.kernels
    stores = [s for s in walk_statements(kernel.body) if isinstance(s, Store)]
    assert len(stores) == 16 // together
    assert all(store.valid is None and store.value.type.lanes == 16 for store in stores)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("shape", "pieces"),
    [
        ((4, 256, 64), 4),  # rows of y of a page: eight lines of them stay, two tiles fill a line
        ((4, 128, 64), 4),  # of half a page
        ((4, 64, 64), 2),
        ((4, 257, 64), 1),  # of a page and a line
        ((4, 255, 64), 1),
    ],
)
def test_few_rows_that_lie_pages_apart_are_met_at_once(shape: tuple[int, ...], pieces: int) -> None:
    """What one tile writes of a line stays in the cache until the next one writes the rest."""
    target = replace(find_target("x86-64-v3"), caches=Caches(32 << 10, 512 << 10))
    b = Builder()
    graph = b.output(y=b("transpose", b.input("x", *shape), axes=(2, 0, 1)))
    (kernel,) = lower(graph, cpu_machine(target), "t").program.kernels
    loop = next(s for s in kernel.body if isinstance(s, Parallel))
    extents = dict(zip([var.name for var in loop.vars], loop.extents, strict=True))
    assert extents["piece"] == pieces
    x = np.random.default_rng(0).standard_normal(shape).astype("f4")
    found = run_interpreter(kernel, {kernel.buffers[0].name: x.ravel()})
    (y,) = found.values()
    np.testing.assert_array_equal(y, x.transpose(2, 0, 1).ravel())
