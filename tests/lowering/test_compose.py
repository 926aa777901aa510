"""A group as chains of stages: what stays in registers, what goes through memory."""

from __future__ import annotations

import pytest
from graphs import Builder, rewritten

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.timing import Timing
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexValue,
    Literal,
    Reduce,
    Stage,
    format_expr,
    reads,
    walk,
)
from convdsl.kernel.layout import Layout
from convdsl.kernel.philox import philox
from convdsl.lowering.chains import Chain, Chains
from convdsl.lowering.compose import Composed, Composer
from convdsl.tensor import DType


def composed(graph: Graph, *more: Value) -> Composed:
    """The whole graph as one group; its outputs leave, and what is given besides."""

    def layout(_: OpNode, stage: Stage) -> Layout:
        type = stage.target.type
        return Layout(type.sizes, 0 if type.rank else None, 8 if type.dtype is DType.F64 else 16)

    leaving = [*more, *graph.outputs.values()]
    return Composer(Timing(graph), layout).compose(graph.op_nodes(), leaving)


def only_chain(graph: Graph, *more: Value) -> Chain:
    (chain,) = composed(graph, *more).chains
    return chain


def read_names(stage: Stage) -> set[str]:
    return {read.tensor.name for read in reads(stage.body)}


def reductions(e: Expr) -> list[Reduce]:
    return [node for node in walk(e) if isinstance(node, Reduce)]


def size(chain: Chain) -> int:
    """Nodes of all its expressions."""
    return sum(1 for stage in chain.stages for _ in walk(stage.body))


def test_maps_are_one_chain() -> None:
    b = Builder()
    x = b.input("x", 1, 4, 5, 5)
    graph = b.output(y=b("relu6", b("add", b("relu", x), b.input("z", 1, 4, 5, 5))))
    result = composed(graph)
    (chain,) = result.chains
    assert [read_names(stage) for stage in chain.stages] == [{"x0"}, {"t0", "x1"}, {"t1"}]
    assert chain.operands.keys() == result.sources.keys() == {"x0", "x1"}
    assert chain.outputs == ("t2",)
    assert result.targets == {"t2": graph.outputs["y"]}
    assert {v.name for v in result.sources.values()} == {"x", "z"}
    assert result.op == "relu"


def test_a_contraction_stands_once_however_often_it_is_read() -> None:
    b = Builder()
    h = b("conv", b.input("x", 1, 4, 5, 5), channels=4, kernel=3)
    h = b("mul", h, h)
    chain = only_chain(b.output(y=b("mish", b("silu", b("add", h, h)))))
    assert [len(reductions(stage.body)) for stage in chain.stages] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("rounds", [1, 18, 200])
def test_expressions_grow_with_the_operators(rounds: int) -> None:
    """`in + in`, again and again: each round adds three nodes and one stage."""
    b = Builder()
    h = b.input("x", 1, 4, 5, 5)
    for _ in range(rounds):
        h = b("add", h, h)
    chain = only_chain(b.output(y=h))
    assert len(chain.stages) == rounds
    assert size(chain) == 3 * rounds


def test_several_values_leave_a_chain() -> None:
    b = Builder()
    h = b("conv", b.input("x", 1, 4, 5, 5), channels=4, kernel=3)
    normal = b("batch_norm", h)
    graph = b.output(y=b("relu", normal))
    chain = only_chain(graph, h)
    assert chain.outputs == (chain.stages[0].target.name, chain.stages[-1].target.name)


def test_what_nobody_wants_is_not_computed() -> None:
    b = Builder()
    node = b("max_pool", b.input("x", 1, 4, 6, 6), kernel=2, indices=True).node
    b.output(y=node.outputs[0])
    assert len(only_chain(b.graph).stages) == 1


def test_a_reduction_is_not_repeated_in_several_chains() -> None:
    b = Builder()
    h = b("conv", b.input("x", 1, 4, 5, 5), channels=4, kernel=3)
    result = composed(b.output(y=b("softmax", h, axis=1)))
    stages = [stage for chain in result.chains for stage in chain.stages]
    convolving = [s for s in stages if reductions(s.body) and "x1" in read_names(s)]
    assert len(convolving) == 1
    assert all(sum(bool(reductions(s.body)) for s in c.stages) <= 1 for c in result.chains)


