"""Networks as they are while training: statistics of the batch, dropout that drops."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from executors import executing, interpreting, run_session
from gradients import check_graph
from graphs import Builder, evaluate_graph, evaluate_results, random_arrays, rewritten

import convdsl
from convdsl.backends.llvm.objects import find_target
from convdsl.diagnostics import InputError
from convdsl.ir.build import Build
from convdsl.ir.graph import Graph, OpNode
from convdsl.ir.groups import kernels_of
from convdsl.ir.timing import Timing
from convdsl.ir.verify import verify
from convdsl.lowering.layouts import Layouts
from convdsl.ops import BY_NAME
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import Dim, DType, TensorType, symbol
from convdsl.training.mode import stream, training_mode

F32, F64 = DType.F32, DType.F64

SHAPES = [(4, 3), (5, 17), (2, 3, 7), (3, 16, 4, 4), (2, 19, 5, 3), (1, 32, 3, 3), (2, 2, 2, 3, 2)]


def trained(b: Builder, seed: int = 0, frozen: Collection[str] = ()) -> Graph:
    """The graph in training mode; the counter of steps is an input."""
    step = b.input("step", dtype=DType.I64)
    training_mode(b.build, step=step, seed=seed, frozen=frozen)
    verify(b.graph)
    return b.graph


def normalising(*shape: Dim, dtype: DType = F64, **attributes: object) -> Builder:
    b = Builder()
    x = b.input("x", *shape, dtype=dtype)
    b.output(y=b("batch_norm", x, name="bn", **attributes))
    return b


def channelwise(array: np.ndarray, rank: int) -> np.ndarray:
    return array.reshape(1, -1, *(1,) * (rank - 2))


# Batch normalisation


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_normalises_by_the_batch(shape: tuple[int, ...], affine: bool) -> None:
    b = normalising(*shape, affine=affine, eps=1e-3, momentum=0.25)
    arrays = random_arrays(trained(b), 1) | {"step": np.array(0)}
    outputs, updates = evaluate_results(b.graph, arrays)
    x, rank = arrays["x"], len(shape)
    others = (0, *range(2, rank))
    mean, var = x.mean(others), x.var(others)
    y = (x - channelwise(mean, rank)) / np.sqrt(channelwise(var, rank) + 1e-3)
    if affine:
        y = y * channelwise(arrays["bn.weight"], rank) + channelwise(arrays["bn.bias"], rank)
    np.testing.assert_allclose(outputs["y"], y, rtol=1e-12, atol=1e-12)
    for key, new in {"bn.running_mean": mean, "bn.running_var": x.var(others, ddof=1)}.items():
        np.testing.assert_allclose(updates[key], 0.75 * arrays[key] + 0.25 * new, rtol=1e-12)


@pytest.mark.dear
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5, 5), (3, 16, 6, 6), (2, 33, 9, 9)])
def test_large_offsets_cost_no_digits(shape: tuple[int, ...]) -> None:
    """Means of thousands of standard deviations; squares would not leave a digit of f32."""
    b = normalising(*shape, dtype=F32)
    graph = rewritten(trained(b))
    random = np.random.default_rng(2)
    arrays = {n: np.asarray(a, np.float32) for n, a in random_arrays(graph, 2).items()}
    x = (random.standard_normal(shape) + 3000.0).astype(np.float32)
    given = {"x": x, "step": np.array(0)}
    _, updates = evaluate_results(graph, arrays | given | {"x": x.astype(np.float64)})
    expected = evaluate_graph(graph, arrays | given | {"x": x.astype(np.float64)})["y"]
    for way in (interpreting, executing):
        ((outputs, states),) = run_session(graph, arrays | given, [given], way)
        np.testing.assert_allclose(outputs["y"], expected, rtol=0, atol=2e-3)
        np.testing.assert_allclose(states["bn.running_var"], updates["bn.running_var"], rtol=1e-4)


def test_steps_follow_each_other() -> None:
    """Running statistics of one step are where the next one begins."""
    b = normalising(4, 16, 3, 3, dtype=F32)
    graph = rewritten(trained(b))
    random = np.random.default_rng(3)
    batches = [random.standard_normal((4, 16, 3, 3)).astype(np.float32) * k for k in (1, 2, 3)]
    arrays = {n: np.asarray(a, np.float32) for n, a in random_arrays(graph, 3).items()}
    mean = arrays["bn.running_mean"].astype(np.float64)
    given = [{"x": x, "step": np.array(k)} for k, x in enumerate(batches)]
    for x, (_, states) in zip(batches, run_session(graph, arrays, given, executing), strict=True):
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(states["bn.running_mean"], mean, rtol=1e-5, atol=1e-6)


def test_layers_that_share_statistics_update_them_in_turn() -> None:
    b = Builder()
    x = b.input("x", 3, 4, 2, dtype=F64)
    first = b("batch_norm", x, name="bn", affine=False)
    (node,) = (n for n in b.graph.op_nodes() if n.name == "bn")
    states = {n: v for n, v in node.inputs.items() if n != "x"}
    scaled = b("mul", x, b.constant("two", 2.0, F64))
    b.output(y=first, z=b("batch_norm", scaled, name="again", states=states, affine=False))
    arrays = random_arrays(trained(b), 4) | {"step": np.array(0)}
    _, updates = evaluate_results(b.graph, arrays)
    mean = arrays["x"].mean((0, 2))
    wanted = 0.9 * (0.9 * arrays["bn.running_mean"] + 0.1 * mean) + 0.1 * 2 * mean
    assert list(updates) == ["bn.running_mean", "bn.running_var"]
    np.testing.assert_allclose(updates["bn.running_mean"], wanted, rtol=1e-12)


@pytest.mark.parametrize("key", ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"])
def test_frozen_layers_keep_their_statistics(key: str) -> None:
    b = normalising(4, 3, 2)
    x = b.graph.outputs["y"]
    b.output(z=b("batch_norm", x, name="other"))
    graph = trained(b, frozen=[key, "elsewhere.weight"])
    assert list(graph.updates) == ["other.running_mean", "other.running_var"]
    arrays = random_arrays(graph, 5) | {"step": np.array(0)}
    scale = arrays["bn.weight"] / np.sqrt(arrays["bn.running_var"] + 1e-5)
    offset = arrays["x"] - channelwise(arrays["bn.running_mean"], 3)
    y = offset * channelwise(scale, 3) + channelwise(arrays["bn.bias"], 3)
    np.testing.assert_allclose(evaluate_graph(graph, arrays)["y"], y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 7), (1, 3, 1), (1, 16, 1, 1)])
def test_one_element_for_each_channel_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"bn: .* one element for each channel.* freeze"):
        trained(normalising(*shape))


def test_one_element_is_an_error_once_the_batch_is_known() -> None:
    graph = trained(normalising(symbol("n"), 3))
    graph.bind({"n": 2})
    with pytest.raises(InputError, match="one element for each channel"):
        graph.bind({"n": 1})


@pytest.mark.dear
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_agree_with_differences(shape: tuple[int, ...], affine: bool) -> None:
    graph = trained(normalising(*shape, affine=affine, eps=0.1))
    arrays = random_arrays(graph, 6) | {"step": np.array(0)}
    assert check_graph(graph, arrays, 6) >= (3 if affine else 1)


def test_gradients_of_statistics_agree_with_differences() -> None:
    """As they flow in second derivatives."""
    graph = trained(normalising(4, 3, 2, 2, eps=0.1))
    (node,) = (n for n in graph.op_nodes() if isinstance(n, OpNode))
    graph.outputs = {"y": node.outputs[0], "mean": node.outputs[1], "inverse": node.outputs[2]}
    check_graph(graph, random_arrays(graph, 7) | {"step": np.array(0)}, 7)


# Dropout


def dropping(
    *shape: Dim, p: float = 0.25, layers: int = 1, dtype: DType = F32, per: str = "element"
) -> Builder:
    b = Builder()
    x = b.input("x", *shape, dtype=dtype)
    b.output(**{f"y{k}": b("dropout", x, name=f"drop{k}", p=p, per=per) for k in range(layers)})
    return b


def dropped(b: Builder, x: np.ndarray, step: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    """What machine code gives, after all passes."""
    graph = rewritten(trained(b, seed))
    given = {"x": x, "step": np.array(step)}
    ((outputs, _),) = run_session(graph, given, [given], executing)
    expected = evaluate_graph(graph, given)
    for name, array in outputs.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-6)
    return outputs


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_its_share_and_enlarges_the_rest(p: float) -> None:
    x = np.ones((64, 1000), np.float32)
    y = dropped(dropping(64, 1000, p=p), x)["y0"]
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - p))}
    deviation = np.sqrt(p * (1 - p) / x.size)
    assert abs((y == 0).mean() - p) < 5 * deviation
    assert abs((y == 0).mean(0) - p).max() < 5 * np.sqrt(p * (1 - p) / 64)


def test_what_is_dropped_is_zero_whatever_it_was() -> None:
    x = np.full((4, 40), np.inf, np.float32)
    y = dropped(dropping(4, 40, p=0.5), x)["y0"]
    assert set(np.unique(y)) == {np.float32(0), np.float32(np.inf)}


@pytest.mark.dear(share=4)
def test_layers_steps_and_seeds_draw_apart() -> None:
    x = np.ones((16, 64), np.float32)
    first, second = dropped(dropping(16, 64, layers=2), x).values()
    assert 0.2 < (first != second).mean() < 0.6
    again = dropped(dropping(16, 64, layers=2), x)["y0"]
    np.testing.assert_array_equal(first, again)
    for other in (dropped(dropping(16, 64), x, step=1), dropped(dropping(16, 64), x, seed=1)):
        assert 0.2 < (first != other["y0"]).mean() < 0.6


@pytest.mark.dear(share=4)
def test_a_mask_does_not_depend_on_the_layout() -> None:
    """The place of an element counts, not where it lies: alike in blocked and in plain memory."""
    x = np.ones((2, 32, 5, 5), np.float32)
    plain = dropped(dropping(2, 32 * 25), x.reshape(2, -1))["y0"]
    b = Builder()
    value = b.input("x", 2, 32, 5, 5)
    identity = np.eye(32, dtype=np.float32).reshape(32, 32, 1, 1)
    w = b.constant("w", identity)
    made = b("conv", value, states={"weight": w}, channels=32, kernel=1, bias=False)
    b.output(y0=b("dropout", made, name="drop0", p=0.25))
    np.testing.assert_array_equal(dropped(b, x)["y0"].reshape(2, -1), plain)


@pytest.mark.parametrize("per", ["element", "channel", "sample"])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_or_all_is_dropped(p: float, per: str) -> None:
    x = np.array([[1.0, np.nan, np.inf]], np.float32)
    b = dropping(1, 3, p=p, per=per)
    expected = np.zeros_like(x) if p else x
    np.testing.assert_array_equal(evaluate_graph(trained(b), {"x": x, "step": 0})["y0"], expected)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4, 2)])
def test_dropout_has_the_gradient_of_its_mask(shape: tuple[int, ...]) -> None:
    graph = trained(dropping(*shape, p=0.4, layers=2, dtype=F64))
    assert check_graph(graph, random_arrays(graph, 8) | {"step": np.array(3)}, 8) == 1


# What is dropped or kept as a whole: channels, or samples (stochastic depth)


@pytest.mark.dear
@pytest.mark.parametrize(
    ("per", "own", "shape"),
    [
        ("sample", 1, (64, 5, 3, 2)),
        ("sample", 1, (200,)),
        ("sample", 1, (40, 17, 33)),
        ("channel", 2, (6, 40, 3, 5)),
        ("channel", 2, (9, 33)),
        ("channel", 2, (4, 3, 2, 3, 2)),
    ],
)
@pytest.mark.parametrize("p", [0.2, 0.75])
def test_a_whole_is_dropped_or_enlarged(
    per: str, own: int, shape: tuple[int, ...], p: float
) -> None:
    x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    y = dropped(dropping(*shape, p=p, per=per), x)["y0"]
    rows, wholes = x.reshape(*shape[:own], -1), y.reshape(*shape[:own], -1)
    gone = (wholes == 0).all(-1)
    kept = ~gone
    np.testing.assert_allclose(wholes[kept], rows[kept] / np.float32(1 - p), rtol=1e-6)
    assert abs(gone.mean() - p) < 5 * np.sqrt(p * (1 - p) / gone.size)


@pytest.mark.dear
@pytest.mark.parametrize(("per", "own"), [("sample", 1), ("channel", 2)])
def test_wholes_are_drawn_as_elements_are(per: str, own: int) -> None:
    """By the layer's stream, the step, the number of the sample and the place in it: the numbers
    of a tensor that has one element for each whole."""
    shape = (32, 6, 4, 3)
    for step, seed in ((0, 0), (1, 0), (0, 1), (2**40 + 1, 0)):
        ones = np.ones(shape[:own], np.float32)
        plain = dropped(dropping(*shape[:own], p=0.5), ones, step, seed)["y0"]
        wholes = dropped(dropping(*shape, p=0.5, per=per), np.ones(shape, np.float32), step, seed)
        expected = np.broadcast_to(plain.reshape(*shape[:own], *[1] * (4 - own)), shape)
        np.testing.assert_array_equal(wholes["y0"], expected)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize(("per", "shape"), [("sample", (7, 3)), ("channel", (2, 5, 4, 2))])
def test_wholes_have_the_gradient_of_their_mask(per: str, shape: tuple[int, ...]) -> None:
    graph = trained(dropping(*shape, p=0.4, layers=2, dtype=F64, per=per))
    assert check_graph(graph, random_arrays(graph, 8) | {"step": np.array(3)}, 8) == 1


def test_a_batch_of_any_size_is_dropped_alike() -> None:
    """Sizes are bound after the mode is set."""
    graph = trained(dropping(symbol("N"), 3, 4, p=0.5, per="sample"))
    whole = np.ones((40, 3, 4), np.float32)
    found = [
        evaluate_graph(graph.bind({"N": n}), {"x": whole[:n], "step": 0})["y0"] for n in (40, 7)
    ]
    np.testing.assert_array_equal(found[0][:7], found[1])


def test_streams_are_words() -> None:
    words = {word for k in range(100) for word in stream(7, f"layer{k}")}
    assert len(words) == 200
    assert all(0 <= word < 2**32 for word in words)
    assert stream(1, "a") != stream(2, "a")


def test_maps_lie_in_blocks_whatever_their_statistics_replace() -> None:
    """Running statistics are plain; what is normalised beside them is not copied out of blocks."""
    b = Builder()
    x = b("conv", b.input("x", 4, 16, 8, 8), channels=32, kernel=3)
    b.output(y=b("relu", b("batch_norm", x, name="bn"), name="relu"))
    graph = rewritten(trained(b))
    machine = cpu_machine(find_target("x86-64-v4"))
    layouts = Layouts(graph, machine, Timing(graph), kernels_of(graph))
    found = {v.name: layouts.of_value(v) for n in graph.op_nodes() for v in n.outputs}
    axes = {name: layout.axis for name, layout in found.items() if layout is not None}
    assert {axes[name] for name in ("conv1", "bn:y", "relu")} == {1}
    assert {axes[name] for name in ("bn:mean", "bn:new_mean", "bn:new_var")} == {None}


# Stochastic depth of published networks, as torchvision has it


def rates(name: str) -> list[float]:
    nodes = convdsl.load(name).graph.op_nodes()
    return [n.attributes["p"] for n in nodes if n.attributes.get("per") == "sample"]


@pytest.mark.parametrize(
    ("name", "most"),
    [("convnext_tiny", 0.1), ("convnext_small", 0.4), ("convnext_base", 0.5)],
)
def test_rates_grow_to_the_last_unit(name: str, most: float) -> None:
    found = rates(name)
    assert len(found) == (18 if name == "convnext_tiny" else 36)
    np.testing.assert_allclose(found, np.linspace(0, most, len(found)))


@pytest.mark.parametrize(("name", "units"), [("efficientnet_b0", 16), ("efficientnet_b4", 32)])
def test_rates_of_efficientnet(name: str, units: int) -> None:
    """0.2 l / L for unit l of L; those that have no shortcut drop nothing."""
    found = np.array(rates(name)) * units / 0.2
    np.testing.assert_allclose(found, np.round(found), atol=1e-9)
    assert (np.diff(np.round(found)) >= 1).all()
    assert (len(found), round(found[-1])) == ((9, 14) if units == 16 else (25, 31))


def test_a_network_without_its_paths_is_a_shorter_one() -> None:
    """Samples that went past every unit: what is left are the shortcuts."""
    text = """
    model m { input x: f32[N, 2]
    x -> for i in range(3) { in + (in -> linear(2) as "l{i}" -> dropout(0.5, per = sample)) }
      -> output y }
    """
    model = convdsl.parse(text)
    graph = model.graph.bind({"N": 400})
    build = Build(graph, BY_NAME)
    step = graph.add_input("step", TensorType(DType.I64, ()))
    training_mode(build, step=step, seed=5, frozen=())
    weights = {
        key: np.eye(2) if s.type.rank == 2 else np.zeros(2) for key, s in graph.states.items()
    }
    y = evaluate_graph(graph, {"x": np.ones((400, 2)), "step": np.array(0), **weights})["y"]
    times = np.log(y[:, 0]) / np.log(3)  # 1 + 1 / (1 - p) for each unit that it went through
    np.testing.assert_allclose(times, np.round(times), atol=1e-9)
    counts = np.bincount(np.round(times).astype(int), minlength=4) / 400
    np.testing.assert_allclose(counts, [1 / 8, 3 / 8, 3 / 8, 1 / 8], atol=0.08)
    plain = evaluate_graph(model.graph.bind({"N": 4}), {"x": np.ones((4, 2)), **weights})["y"]
    np.testing.assert_array_equal(plain, 8)


# Weights that a product reads turned


@pytest.mark.parametrize("shape", [(4, 6), (2, 5, 6), (3, 2, 1, 6)])
@pytest.mark.parametrize("given", ["parameter", "tensor"])
def test_no_weight_is_turned_in_steps(shape: tuple[int, ...], given: str) -> None:
    b = Builder()
    x = b.input("x", *shape, dtype=F64)
    w = getattr(b, given if given == "parameter" else "input")("w", 7, 6, dtype=F64)
    turned = b("transpose", w, axes=(1, 0))
    b.output(y=b("matmul", x, turned, name="product"), w=b("relu", turned))
    graph = trained(b)
    products = [node for node in graph.op_nodes() if node.name == "product"]
    assert [node.op.name for node in products] == ["linear"]
    arrays = random_arrays(graph, 3) | {"step": np.array(0)}
    arrays["x"].flat[0], arrays["x"].flat[7], arrays["w"].flat[9] = np.nan, 1e200, -0.0
    found, _ = evaluate_results(graph, arrays)
    np.testing.assert_allclose(found["y"], arrays["x"] @ arrays["w"].T, rtol=1e-12)
    np.testing.assert_array_equal(found["w"], np.maximum(arrays["w"].T, 0))


def test_other_products_stay_as_they_are() -> None:
    b = Builder()
    a, many, square = (
        b.input(n, *s) for n, s in zip("amq", [(3, 4), (2, 5, 4), (4, 4)], strict=True)
    )
    open_ended = b.input("o", symbol("n"), 4)
    b.output(of_batches=b("matmul", b("relu", many), b("transpose", many, axes=(0, 2, 1))))
    b.output(plain=b("matmul", a, square))
    b.output(before=b("matmul", b("transpose", a, axes=(1, 0)), a))
    b.output(open=b("matmul", a, b("transpose", open_ended, axes=(1, 0))))
    names = [node.op.name for node in trained(b).op_nodes()]
    assert names.count("matmul") == 4
    assert "linear" not in names


def test_a_step_of_attention_turns_no_weights() -> None:
    model = convdsl.load("vit_b_32", resolution=64)
    graph = model.graph.copy()
    build = Build(graph, BY_NAME)
    training_mode(build, step=build.input("step", TensorType(DType.I64, ())), seed=0, frozen=())
    products = [node for node in graph.op_nodes() if node.name.endswith("self_attention.matmul")]
    assert len(products) == 12
    assert {node.op.name for node in products} == {"linear"}
    assert all(node.inputs["weight"].node.name.endswith("in_proj_weight") for node in products)
