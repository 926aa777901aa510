"""Writing the stages of a group into each other."""

from __future__ import annotations

import pytest
from graphs import Builder, rewritten

from convdsl.ir.graph import Graph
from convdsl.kernel.expr import Reduce, Stage, reads, walk
from convdsl.lowering.compose import Composed, compose


def composed(graph: Graph) -> Composed:
    """The whole graph as one group."""
    nodes = list(graph.op_nodes())
    return compose(nodes, nodes[0])


def read_names(stage: Stage) -> set[str]:
    return {read.tensor.name for read in reads(stage.body)}


def reductions(stage: Stage) -> list[Reduce]:
    return [node for node in walk(stage.body) if isinstance(node, Reduce)]


def test_maps_are_written_into_their_reader() -> None:
    b = Builder()
    x = b.input("x", 1, 4, 5, 5)
    graph = b.output(y=b("relu6", b("add", b("relu", x), b.input("z", 1, 4, 5, 5))))
    result = composed(graph)
    (stage,) = result.stages
    assert read_names(stage) == set(result.sources) == {"x0", "x1"}
    assert result.targets == {stage.target.name: graph.outputs["y"]}
    assert {v.name for v in result.sources.values()} == {"x", "z"}
    assert result.op == "relu"


def test_a_contraction_is_written_into_its_epilogue_once() -> None:
    b = Builder()
    h = b("conv", b.input("x", 1, 4, 5, 5), channels=4, kernel=3)
    (stage,) = composed(b.output(y=b("relu", b("mul", h, h)))).stages
    assert len(set(reductions(stage))) == 1, "the same sum, however often it is named"


def test_a_reduction_is_not_repeated_in_several_stages() -> None:
    b = Builder()
    h = b("conv", b.input("x", 1, 4, 5, 5), channels=4, kernel=3)
    result = composed(b.output(y=b("softmax", h, axis=1)))
    sums = [stage for stage in result.stages if reductions(stage)]
    convolving = [stage for stage in sums if "x1" in read_names(stage)]
    assert len(convolving) == 1


def test_what_is_read_elsewhere_is_not_inlined() -> None:
    """A pooling reads its operand at other positions, many times each."""
    b = Builder()
    x = b.input("x", 1, 4, 6, 6)
    first, second = composed(b.output(y=b("max_pool", b("relu", x), kernel=2))).stages
    assert read_names(second) == {first.target.name}
    assert reductions(second)
    assert not reductions(first)


def test_axes_of_reductions_are_not_captured() -> None:
    """The inner convolution sums over names that the outer one has axes of."""
    b = Builder()
    x = b.input("x", 2, 3, 4, 4)
    h = b("reduce_sum", x, axes=(1,), keepdims=True)
    (stage,) = composed(b.output(y=b("add", h, b.input("z", 2, 1, 4, 4)))).stages
    taken = {axis.name for axis in stage.axes}
    assert reductions(stage)
    assert all(axis.name not in taken for r in reductions(stage) for axis in r.axes)


def test_alike_groups_compose_alike() -> None:
    """Names come from positions, not from the graph: equal layers share their kernels."""
    results = []
    for name in ("a", "b"):
        b = Builder()
        x = b.input(name, 1, 4, 5, 5)
        h = b("batch_norm", b("conv", x, channels=4, kernel=3, name=f"conv_{name}"))
        results.append(composed(b.output(**{name: b("relu", h)})))
    assert results[0].stages == results[1].stages
    assert list(results[0].sources) == list(results[1].sources)
    assert list(results[0].targets) == list(results[1].targets)


@pytest.mark.parametrize("extent", [1, 5])
def test_broadcast_operands(extent: int) -> None:
    """Axes of extent 1 are read at 0, whatever the reader's axis is."""
    b = Builder()
    gate = b("relu", b.input("g", 1, 4, extent, 1))
    graph = rewritten(b.output(y=b("mul", b.input("x", 1, 4, extent, 5), gate)))
    result = composed(graph)
    assert [len(read_names(stage)) for stage in result.stages] == [1, 2]
