"""Values that lie in memory as tensor units read them: which do, and that products are those of the
rounded factors, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from contractions_on_cards import as_double, check, close, lowered_for, run_as_ptx
from cuda_shim.programs import run_on_cpu
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_results, random_arrays
from lowering.test_second_target import packed

from convdsl.autodiff import gradients
from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import CudaTarget, Precision
from convdsl.lowering.lower import Lowered
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert

ROUNDED: dict[Precision, DType] = {
    "high": DType.TF32,
    "medium": DType.BF16,
    "float16": DType.F16,
}


def relu_first(channels: int) -> tuple[Builder, Any]:
    """What follows is no input, which lies as the caller has it."""
    b = Builder()
    return b, b("relu", b.input("x", 2, channels, 8, 6))


def convolution() -> Graph:
    b, x = relu_first(24)
    return b.output(y=b("sigmoid", b("conv", x, channels=20, kernel=3, pad=1)))


def pooled() -> Graph:
    b, x = relu_first(16)
    x = b("max_pool", x, kernel=3, stride=2, pad=1)
    return b.output(y=b("conv", x, channels=40, kernel=3))


def joined() -> Graph:
    b, x = relu_first(16)
    part = b("slice", x, axes=2, start=1, stop=7)
    whole = b("concat", part, b("slice", x, axes=2, start=2, stop=8), axis=1)
    return b.output(y=b("conv", whole, channels=24, kernel=1))


def widened() -> Graph:
    b, x = relu_first(16)
    return b.output(y=b("conv_transpose", x, channels=24, kernel=2, stride=2))


def widened_one() -> Graph:
    """Of one image nothing but positions moves the map alone, in steps of the stride."""
    b = Builder()
    x = b("relu", b.input("x", 1, 16, 5, 6))
    return b.output(y=b("conv_transpose", x, channels=24, kernel=2, stride=2))


def classified() -> Graph:
    b, x = relu_first(8)
    return b.output(y=b("linear", b("flatten", x), channels=70))


def two_operands() -> Graph:
    b = Builder()
    x, y = (b("relu", b.input(name, 3, 40, 24)) for name in "xz")
    return b.output(y=b("matmul", x, b("transpose", y, axes=(0, 2, 1))))


LAYERS: dict[str, Callable[[], Graph]] = {
    made.__name__: made
    for made in (convolution, pooled, joined, widened, widened_one, classified, two_operands)
}


def stored(lowered: Lowered) -> dict[tuple[str, ...], set[str]]:
    """The types of what groups of nodes store."""
    found: dict[tuple[str, ...], set[str]] = {}
    for choice in lowered.choices:
        types = {str(output.var.type.dtype) for output in choice.task.outputs}
        found.setdefault(choice.nodes, set()).update(types)
    return found


@pytest.mark.ladder
@pytest.mark.parametrize("precision", ROUNDED)
@pytest.mark.parametrize("name", LAYERS)
def test_products_are_those_of_rounded_factors(name: str, precision: Precision) -> None:
    """What is rounded before is given to double precision, where nothing else rounds."""
    graph, dtype = LAYERS[name](), ROUNDED[precision]
    target = CudaTarget("sm_90", precision)
    lowered = lowered_for(graph, target)
    assert {str(dtype)} in stored(lowered).values()
    arrays = {n: a.astype("f4") for n, a in random_arrays(graph, seed=5).items()}
    program = lowered.program
    weights, inputs = packed(lowered, arrays), [arrays[port.name] for port in program.inputs]
    factors = {n: a for n, a in arrays.items() if not n.endswith("bias")}
    rounded = {n: as_double(convert(a, DType.F32, dtype), dtype) for n, a in factors.items()}
    truth, _ = evaluate_results(graph, {n: a.astype("f8") for n, a in (arrays | rounded).items()})
    for order in ORDERS.values():
        module = print_module(program, target)
        for found in (
            run_on_cpu(program, module, weights, inputs, [], order),
            run_as_ptx(target, program, module, weights, inputs, [], order),
        ):
            close(found[0].astype("f8"), truth["y"], 2e-6, name)


def branching() -> Graph:
    b = Builder()
    stem = b("relu", b("conv", b.input("x", 1, 3, 8, 8), channels=16, kernel=3, pad=1))
    inner = b("relu", b("conv", stem, channels=16, kernel=3, pad=1))
    block = b("relu", b("add", b("conv", inner, channels=16, kernel=3, pad=1), stem))
    odd = b("relu", b("conv", block, channels=12, kernel=1))
    mean = b("avg_pool", b("relu", b("conv", odd, channels=16, kernel=1)), kernel=2)
    return b.output(y=b("conv", mean, channels=8, kernel=1), block=block)


@pytest.mark.parametrize(
    ("precision", "dtype", "expected"),
    [
        ("highest", "none", set[str]()),
        ("high", "tf32", {"conv2", "relu2", "conv4", "relu4", "avg_pool1"}),
        (
            "medium",
            "bf16",
            {"conv2", "relu2", "avg_pool1"},
        ),  # twelve halves are filled up
    ],
)
def test_who_is_stored_so(precision: Precision, dtype: str, expected: set[str]) -> None:
    """Only what nobody reads but as a factor: neither what is added, nor averaged, nor put out."""
    lowered = lowered_for(branching(), CudaTarget("sm_90", precision))
    found = {nodes[-1]: types for nodes, types in stored(lowered).items()}
    assert {name for name, types in found.items() if types == {dtype}} == expected
    assert {name for name, types in found.items() if types == {"f32"}} == set(found) - expected


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "relu6"])
def test_masks_of_gradients_do_not_mind(act: str) -> None:
    """They ask on which side of zero a value is. What is compared with six is another matter."""
    b, x = relu_first(24)
    inner = b(act, b("conv", x, channels=16, kernel=3, pad=1))
    y = b("conv", inner, channels=20, kernel=3)
    (dx,) = gradients(b.graph, {y: y}, [x], b.build)
    assert dx is not None
    graph, target = b.output(y=y, dx=dx), CudaTarget("sm_90", "high")
    check(graph, target)
    found = next(
        t for nodes, t in stored(lowered_for(graph, target)).items() if inner.node.name in nodes
    )
    assert found == ({"f32"} if act == "relu6" else {"tf32"})


@pytest.mark.parametrize("trained", [True, False])
def test_gradients_of_biases_are_columns_of_those_of_filters(trained: bool) -> None:
    """They add up what these multiply, over the same axes; beside other products they are sums."""
    b, x = relu_first(24)
    weight, bias = b.parameter("weight", 16, 24, 3, 3), b.parameter("bias", 16)
    states = {"weight": weight, "bias": bias}
    inner = b("conv", x, channels=16, kernel=3, states=states)
    y = b("conv", b("relu", inner), channels=20, kernel=3)
    wanted = [x, bias, weight] if trained else [x, bias]
    found = gradients(b.graph, {y: y}, wanted, b.build)
    graph = b.output(y=y, **{f"d{i}": value for i, value in enumerate(found) if value is not None})
    target = CudaTarget("sm_90", "high")
    check(graph, target)
    types = stored(lowered_for(graph, target))["relu2.dx",]
    assert types == ({"tf32"} if trained else {"f32"})


def test_weights_of_two_layers_are_packed_for_each() -> None:
    """One reads what is rounded, the other the input as it is."""
    b = Builder()
    x = b.input("x", 2, 16, 6, 6)
    weight = b.parameter("w", 16, 16, 3, 3)
    near = b("conv", x, channels=16, kernel=3, pad=1, bias=False, states={"weight": weight})
    y = b("conv", b("relu", near), channels=16, kernel=3, bias=False, states={"weight": weight})
    graph = b.output(y=y)
    check(graph, CudaTarget("sm_90", "medium"))
    lowered = lowered_for(graph, CudaTarget("sm_90", "medium"))
    assert {packing.dtype for packing in lowered.packings} == {DType.F32, DType.BF16}


@pytest.mark.parametrize(
    ("precision", "dtype"), [("high", "tf32"), ("medium", "bf16"), ("float16", "f32")]
)
def test_signs_of_what_reaches_further_down_than_halves(precision: Precision, dtype: str) -> None:
    """In f16 what is below 6e-8 is zero: a ReLU's gradient there would be lost."""
    b = Builder()
    x = b.input("x", 3, 40, 24)
    inner = b("relu", b("mul", x, x), name="inner")
    right = b("relu", b("transpose", b.input("z", 3, 40, 24), axes=(0, 2, 1)))
    y = b("matmul", inner, right)
    given = b("relu", b.input("given", 3, 40, 40))
    (dx,) = gradients(b.graph, {y: given}, [x], b.build)
    assert dx is not None
    found = stored(lowered_for(b.output(y=y, dx=dx), CudaTarget("sm_90", precision)))
    types = {kind for nodes, own in found.items() if nodes[-1] == "inner" for kind in own}
    assert types == {dtype}