def test_chains_come_after_what_they_read() -> None:
    b = Builder()
    x = b.input("x", 1, 4, 5, 5)
    h = b("relu", b("conv", x, channels=4, kernel=3))
    result = composed(b.output(y=b("mul", b("layer_norm", h, axis=2), h)))
    stored: set[str] = set()
    for chain in result.chains:
        assert chain.operands.keys() - result.sources.keys() <= stored | {
            stage.target.name for stage in result.folded
        }
        stored |= {*chain.outputs, *chain.ending_outputs}


def test_what_is_read_elsewhere_goes_through_memory() -> None:
    """A pooling reads its operand at other positions, many times each."""
    b = Builder()
    x = b.input("x", 1, 4, 6, 6)
    first, second = composed(b.output(y=b("max_pool", b("relu", x), kernel=2))).chains
    assert second.operands.keys() == set(first.outputs)
    assert reductions(second.stages[0].body)
    assert not reductions(first.stages[0].body)


def test_a_reduction_of_what_a_chain_computes_ends_it() -> None:
    """Over any of its axes; what follows from the results in place goes with them."""
    b = Builder()
    h = b("relu", b("conv", b.input("x", 2, 4, 5, 6), channels=4, kernel=3))
    graph = b.output(y=b("sqrt", b("reduce_sum_square", h, axes=(0, 3))), z=b("neg", h))
    chain = only_chain(graph)
    assert [len(reductions(s.body)) for s in chain.stages] == [1, 0, 0]
    assert [len(reductions(s.body)) for s in chain.ending] == [1, 0]
    n, c, h0, w = (axis.name for axis in chain.stages[0].axes)
    assert [axis.name for axis in chain.ending[0].axes] == [c, h0]
    (reduce,) = reductions(chain.ending[0].body)
    assert {axis.name for axis in reduce.axes} == {n, w}
    assert (chain.outputs, chain.ending_outputs) == (("t4",), ("t3",))
    main, ending = chain.apart()
    assert main.outputs == ("t1", "t4")
    assert ending.operands.keys() == {"t1"}


def test_what_reads_results_elsewhere_comes_after() -> None:
    """The mean is subtracted from what it was taken of: two chains."""
    b = Builder()
    h = b("relu", b.input("x", 2, 4, 5, 6))
    mean = b("reduce_mean", h, axes=(2, 3), keepdims=True)
    result = composed(b.output(y=b("sub", h, mean)))
    assert [(len(c.stages), len(c.ending)) for c in result.chains] == [(1, 1), (1, 0)]


def test_sums_over_other_axes_do_not_end_one_chain() -> None:
    b = Builder()
    h = b("relu", b.input("x", 2, 4, 5, 6))
    graph = b.output(y=b("reduce_sum", h, axes=(2, 3)), z=b("reduce_sum", h, axes=(0, 2)))
    result = composed(graph)
    assert [(len(c.stages), len(c.ending)) for c in result.chains] == [(1, 1), (1, 0)]


def test_other_vectors_begin_another_chain() -> None:
    b = Builder()
    h = b("relu", b.input("x", 1, 4, 6, 6))
    result = composed(b.output(y=b("cast", h, dtype="f64")))
    assert len(result.chains) == 2


def test_arithmetic_over_weights_is_folded() -> None:
    b = Builder()
    x = b.input("x", 1, 4, 5, 5)
    result = composed(b.output(y=b("batch_norm", x)))
    assert {stage.target.name for stage in result.folded} == {"t0", "t1"}
    (chain,) = result.chains
    assert [read_names(stage) for stage in chain.stages] == [{"x0", "t0", "t1"}]


