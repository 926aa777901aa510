"""Networks whose states change: calls in a row, from one Executable, by every way of running."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import executing, interpreting, run_session
from graphs import Builder, evaluate_results, random_arrays
from random_graphs import random_graph, with_updates

import convdsl
from convdsl import Executable, InputError
from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph, Value
from convdsl.ir.model import Model
from convdsl.ir.verify import verify
from convdsl.kernel.program import Access, Place
from convdsl.lowering.lower import lower
from convdsl.passes import run as run_passes
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType, symbol

Array = np.ndarray[Any, Any]
NUMBERS = (DType.F32, DType.F64, DType.I64)
WAYS = (interpreting, executing)


def counter(dtype: DType = DType.F32) -> Graph:
    """count <- count + 1; y = x + count, and the count as it will be."""
    b = Builder()
    x, count = b.input("x", symbol("N"), 3, dtype=dtype), b.parameter("count", 3, dtype=dtype)
    after = b("add", count, b.constant("one", 1, dtype=dtype), name="after")
    b.update(count, after)
    return b.output(y=b("add", x, count, name="sum"), after=after)


def compiled(graph: Graph, arrays: dict[str, Array], **options: Any) -> Executable:
    verify(graph)
    weights = {key: arrays[key] for key, state in graph.states.items() if state.data is None}
    return convdsl.compile(Model("session", graph), weights, cache=False, **options)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_three_calls_count_to_three(dtype: DType, threads: int) -> None:
    """With batches of two sizes: two specialisations on one state."""
    network = compiled(counter(dtype), {"count": np.zeros(3, dtype.numpy)}, threads=threads)
    for number, batch in enumerate((1, 4, 1)):
        x = np.full((batch, 3), 10, dtype.numpy)
        found = network(x)
        np.testing.assert_array_equal(found["y"], x + number)
        np.testing.assert_array_equal(found["after"], [number + 1] * 3)
    assert len(network._runners) == 2
    assert network.state["count"].tolist() == [3, 3, 3]
    assert network.state["count"].dtype == dtype.numpy


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_by_interpreter_and_machine_code(dtype: DType, way: Any) -> None:
    graph = counter(dtype).bind({"N": 2})
    x = {"x": np.zeros((2, 3), dtype.numpy)}
    session = run_session(graph, {"count": np.zeros(3, dtype.numpy)}, [x] * 3, way)
    assert [outputs["y"][0, 0] for outputs, _ in session] == [0, 1, 2]
    assert [states["count"][0] for _, states in session] == [1, 2, 3]


def test_an_artifact_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    network = compiled(counter(), {"count": np.zeros(3, "f4")})
    x = np.zeros((2, 3), "f4")
    for _ in range(3):
        network(x)
    network.save(tmp_path / "net.cdsl", N=2)
    network(x)
    again, other = (convdsl.load_executable(tmp_path / "net.cdsl") for _ in range(2))
    assert again.state["count"].tolist() == [3, 3, 3]
    assert again(x)["y"].max() == 3
    assert again.state["count"].tolist() == [4, 4, 4]
    assert other.state["count"].tolist() == [3, 3, 3]
    again.save(tmp_path / "later.cdsl", N=2)
    for sizes, said in (({"N": 3}, "no code for N = 3, only for 2"), ({"M": 2}, "called M")):
        with pytest.raises(InputError, match=said):
            again.save(tmp_path / "later.cdsl", **sizes)
    assert convdsl.load_executable(tmp_path / "later.cdsl").state["count"].tolist() == [4, 4, 4]


def test_sizes_of_one_artifact_have_one_state(tmp_path: Path) -> None:
    compiled(counter(), {"count": np.zeros(3, "f4")}).save(tmp_path / "net.cdsl", N=(2, 5))
    network = convdsl.load_executable(tmp_path / "net.cdsl")
    for number, batch in enumerate((2, 5, 5, 2)):
        assert network(np.zeros((batch, 3), "f4"))["y"].max() == number
    network.save(tmp_path / "later.cdsl", N=(5, 2))
    assert convdsl.load_executable(tmp_path / "later.cdsl").state["count"].tolist() == [4, 4, 4]


def test_code_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        network = convdsl.compile(Model("m", counter()), {"count": np.full(3, 5, "f4")})
        assert network(np.zeros((1, 3), "f4"))["y"].tolist() == [[5, 5, 5]]
        assert network.state["count"].tolist() == [6, 6, 6]


# Old values: everybody reads what was there before the call.


class Case:
    """A graph with states a, b, c ... of one shape, and what NumPy says replaces them."""

    def __init__(self, dtype: DType, shape: Sequence[int]) -> None:
        self.b = Builder()
        self.dtype, self.shape = dtype, tuple(shape)
        self.x = self.b.input("x", *shape, dtype=dtype)
        self.states = {k: self.b.parameter(k, *shape, dtype=dtype) for k in "abc"}

    def number(self, value: float) -> Value:
        return self.b.constant(f"number{len(self.b.graph)}", value, dtype=self.dtype)

    def update(self, **values: Value) -> None:
        self.b.graph.updates |= values


def swap(c: Case) -> None:
    c.update(a=c.states["b"], b=c.states["a"])


def rotate(c: Case) -> None:
    c.update(a=c.states["b"], b=c.states["c"], c=c.states["a"])


def shift(c: Case) -> None:
    """A register of the last three inputs."""
    c.update(a=c.x, b=c.states["a"], c=c.states["b"])


def shift_backwards(c: Case) -> None:
    c.update(c=c.states["b"], b=c.states["a"], a=c.x)


def one_for_all(c: Case) -> None:
    value = c.b("add", c.states["a"], c.x)
    c.update(a=value, b=value, c=value)


def both_ways(c: Case) -> None:
    """Each from the old values of both."""
    a, b = c.states["a"], c.states["b"]
    c.update(a=c.b("add", a, b), b=c.b("sub", a, b))


def momentum(c: Case) -> None:
    """m <- m * 3 + x; w <- w - m * 2, of the old m; and c counts."""
    m, w = c.states["a"], c.states["b"]
    c.update(a=c.b("add", c.b("mul", m, c.number(3)), c.x))
    c.update(b=c.b("sub", w, c.b("mul", m, c.number(2))))
    c.update(c=c.b("add", c.states["c"], c.number(1)))


def momentum_of_the_new(c: Case) -> None:
    """w <- w - m * 2, of the new m."""
    m = c.b("add", c.b("mul", c.states["a"], c.number(3)), c.x)
    c.update(a=m, b=c.b("sub", c.states["b"], c.b("mul", m, c.number(2))))


def read_afterwards(c: Case) -> None:
    """The old value is read by what comes later in the order."""
    a = c.states["a"]
    c.update(a=c.b("add", a, c.x))
    c.update(b=c.b("sub", c.b("mul", c.x, c.states["b"]), a))


def from_weights(c: Case) -> None:
    c.update(a=c.b("add", c.states["b"], c.number(1)), c=c.states["b"])


def from_the_text(c: Case) -> None:
    c.update(a=c.b.constant("given", np.arange(np.prod(c.shape)).reshape(c.shape), dtype=c.dtype))


def itself(c: Case) -> None:
    c.update(a=c.states["a"], b=c.b("add", c.states["a"], c.states["b"]))


def put_out(c: Case) -> None:
    """Old and new values leave."""
    a = c.states["a"]
    after = c.b("add", a, c.x)
    c.update(a=after, b=after)
    c.b.output(old=a, new=after)


def turned(c: Case) -> None:
    """Read elsewhere than where it is written."""
    axes = tuple(reversed(range(len(c.shape))))
    a = c.b("transpose", c.states["a"], axes=axes)
    c.update(a=c.b("add", c.b("reshape", a, shape=c.shape), c.x))


CASES = (
    swap, rotate, shift, shift_backwards, one_for_all, both_ways, momentum, momentum_of_the_new,
    read_afterwards, from_weights, from_the_text, itself, put_out, turned,
)  # fmt: skip
SHAPES = ((), (5,), (3, 37), (3, 5, 4, 4), (1, 1, 1, 1))
KINDS = [(DType.F32, s) for s in SHAPES] + [(t, (3, 37)) for t in (DType.F64, DType.I64)]


def expected_session(
    graph: Graph, arrays: dict[str, Array], inputs: Sequence[dict[str, Array]]
) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    """By the oracle: a loop over calls, states replaced between them."""
    held = dict(arrays)
    session: list[tuple[dict[str, Array], dict[str, Array]]] = []
    for given in inputs:
        outputs, updates = evaluate_results(graph, held | given)
        held |= updates
        session.append((outputs, updates))
    return session


def assert_same_sessions(found: Any, expected: Any, tolerance: float = 0) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        for some, others in zip(ours, theirs, strict=True):
            assert some.keys() == others.keys()
            for name, array in others.items():
                span = float(np.max(np.abs(array), initial=1))
                np.testing.assert_allclose(some[name], array, 0, tolerance * span, err_msg=name)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize(("dtype", "shape"), KINDS, ids=str)
def test_everybody_reads_the_old_value(dtype: DType, case: Any, shape: tuple[int, ...]) -> None:
    c = Case(dtype, shape)
    case(c)
    if not c.b.graph.outputs:
        c.b.output(y=c.b("add", c.states["a"], c.states["b"]))
    graph = run_passes(c.b.graph, verify=True)
    random = np.random.default_rng(0)

    def draw() -> Array:
        return random.integers(-5, 6, shape).astype(dtype.numpy)

    arrays = {key: draw() for key in "abc"}
    inputs = [{"x": draw()} for _ in range(3)]
    expected = expected_session(c.b.graph, arrays, inputs)
    for way in WAYS:
        assert_same_sessions(run_session(graph, arrays, inputs, way), expected)
    network = compiled(c.b.graph, arrays)
    for given, (outputs, updates) in zip(inputs, expected, strict=True):
        results = network(given["x"])
        results = results if isinstance(results, dict) else {"y": results}
        assert_same_sessions([(results, network.state.copy())], [(outputs, updates)])


def descent(dtype: DType) -> Graph:
    """Least squares by gradient descent with momentum, written out: y = x w,

    g = x^T (y - t)      m <- m / 2 + g      w <- w - m / 32     (of the new m)
    """
    b = Builder()
    x, t = b.input("x", symbol("N"), 5, dtype=dtype), b.input("t", symbol("N"), 3, dtype=dtype)
    w, m = b.parameter("w", 5, 3, dtype=dtype), b.parameter("m", 5, 3, dtype=dtype)
    y = b("matmul", x, w)
    gradient = b("matmul", b("transpose", x, axes=(1, 0)), b("sub", y, t))
    half, rate = (b.constant(f"c{n}", 2.0**-n, dtype=dtype) for n in (1, 5))
    after = b("add", b("mul", m, half), gradient, name="momentum")
    b.update(m, after)
    b.update(w, b("sub", w, b("mul", after, rate), name="step"))
    return b.output(y=y)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("dtype", NUMBERS[:2], ids=str)
def test_descent_finds_the_weights(dtype: DType) -> None:
    """Batches of two sizes in turn; as NumPy does it, and to the solution in the end."""
    random = np.random.default_rng(0)
    truth = random.standard_normal((5, 3))
    zeros = {name: np.zeros((5, 3), dtype.numpy) for name in "wm"}
    network = compiled(descent(dtype), zeros, threads=2)
    w, m = np.zeros((5, 3)), np.zeros((5, 3))
    tolerance = 1e-4 if dtype is DType.F32 else 1e-11
    for number in range(200):
        x = random.standard_normal((4 + number % 2 * 3, 5))
        t = x @ truth
        y = network(x.astype(dtype.numpy), t.astype(dtype.numpy))
        if number < 20:
            np.testing.assert_allclose(y, x @ w, rtol=0, atol=20 * tolerance)
            m = m / 2 + x.T @ (x @ w - t)
            w = w - m / 32
            np.testing.assert_allclose(network.state["w"], w, rtol=0, atol=tolerance)
            np.testing.assert_allclose(network.state["m"], m, rtol=0, atol=20 * tolerance)
    np.testing.assert_allclose(network.state["w"], truth, rtol=0, atol=10 * tolerance)


def test_descent_copies_nothing() -> None:
    """Both states are replaced where they lie, when everybody has read them."""
    graph = run_passes(descent(DType.F32).bind({"N": 4}))
    program = lower(graph, cpu_machine(find_target()), "descent").program
    assert not any("copy" in step.kernel for step in program.steps)
    arguments = [a for step in program.steps for a in step.arguments if a.place is Place.STATE]
    written = [a.slot for a in arguments if a.access is not Access.READ]
    assert sorted(written) == [0, 1]


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_with_updates(seed: int) -> None:
    graph = with_updates(random_graph(seed, batch=1, length=6), seed)
    verify(graph)
    arrays = {k: a.astype("f4") for k, a in random_arrays(graph, seed).items()}
    inputs = [{"x": random_arrays(graph, seed + n)["x"].astype("f4")} for n in range(3)]
    expected = expected_session(graph, arrays, inputs)
    found = run_session(run_passes(graph, verify=True), arrays, inputs, executing)
    assert_same_sessions(found, expected, 2e-4)


# What users do with state


def test_states_are_read_and_set() -> None:
    network = compiled(counter(), {"count": np.zeros(3, "f4")})
    assert list(network.state) == ["count"]
    assert len(network.state) == 1
    read = network.state["count"]
    read += 100  # a copy: the caller's own
    network.state["count"] = given = np.array([1, 2, 3], "f4")
    given += 100
    assert network(np.zeros((1, 3), "f4"))["y"].tolist() == [[1, 2, 3]]
    assert {key: array.tolist() for key, array in network.state.copy().items()} == {
        "count": [2, 3, 4]
    }
    with pytest.raises(KeyError):
        network.state["one"]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("one", np.zeros(()), "no state `one` changes with the calls; those are: count"),
        ("count", np.zeros(4, "f4"), r"state `count` is f32\[3\], not float32\[4\]"),
        ("count", np.zeros(3), r"state `count` is f32\[3\], not float64\[3\]"),
    ],
)
def test_what_does_not_fit_changes_nothing(name: str, array: Array, message: str) -> None:
    network = compiled(counter(), {"count": np.zeros(3, "f4")})
    with pytest.raises(InputError, match=message):
        network.state.replace({"count": np.ones(3, "f4"), name: array})
    assert network.state["count"].tolist() == [0, 0, 0]


def test_a_network_without_updates_has_no_state() -> None:
    b = Builder()
    graph = b.output(y=b("add", b.input("x", 3), b.parameter("p", 3)))
    network = compiled(graph, {"p": np.ones(3, "f4")})
    assert dict(network.state) == {}


def test_the_weights_given_stay_as_they_are() -> None:
    count = np.zeros(3, "f4")
    network = compiled(counter(), {"count": count})
    network(np.zeros((1, 3), "f4"))
    assert count.tolist() == [0, 0, 0]


def test_calls_from_many_threads_are_counted_one_by_one() -> None:
    network = compiled(counter(), {"count": np.zeros(3, "f4")}, threads=2)

    def work(batch: int) -> list[float]:
        x = np.zeros((batch, 3), "f4")
        return [float(network(x)["after"][0]) for _ in range(100)]

    with ThreadPoolExecutor(4) as pool:
        seen = [number for numbers in pool.map(work, (1, 2, 1, 3)) for number in numbers]
    assert sorted(seen) == list(range(1, 401))
    assert network.state["count"].tolist() == [400, 400, 400]


def test_a_child_has_a_state_of_its_own() -> None:
    """Forked while another thread is calling: a whole number of calls has been made."""
    network = compiled(counter(), {"count": np.zeros(3, "f4")})
    x = np.zeros((1, 3), "f4")
    network(x)
    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(lambda: [network(x) for _ in range(300)])
        child = os.fork()
        if child == 0:
            first = network.state["count"]
            network(x)
            counts = [*first.tolist(), *network.state["count"].tolist()]
            os._exit(0 if counts == [first[0]] * 3 + [first[0] + 1] * 3 else 1)
        calls.result()
    assert os.waitpid(child, 0)[1] == 0
    assert network.state["count"].tolist() == [301, 301, 301]
