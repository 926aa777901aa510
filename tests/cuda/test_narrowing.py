"""Values that lie in memory as tensor units read them: which do, and that products are those of the
rounded factors, exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from contractions_on_cards import OWN, Array, as_double, check, close, lowered_for, run_as_ptx
from cuda.test_networks import RESNET, drawn, step_of
from cuda_shim.programs import run_on_cpu
from cuda_shim.running import ORDERS
from graphs import Builder, evaluate_results, random_arrays, rewritten
from lowering.test_second_target import packed

import convdsl
from convdsl.autodiff import gradients
from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph, Value
from convdsl.kernel.cuda_target import CudaTarget, Precision
from convdsl.lowering.lower import Lowered
from convdsl.lowering.narrowing import WHOLE, Narrowed
from convdsl.lowering.tasks import Decision
from convdsl.passes import run as run_passes
from convdsl.passes import select
from convdsl.schedules.cuda.plan import plan_for
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


@pytest.mark.dear
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


@pytest.mark.dear
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


@pytest.mark.dear
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


@pytest.mark.dear
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


def step_with_momentum() -> Graph:
    """Biases have running sums of their gradients."""
    b = Builder()
    y: Value = b("relu", b.input("x", 2, 32, 12, 9))
    given, momentum = b("relu", b.input("given", 2, 32, 12, 9)), b.constant("momentum", 0.9)
    states: dict[str, Value] = {}
    for key in ("one", "two"):
        own = {"weight": b.parameter(key, 32, 32, 3, 3), "bias": b.parameter(f"{key}_bias", 32)}
        states |= {key: own["weight"], f"{key}_bias": own["bias"]}
        y = b("relu", b("conv", y, channels=32, kernel=3, pad=1, states=own))
    found = gradients(b.graph, {y: given}, list(states.values()), b.build)
    for (key, state), gradient in zip(states.items(), found, strict=True):
        assert gradient is not None
        running = b.parameter(f"{key}_running", *state.type.sizes)
        new = b("add", b("mul", running, momentum), gradient)
        b.update(running, new)
        b.update(state, b("sub", state, new))
    return b.output(y=y)


@pytest.mark.ladder
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_what_sums_end_is_stored_once(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum of a bias's gradient ends the group of a product, which is two kernels then: the
    second one reads what others read, as it is stored for them."""
    joined = select(options={"fuse-elementwise": {"elements": 1}})
    graph, target = run_passes(step_with_momentum(), joined), CudaTarget("sm_90", precision)
    lowered = lowered_for(graph, target)
    product, sums, *_ = (c for c in lowered.choices if {"conv2.dx", "conv1.dbias"} <= {*c.nodes})
    dtype = ROUNDED[precision]
    assert [output.var.type.dtype for output in product.task.outputs] == [dtype]
    assert types_read(sums) == [dtype]
    arrays = {n: a.astype("f4") for n, a in random_arrays(graph, seed=5).items()}
    found = called(lowered, target, arrays)
    monkeypatch.setattr("convdsl.lowering.buffers.find_narrowed", whole)
    plain = called(lowered_for(graph, target), target, arrays)
    for name, array in found.items():
        most = 2e-3 if "bias" in name else 1e-6
        close(array.astype("f8"), plain[name].astype("f8"), most, name)


def products_of_a_step() -> Graph:
    """A convolution, the gradient of its map and that of the filters of one that reads an image;
    weights change with every call."""
    b = Builder()
    x, dy, du = (b("relu", b.input(name, 2, *shape)) for name, shape in _MAPS.items())
    states = {name: b.parameter(name, *shape) for name, shape in _WEIGHTS.items()}
    y = b("conv", x, channels=20, kernel=3, bias=False, states={"weight": states["w"]})
    image = b.input("image", 2, 3, 12, 9)
    u = b("conv", image, channels=32, kernel=3, bias=False, states={"weight": states["v"]})
    (dx,) = gradients(b.graph, {y: dy}, [x], b.build)
    (dv,) = gradients(b.graph, {u: du}, [states["v"]], b.build)
    assert dx is not None
    assert dv is not None
    for state in states.values():
        b.update(state, b("relu", state))
    return b.output(y=y, dx=dx, dv=dv)


