"""What fusion groups; the numbers cannot change, the structure is all."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Builder, rewritten

from convdsl.ir.graph import Graph, OpNode
from convdsl.ir.groups import kernels_of
from convdsl.passes.fuse_elementwise import FuseElementwise


def groups(graph: Graph) -> list[list[str]]:
    found: dict[int, list[str]] = {}
    for node in rewritten(graph, FuseElementwise()).op_nodes():
        if node.group is not None:
            found.setdefault(node.group, []).append(node.name)
    return sorted(found.values())


def test_maps_join_what_precedes_them() -> None:
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    h = b("relu", b("mul", b("conv", x, channels=4, kernel=3), b.parameter("s", 4, 1, 1)))
    h = b("relu6", b("max_pool", h, kernel=2))
    b.output(y=b("relu", b("softmax", b("relu", b("flatten", h)))))
    assert groups(b.graph) == [
        ["conv1", "mul1", "relu1"],
        ["max_pool1", "relu61"],
        ["softmax1", "relu3"],
    ]


def test_a_residual_joins_the_later_of_two_convolutions() -> None:
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    body = b("conv", b("relu", b("conv", x, channels=4, kernel=3)), channels=4, kernel=3)
    skip = b("conv", x, channels=4, kernel=1)
    b.output(y=b("relu", b("add", body, skip)))
    assert groups(b.graph) == [["conv1", "relu1"], ["conv3", "add1", "relu2"]]


def test_a_convolution_is_preferred_to_a_pooling() -> None:
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    conv = b("conv", x, channels=4, kernel=3)
    b.output(y=b("add", conv, b("max_pool", x, kernel=3, stride=1, pad=1)))
    assert groups(b.graph) == [["conv1", "add1"]]


def test_an_identity_skip_is_read_as_it_is() -> None:
    b = Builder()
    x = b("relu", b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=1))
    b.output(y=b("add", b("conv", x, channels=4, kernel=3), x))
    assert groups(b.graph) == [["conv1", "relu1"], ["conv2", "add1"]]


def test_values_that_others_want_are_stored_on_the_way() -> None:
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=1)
    b.output(y=b("relu", h), h=h)
    assert groups(b.graph) == [["conv1", "relu1"]]
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=1)
    b.output(y=b("relu", h), z=b("relu6", h), w=b("max_pool", h, kernel=2))
    assert groups(b.graph) == [["conv1", "relu1", "relu61"]]


def test_branches_rejoin_inside_a_group() -> None:
    """x * sigmoid(x), written out."""
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=1)
    b.output(y=b("mul", h, b("sigmoid", h)))
    assert groups(b.graph) == [["conv1", "sigmoid1", "mul1"]]


def test_a_map_joins_nothing_that_it_must_wait_behind() -> None:
    """The sum reads the first convolution's value and what another kernel made of it."""
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=1)
    deep = b("max_pool", b("max_pool", h, kernel=3, stride=1, pad=1), kernel=3, stride=1, pad=1)
    b.output(y=b("add", h, deep), z=b("relu", h))
    assert groups(b.graph) == [["conv1", "relu1"], ["max_pool2", "add1"]]


def test_groups_that_grow_later_count_as_well() -> None:
    """The second pooling's group waits for the convolution's only since the map in its middle
    joined it: the sum of both must see that."""
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    other = b("max_pool", x, kernel=3, stride=1, pad=1)
    h = b("conv", x, channels=4, kernel=1)
    middle = b("max_pool", h, kernel=3, stride=1, pad=1)
    b.output(t=b("relu", b("sub", other, b("channel_shuffle", middle, groups=2))))
    b.output(y=b("add", h, b("channel_shuffle", other, groups=2)))
    after = rewritten(b.graph, FuseElementwise())
    assert [[node.name for node in kernel] for kernel in kernels_of(after)][-1] == ["add1"]


def test_what_need_not_be_stored_is_preferred() -> None:
    """The later convolution's value is an output as well: joining the earlier saves more."""
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    first, second = (b("conv", x, channels=4, kernel=k) for k in (1, 3))
    b.output(y=b("add", first, second), z=second)
    assert groups(b.graph) == [["conv1", "add1"]]


def test_groups_of_maps_that_a_map_reads_are_one() -> None:
    """What begins apart: m is decayed, g is squared, and a third map adds them."""
    b = Builder()
    m, g = b.input("m", 4, 5), b.input("g", 4, 5)
    later = b("add", b("relu", m), b("mul", g, g))
    b.output(y=b("div", later, b("sqrt", later)), z=b("exp", m))
    assert groups(b.graph) == [["relu1", "mul1", "add1", "sqrt1", "div1"]]


