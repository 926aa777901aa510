"""Weights meet a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.bound import bind_weights
from convdsl.diagnostics import WeightError
from convdsl.ir.graph import Graph, StateNode
from convdsl.ir.opdef import Role
from convdsl.tensor import DType, TensorType, symbol
from convdsl.tensor.conversion import convert
from convdsl.weights import ArrayStore, Bound, RandomWeights, bind, fitting, load, naming


def states(dtype: DType = DType.F32) -> dict[str, StateNode]:
    graph = Graph()
    graph.add_state(
        "conv.weight", TensorType(dtype, (4, 3, 2, 2)), Role.PARAMETER, "kaiming_uniform"
    )
    graph.add_state("conv.bias", TensorType(dtype, (4,)), Role.PARAMETER, "fan_in_uniform")
    graph.add_state("bn.running_var", TensorType(dtype, (4,)), Role.BUFFER, "ones")
    data = np.array([1.0, 2.0, 1.0])
    graph.add_state("edge.weight", TensorType(dtype, (3,)), Role.CONSTANT, data=data)
    return graph.states


def arrays(dtype: str = "float32") -> dict[str, Any]:
    shapes = {"conv.weight": (4, 3, 2, 2), "conv.bias": (4,), "bn.running_var": (4,)}
    return {name: np.full(shape, 0.5, dtype) for name, shape in shapes.items()}


def bound(given: dict[str, Any], dtype: DType = DType.F32) -> Bound:
    return bind(load(given), states(dtype))


def mismatches(given: dict[str, Any]) -> str:
    with pytest.raises(WeightError) as caught:
        bound(given)
    return str(caught.value)


def test_every_state_gets_its_array() -> None:
    result = bound(arrays())
    assert set(result) == set(states())
    assert result.notes == ()
    for name, state in states().items():
        assert result[name].dtype == np.float32
        assert result[name].shape == state.type.shape
        assert result[name].flags.c_contiguous
    np.testing.assert_array_equal(result["edge.weight"], np.float32([1, 2, 1]))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_are_converted_and_counted(dtype: str) -> None:
    result = bound(arrays(dtype))
    assert result.converted == {dtype: 3}
    assert result.notes == (f"converted 3 arrays from {dtype}",)
    assert {array.dtype.name for array in result.values()} == {"float32"}
    assert bound(arrays("float32"), DType.F64).converted == {"float32": 3}


def test_batch_counters_are_ignored_and_counted() -> None:
    counters = {f"bn{i}.num_batches_tracked": np.array(9) for i in range(3)}
    result = bound(arrays() | counters)
    assert sorted(result.ignored) == sorted(counters)
    assert result.notes == ("ignored 3 entries num_batches_tracked",)
    assert set(result) == set(states())


def test_auxiliary_heads_are_ignored_and_counted() -> None:
    names = ("aux1", "aux2", "AuxLogits")
    heads = {f"{head}.{part}": np.zeros(1) for head in names for part in ("w", "b")}
    result = bound(arrays() | heads)
    assert sorted(result.ignored) == sorted(heads)
    assert result.notes == tuple(f"ignored 2 entries {head}" for head in names)
    assert "aux3.w: in the file, not in the model" in mismatches(arrays() | {"aux3.w": np.zeros(1)})


def test_a_constant_may_be_repeated_but_not_contradicted() -> None:
    assert bound(arrays() | {"edge.weight": np.float32([1, 2, 1])}).ignored == ("edge.weight",)
    for other in (np.float32([1, 2, 3]), np.float32([1, 2])):
        assert "edge.weight: in the file, the text fixes other values" in mismatches(
            arrays() | {"edge.weight": other}
        )


def test_all_mismatches_are_listed_at_once() -> None:
    given = arrays()
    given["cnv.weight"] = given.pop("conv.weight")
    given["conv.bias"] = np.zeros(5, np.float32)
    given["bn.running_var"] = np.zeros(4, np.int64)
    given["other\x1b[2J"] = np.zeros(1)
    assert mismatches(given).splitlines() == [
        "the weights in the given arrays do not fit the model (5 mismatches):",
        "  conv.bias: the file has float32[5], the model needs f32[4]",
        "  bn.running_var: the file holds int64, the model needs f32",
        "  conv.weight: not in the file, the model needs f32[4, 3, 2, 2]; did you mean cnv.weight?",
        "  cnv.weight: in the file, not in the model",
        r"  'other\x1b[2J': in the file, not in the model",
    ]


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model."]
)
def test_what_wrappers_put_before_names_is_taken_off(prefix: str) -> None:
    """One note; also beside names that are ignored, wrapped or not."""
    wrapped: dict[str, Any] = {f"{prefix}{name}": array for name, array in arrays().items()}
    wrapped[f"{prefix}bn.num_batches_tracked"] = np.array(3)
    wrapped["bn2.num_batches_tracked"] = np.array(3)
    result = bound(wrapped)
    plain = bound(arrays())
    assert all(np.array_equal(result[name], plain[name]) for name in plain)
    assert result.notes == (
        f"took `{prefix}` off the names of the weights",
        "ignored 2 entries num_batches_tracked",
    )


def test_wrappers_inside_names_are_taken_off() -> None:
    given = {name.replace(".", "._orig_mod."): array for name, array in arrays().items()}
    assert set(bound(given)) == set(states())
    assert bound(given).notes == ("took `module.` and `_orig_mod.` off the names of the weights",)


def test_names_that_would_become_one_do_not_fit() -> None:
    """Whichever came first, neither is taken for the other."""
    wrapped = {f"module.{name}": array for name, array in arrays().items()}
    for given in (wrapped | arrays(), arrays() | wrapped):
        assert "module.conv.weight: in the file, not in the model" in mismatches(given)
    both = {f"module.{name}": a for name, a in wrapped.items()} | wrapped
    mismatches(both)


def test_a_prefix_that_does_not_make_all_fit_is_pointed_out() -> None:
    wrapped = {f"module.{name}": array for name, array in arrays().items()}
    wrapped["module.conv.bias"] = np.zeros(5, np.float32)
    assert mismatches(wrapped).splitlines()[-1] == (
        "help: the file's names begin with `module.`, the model's do not"
    )
    foreign = {f"net.{name}": array for name, array in arrays().items()}
    assert "begin with `net.`" in mismatches(foreign)


def test_flat_names_for_text_in_blocks_are_pointed_out() -> None:
    """Layers of several blocks that the file has side by side."""
    text = """
        block stage(i) { conv(4, 3x3) as "conv{i}" -> bn as "bn{i}" }
        model net {
            input x: f32[N, 4, 8, 8]
            x -> stage(1) as -> stage(2) as -> output y
        }
    """
    flat, deep = (convdsl.parse(text.replace(" as ->", said)) for said in (" as _ ->", " ->"))
    arrays = {
        name: np.ones(fitting.shape_of(state.type), np.float32)
        for name, state in flat.graph.states.items()
    }
    assert sorted(arrays)[:2] == ["bn1.bias", "bn1.running_mean"]
    assert not bind_weights(flat, arrays).notes
    with pytest.raises(WeightError) as raised:
        bind_weights(deep, arrays)
    assert str(raised.value).splitlines()[-1] == (
        "help: the file's names have no part for `stage`, `stage_2`: "
        "`as _` behind a block leaves its name out"
    )


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16, DType.F32, DType.F64])
def test_a_constant_of_any_type_may_be_repeated(dtype: DType) -> None:
    graph = Graph()
    numbers = convert(np.array([1.0, 0.1, -3.0]), DType.F64, dtype)
    graph.add_state("c", TensorType(dtype, (3,)), Role.CONSTANT, data=numbers)
    assert bind(load({"c": np.array([1.0, 0.1, -3.0])}), graph.states).ignored == ("c",)
    with pytest.raises(WeightError, match="other values"):
        bind(load({"c": np.array([1.0, 0.2, -3.0])}), graph.states)


def test_one_number_stays_one_number() -> None:
    """What is bound may be bound again, as training does with it."""
    graph = Graph()
    graph.add_state("c", TensorType(DType.F32, ()), Role.CONSTANT, data=np.float32(1e-5))
    graph.add_state("w", TensorType(DType.F32, ()), Role.PARAMETER, "ones")
    once = bind(load({"w": np.float64(2)}), graph.states)
    assert {name: array.shape for name, array in once.items()} == {"c": (), "w": ()}
    again = bind(load(dict(once)), graph.states)
    assert again.ignored == ("c",)
    assert {name: float(array) for name, array in again.items()} == {"c": np.float32(1e-5), "w": 2}


def test_nothing_is_read_before_everything_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    store = load(arrays() | {"extra": np.zeros(1)})
    monkeypatch.setattr(store, "read", lambda name: pytest.fail(f"read {name}"))
    with pytest.raises(WeightError, match="1 mismatch"):
        bind(store, states())


def test_unbound_symbols_in_a_weight_are_named() -> None:
    graph = Graph()
    graph.add_state("w", TensorType(DType.F32, (symbol("K"), 3)), Role.PARAMETER)
    with pytest.raises(WeightError, match=r"f32\[K, 3\] of a weight is not known yet"):
        bind(load("random:0"), graph.states)


def test_random_weights_use_the_layer_s_fan_in() -> None:
    result = bind(load("random:1"), states())
    assert set(result) == set(states())
    assert 0.3 < np.abs(result["conv.weight"]).max() <= (6 / 12) ** 0.5
    assert np.abs(result["conv.bias"]).max() <= 12**-0.5
    assert (result["bn.running_var"] == 1).all()
    np.testing.assert_array_equal(result["edge.weight"], np.float32([1, 2, 1]))
    again = bind(load("random:1"), states())
    assert all(np.array_equal(again[name], result[name]) for name in result)


def test_foreign_files_get_no_thousand_suggestions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "_SUGGESTIONS", 0)
    given = arrays()
    given["conv.weigth"] = given.pop("conv.weight")
    assert "did you mean" not in mismatches(given)


NAMED_OTHERWISE = """
model m {
    input image: f32[N, 3, 8, 8]
    image -> conv(4, 3x3, bias = false) as c1 -> bn -> conv(4, 3x3) as c2 -> conv(4, 3x3) as c3
          -> flatten -> linear(2) as head -> output logits
}
"""
THEIRS = {"c1": "features.0", "bn": "features.1", "c2": "features.3", "c3": "features.4"}
THEIRS["head"] = "fc"


def otherwise(text: str = NAMED_OTHERWISE) -> tuple[dict[str, Any], dict[str, Any]]:
    """The states of a network, and its weights as PyTorch's Sequential calls them, in order."""
    states = convdsl.parse(text).graph.states
    given: dict[str, Any] = {}
    for name, array in bind(RandomWeights(0), states).items():
        layer, _, last = name.rpartition(".")
        given[f"{THEIRS[layer]}.{last}"] = array
    return dict(states), given