_MAPS = {"x": (24, 12, 9), "dy": (20, 12, 9), "du": (32, 12, 9)}
_WEIGHTS = {"w": (20, 24, 3, 3), "v": (32, 3, 3, 3)}


@pytest.mark.ladder
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("precision", ["medium", "float16"])
def test_what_is_given_is_rounded_as_it_is_packed(precision: Precision, arch: str) -> None:
    """Products are those of rounded factors, and weights are updated as they were."""
    graph, target, dtype = products_of_a_step(), CudaTarget(arch, precision), ROUNDED[precision]
    lowered = lowered_for(graph, target)
    read = {t for c in lowered.choices if c.schedule in OWN for t in types_read(c)}
    assert read == {dtype}
    arrays = {n: a.astype("f4") for n, a in random_arrays(graph, seed=5).items()}
    rounded = {n: as_double(convert(a, DType.F32, dtype), dtype) for n, a in arrays.items()}
    truth, _ = evaluate_results(graph, rounded)
    program, weights = lowered.program, packed(lowered, arrays)
    inputs, module = [arrays[port.name] for port in program.inputs], print_module(program, target)
    for run in (run_on_cpu, partial(run_as_ptx, target)):
        states = [arrays[port.name].copy() for port in program.states]
        found = run(program, module, weights, inputs, states, ORDERS["backward"])
        for port, array in zip(program.outputs, found, strict=True):
            close(array.astype("f8"), truth[port.name], 2e-6, port.name)
        for port, new in zip(program.states, states, strict=True):
            np.testing.assert_array_equal(new, np.maximum(arrays[port.name], 0))


def types_read(choice: Decision) -> list[DType]:
    return [operand.var.type.dtype for operand in choice.task.operands]


def step_of_two_layers(channels: int = 24) -> Graph:
    """The second one's gradients reach the first one's filters and bias."""
    b = Builder()
    y: Value = b.input("image", 2, 3, 12, 9)
    given = b("relu", b.input("given", 2, 16, 12, 9))
    shapes = {"one": (channels, 3, 3, 3), "two": (16, channels, 3, 3)}
    states = {key: b.parameter(key, *shape) for key, shape in shapes.items()}
    states |= {f"{key}_bias": b.parameter(f"{key}_bias", shape[0]) for key, shape in shapes.items()}
    for key, (count, *_) in shapes.items():
        own = {"weight": states[key], "bias": states[f"{key}_bias"]}
        y = b("conv", b("relu", y) if key == "two" else y, channels=count, kernel=3, states=own)
    found = gradients(b.graph, {y: given}, list(states.values()), b.build)
    for state, gradient in zip(states.values(), found, strict=True):
        assert gradient is not None
        b.update(state, b("sub", state, gradient))
    return b.output(y=y)