def test_groups_of_maps_that_wait_for_each_other_stay_apart() -> None:
    """The second one reads a pooling of the first; of another shape is another kernel."""
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    first = b("relu", x)
    pooled = b("max_pool", first, kernel=3, stride=1, pad=1)
    moved = b("channel_shuffle", pooled, groups=2)
    b.output(y=b("add", b("exp", first), b("neg", moved)))
    assert groups(b.graph) == [["neg1", "add1"], ["relu1", "exp1"]]
    b = Builder()
    wide, narrow = b("relu", b.input("x", 4, 5)), b("exp", b.input("row", 5))
    b.output(y=b("add", wide, narrow))
    assert groups(b.graph) == [["relu1", "add1"]]


@pytest.mark.parametrize("seed", range(30))
def test_drawn_groups_never_wait_for_each_other(seed: int) -> None:
    """Maps, windows and movements at random, many values with several readers."""
    random = np.random.default_rng(seed)
    b = Builder()
    values = [b.input("x", 2, 4, 6, 6)]
    for _ in range(40):
        one, two = (values[-1 - int(random.integers(min(len(values), 6)))] for _ in range(2))
        match random.integers(5):
            case 0:
                made = b("max_pool", one, kernel=3, stride=1, pad=1)
            case 1:
                made = b("conv", one, channels=4, kernel=1)
            case 2:
                made = b("relu", one)
            case 3:
                made = b("channel_shuffle", one, groups=2)
            case _:
                made = b("add", one, two)
        values.append(made)
    b.output(**{f"y{n}": values[-1 - n] for n in range(6)})
    after = rewritten(b.graph, FuseElementwise())  # verified
    seen: set[int] = {node.id for node in after.nodes() if not isinstance(node, OpNode)}
    for kernel in kernels_of(after):
        inside = {node.id for node in kernel}
        assert all(v.node.id in seen | inside for node in kernel for v in node.inputs.values())
        seen |= inside


def test_both_operands_may_be_the_value_before() -> None:
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=1)
    b.output(y=b("mul", h, h))
    assert groups(b.graph) == [["conv1", "mul1"]]


def test_growing_by_broadcast_is_no_continuation() -> None:
    """A gate [N, C, 1, 1] times a map: the map's chain goes on, the gate's ends."""
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    h = b("conv", x, channels=4, kernel=3)
    gate = b("relu6", b("conv", b("avg_pool", x, kernel="global"), channels=4, kernel=1))
    b.output(y=b("mul", h, gate))
    assert groups(b.graph) == [["conv1", "mul1"], ["conv2", "relu61"]]


def test_movements_start_no_chain_and_maps_may() -> None:
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    b.output(y=b("relu6", b("relu", b("concat", x, x))))
    assert groups(b.graph) == [["relu1", "relu61"]]


def test_weight_time_work_joins_nothing() -> None:
    b = Builder()
    x, p = b.input("x", 2, 3), b.parameter("p", 2, 3)
    b.output(y=b("add", b("sqrt", p), b("relu", x)))
    assert groups(b.graph) == [["relu1", "add1"]]


def test_multi_stage_maps_stay_alone() -> None:
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=1)
    b.output(y=b("relu", b("batch_norm", h)))
    assert groups(b.graph) == [["batch_norm1", "relu1"]]


def test_chains_have_a_longest() -> None:
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=1)
    for _ in range(4):
        h = b("relu", h)
    after = rewritten(b.output(y=h), FuseElementwise(longest=3))
    assert [n.group is not None for n in after.op_nodes()] == [True] * 5
    assert len({n.group for n in after.op_nodes()}) == 2


def test_maps_that_nobody_else_reads_come_along() -> None:
    """Momentum decays where the gradient is added to it, in one pass over both."""
    b = Builder()
    w, m = b.parameter("w", 4, 4), b.parameter("m", 4, 4)
    gradient = b("matmul", b.input("a", 4, 8), b.input("b", 8, 4))
    decayed = b("mul", m, b.constant("decay", 0.9))
    moved = b("add", decayed, gradient)
    b.update(m, moved)
    b.update(w, b("sub", w, moved))
    b.output(y=b("reduce_sum", w, axes=(0, 1)))
    assert groups(b.graph) == [["matmul1", "mul1", "add1", "sub1"]]


def test_maps_that_others_read_do_not() -> None:
    b = Builder()
    m = b.parameter("m", 4, 4)
    gradient = b("matmul", b.input("a", 4, 8), b.input("b", 8, 4))
    decayed = b("mul", m, b.constant("decay", 0.9))
    b.update(m, b("add", decayed, gradient))
    b.output(y=b("reduce_sum", decayed, axes=(0, 1)))
    assert groups(b.graph) == [["matmul1", "add1"]]


def test_maps_that_grow_do_not() -> None:
    """What is broadcast would be computed again and again."""
    b = Builder()
    x = b("matmul", b.input("a", 4, 8), b.input("b", 8, 4))
    b.output(y=b("add", x, b("exp", b.input("c", 1, 4))))
    assert groups(b.graph) == [["matmul1", "add1"]]