def test_axes_of_reductions_are_not_captured() -> None:
    """The sum runs over names that the map after it has axes of."""
    b = Builder()
    x = b.input("x", 2, 3, 4, 4)
    h = b("reduce_sum", x, axes=(1,), keepdims=True)
    chain = only_chain(b.output(y=b("add", h, b.input("z", 2, 1, 4, 4))))
    assert len({stage.axes for stage in chain.stages}) == 1
    taken = {axis.name for axis in chain.stages[0].axes}
    (found,) = reductions(chain.stages[0].body)
    assert all(axis.name not in taken for axis in found.axes)


def test_alike_groups_compose_alike() -> None:
    """Names come from positions, not from the graph: equal layers share their kernels."""
    results = []
    for name in ("a", "b"):
        b = Builder()
        x = b.input(name, 1, 4, 5, 5)
        h = b("batch_norm", b("conv", x, channels=4, kernel=3, name=f"conv_{name}"))
        results.append(composed(b.output(**{name: b("relu", h)})))
    assert results[0].chains == results[1].chains
    assert results[0].folded == results[1].folded
    assert list(results[0].sources) == list(results[1].sources)
    assert list(results[0].targets) == list(results[1].targets)


@pytest.mark.parametrize("extent", [1, 5])
def test_broadcast_operands(extent: int) -> None:
    """Axes of extent 1 are read at 0, whatever the reader's axis is."""
    b = Builder()
    gate = b("relu", b.input("g", 1, 4, extent, 1))
    graph = rewritten(b.output(y=b("mul", b.input("x", 1, 4, extent, 5), gate)))
    result = composed(graph)
    assert [len(chain.operands) for chain in result.chains] == [1, 2]


def test_numbers_of_the_text_are_literals() -> None:
    """A kernel does not load them, and a power knows its exponent."""
    b = Builder()
    x = b.input("x", 4, 5)
    graph = b.output(y=b("pow", x, b.constant("two", 2.0)))
    chain = only_chain(graph)
    assert [*chain.operands] == ["x0"]
    (stage,) = chain.stages
    assert format_expr(stage.body) == "pow(x0[n, c], 2.0)"


def test_sums_of_one_tensor_are_one_chain() -> None:
    """Whatever they add up of it; and what follows from them at the positions kept."""
    b = Builder()
    x, y = (b.input(name, 8, 16, 4, 4) for name in ("x", "y"))
    axes = [0, 2, 3]
    first, other = (b("reduce_sum", value, axes=axes) for value in (x, y))
    squares = b("reduce_sum_square", x, axes=axes)
    graph = b.output(z=b("mul", first, squares), other=other)
    chains = composed(graph).chains
    assert [(len(chain.stages), len(chain.operands)) for chain in chains] == [(3, 1), (1, 1)]
    expr = [reductions(stage.body) for stage in chains[0].stages]
    assert expr[0][0].axes == expr[1][0].axes


def test_sums_over_other_positions_are_apart() -> None:
    """Nor do windows and products join, which schedules of their own run."""
    b = Builder()
    x = b.input("x", 8, 16, 6, 6)
    sums = {f"s{k}": b("reduce_sum", x, axes=axes) for k, axes in enumerate(([0, 2, 3], [1]))}
    pools = {f"p{k}": b("avg_pool", x, kernel=3, stride=1, pad=k) for k in (0, 1)}
    convs = {f"c{k}": b("conv", x, channels=16, kernel=1, bias=False) for k in (0, 1)}
    graph = b.output(**sums, **pools, **convs)
    assert [len(chain.stages) for chain in composed(graph).chains] == [1] * 6


def test_what_reads_nothing_is_one_chain() -> None:
    """Random words, say: four at each position."""
    axes = (Axis("i", 16),)
    counter = tuple(IndexValue(axes[0].i, DType.U32) for _ in range(4))
    key = Literal(1, DType.U32), Literal(2, DType.U32)
    stages, _ = philox(axes, counter, key)  # type: ignore[arg-type]
    chains = Chains({stage.target.name: Layout((16,)) for stage in stages})
    for stage in stages:
        chains.add(stage)
    (chain,) = chains.finished(frozenset([stages[-1].target.name]))
    assert len(chain.stages) == 40