@pytest.mark.dear
@pytest.mark.ladder
@pytest.mark.parametrize("precision", ["medium", "float16"])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_steps_of_training(
    precision: Precision, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept for the backward pass and what comes back are halves; in f16 masks ask. Filters
    come out as they would if all were f32 in memory, biases but for the rounding of what they add
    up."""
    graph, target = step_of_two_layers(), CudaTarget(arch, precision)
    lowered = lowered_for(graph, target)
    dtype = "bf16" if precision == "medium" else "f32"
    assert stored(lowered)["relu2",] == {dtype}
    arrays = {n: a.astype("f4") for n, a in random_arrays(graph, seed=5).items()}
    found = called(lowered, target, arrays)
    monkeypatch.setattr("convdsl.lowering.buffers.find_narrowed", whole)
    plain = called(lowered_for(graph, target), target, arrays)
    for name, array in found.items():
        most = 2e-3 if name.endswith("bias") else 1e-6
        close(array.astype("f8"), plain[name].astype("f8"), most, name)


@pytest.mark.ladder
def test_a_step_of_a_residual_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """With batch normalisation, strides, and sums that stay f32; each weight as it would be."""
    source = RESNET.replace("11, 9]", "22, 18]").replace("conv(8", "conv(16")
    graph, initial = step_of(convdsl.parse(source.replace("conv(12", "conv(32"), N=3))
    graph, target = rewritten(graph), CudaTarget("sm_90a", "medium")
    arrays = drawn(graph, initial)
    lowered = lowered_for(graph, target)
    assert DType.BF16 in {dtype for choice in lowered.choices for dtype in types_read(choice)}
    found = called(lowered, target, arrays)
    monkeypatch.setattr("convdsl.lowering.buffers.find_narrowed", whole)
    plain = called(lowered_for(graph, target), target, arrays)
    for name, array in found.items():
        close(array.astype("f8"), plain[name].astype("f8"), 1e-5, name)


@pytest.mark.dear
def test_large_products_of_steps_run_by_warp_groups() -> None:
    """Forward and for what comes before; weights are packed in lines, as halves."""
    b = Builder()
    given = (b.input(name, 32, 3, 56, 56) for name in ("x", "dy"))
    x, dy = (b("relu", b("conv", image, channels=128, kernel=3)) for image in given)
    weight = b.parameter("w", 128, 128, 3, 3)
    y = b("conv", x, channels=128, kernel=3, bias=False, states={"weight": weight}, name="y")
    (dx,) = gradients(b.graph, {y: dy}, [x], b.build)
    assert dx is not None
    b.update(weight, b("relu", weight))
    target = CudaTarget("sm_90a", "medium")
    lowered = lowered_for(b.output(y=y, dx=dx), target)
    for name in ("y", "y.dx"):
        task = next(c.task for c in lowered.choices if c.nodes[0] == name)
        plan = plan_for(task, target)
        assert plan is not None
        assert plan.tile.grouped, name


def test_bf16_keeps_signs_as_far_down_as_numbers_are_normal() -> None:
    """What a mask asks: f32's least normal number and all above it are above zero as bf16."""
    least = np.float32(2.0**-126)
    drawn_down = np.exp2(np.linspace(-126, 127.9, 4001)).astype("f4")
    values = np.concatenate([drawn_down, [least, np.nextafter(least, np.float32(1))]])
    for sign in (1, -1):
        rounded = as_double(convert(sign * values, DType.F32, DType.BF16), DType.BF16)
        assert (np.sign(rounded) == sign).all()


def whole(*_: object) -> Narrowed:
    return WHOLE


def called(lowered: Lowered, target: CudaTarget, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs and new states of a call."""
    program = lowered.program
    states = {port.name: arrays[port.name].copy() for port in program.states}
    inputs = [arrays[port.name] for port in program.inputs]
    made = run_on_cpu(
        program, print_module(program, target), packed(lowered, arrays), inputs,
        list(states.values()), ORDERS["forward"],
    )  # fmt: skip
    return states | {port.name: a for port, a in zip(program.outputs, made, strict=True)}


@pytest.mark.dear
def test_weights_that_few_rows_meet_are_read_as_they_are() -> None:
    """Each element once: to round it ahead would be to read it, write it and read it again."""
    for rows, expected in ((127, "f32"), (128, "bf16")):
        b = Builder()
        x = b("relu", b.input("x", rows, 40), name="inner")
        weight = b.parameter("w", 24, 40)
        y = b("linear", x, channels=24, bias=False, states={"weight": weight})
        b.update(weight, b("relu", weight))
        graph = b.output(y=y)
        check(graph, CudaTarget("sm_90", "medium"))
        types = stored(lowered_for(graph, CudaTarget("sm_90", "medium")))
        assert types["inner",] == {expected}


@pytest.mark.dear
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