def told(given: dict[str, Any], states: dict[str, Any]) -> str:
    with pytest.raises(WeightError) as caught:
        bind(ArrayStore(given), states)
    return str(caught.value)


def test_the_same_layers_under_other_names_are_paired() -> None:
    states, given = otherwise()
    text = told(given, states)
    for ours, theirs in THEIRS.items():
        assert f"{ours} may be {theirs}" in text
    assert 'as "features.0"' in text
    assert "another network's" not in text


def test_sorted_names_are_paired_where_no_two_layers_are_alike() -> None:
    """As safetensors files have them. Two convolutions of one shape could be either."""
    states, given = otherwise(NAMED_OTHERWISE.replace(" -> conv(4, 3x3) as c3", ""))
    assert "head may be fc" in told(dict(sorted(given.items())), states)
    states, given = otherwise()
    text = told(dict(sorted(given.items(), reverse=True)), states)
    assert "may be" not in text
    assert "call the layers as the file does" in text


def test_a_name_that_was_meant_has_the_shape() -> None:
    """Of `fc.weight` nobody takes a linear layer's matrix for a convolution's filters."""
    states, given = otherwise()
    filters = [line for line in told(given, states).splitlines() if "f32[4, 4, 3, 3]" in line]
    assert filters
    assert not any("fc.weight" in line for line in filters)
    near = {name.replace("features.1.", "batch_norm."): array for name, array in given.items()}
    assert "bn.weight: not in the file, the model needs f32[4]; did you mean batch_norm" in told(
        near, states
    )


def test_another_network_is_told_as_one() -> None:
    states, _ = otherwise()
    assert "another network's, or data" in told({"x": np.zeros((3, 2))}, states)
