"""Updates of several weights: groups, clipping, accumulation, averages; what they run as."""

from __future__ import annotations

import numpy as np
import pytest
from weight_updates import compiled, drawn, run, settings

from convdsl import InputError
from convdsl.ir.training import Choice
from convdsl.tensor import DType, TensorType
from convdsl.training.gradients import group_of


def test_biases_and_norms_do_not_decay_unless_said() -> None:
    matrix, bias = TensorType(DType.F32, (4, 3)), TensorType(DType.F32, (4,))
    training = settings(optimizer_arguments={"weight_decay": 0.5})
    assert group_of(training, "fc.weight", matrix).weight_decay == 0.5
    assert group_of(training, "fc.bias", bias).weight_decay == 0
    assert not group_of(training, "fc.bias", bias).is_regularised
    training = settings(decay_all=True, optimizer_arguments={"weight_decay": 0.5})
    assert group_of(training, "fc.bias", bias).weight_decay == 0.5


def test_the_first_group_that_names_a_parameter_holds() -> None:
    groups = (
        Choice("group", {"parameters": ("fc.bias",), "weight_decay": 0.1}),
        Choice("group", {"parameters": ("fc",), "lr_factor": 3}),
    )
    training = settings(groups=groups, optimizer_arguments={"weight_decay": 0.5})
    bias = group_of(training, "fc.bias", TensorType(DType.F32, (4,)))
    assert (bias.lr_factor, bias.weight_decay) == (1, 0.1)
    weight = group_of(training, "fc.weight", TensorType(DType.F32, (4, 3)))
    assert (weight.lr_factor, weight.weight_decay) == (3, 0.5)


def test_groups_that_name_nothing() -> None:
    weights, _ = drawn(1, 1)
    groups = (Choice("group", {"parameters": ("stem.*", "hed.*")}),)
    with pytest.raises(InputError, match=r"no parameter is called hed\.\*; there are stem\.weight"):
        compiled(settings(groups=groups), weights)


def test_clipping_by_the_norm_of_all() -> None:
    """The step has the length rate * limit; one that is shorter stays."""
    weights, gradients = drawn(2, 2)
    gradients[1] = {key: np.asarray(g * 1e-3) for key, g in gradients[1].items()}
    first, second = run(settings(clip=0.5), weights, gradients, rate=1.0)
    moved = np.sqrt(sum(((first[k] - w) ** 2).sum() for k, w in weights.items()))
    assert moved == pytest.approx(0.5, rel=1e-5)
    for key, g in gradients[1].items():
        np.testing.assert_allclose(second[key], first[key] - g, rtol=1e-12)


def test_accumulated_gradients_are_averaged() -> None:
    weights, gradients = drawn(3, 8)
    found = run(
        settings("sgd", accumulate=4, optimizer_arguments={"momentum": 0.9}), weights, gradients
    )
    for key, w in weights.items():
        means = [np.mean([g[key] for g in gradients[at : at + 4]], axis=0) for at in (0, 4)]
        once = w - 0.1 * means[0]
        for step in (0, 1, 2):
            np.testing.assert_array_equal(found[step][key], w)
        np.testing.assert_allclose(found[3][key], once, rtol=1e-12)
        np.testing.assert_allclose(
            found[7][key], once - 0.1 * (0.9 * means[0] + means[1]), rtol=1e-12
        )
    assert found[-1]["optimizer.step"] == 8


@pytest.mark.parametrize("threads", [1, 2])
def test_averages_begin_with_the_first_update(threads: int) -> None:
    weights, gradients = drawn(4, 3)
    network = compiled(settings(ema=0.75), weights, threads=threads)
    for key, w in weights.items():
        np.testing.assert_array_equal(network.state[f"optimizer.average.{key}"], w)
    wanted: dict[str, object] = {}
    for step in gradients:
        network(**{f"g.{k}": g for k, g in step.items()}, rate=np.array(0.1))
        for key in weights:
            p = network.state[key]
            wanted[key] = p if key not in wanted else 0.75 * wanted[key] + 0.25 * p
    for key, average in wanted.items():
        np.testing.assert_allclose(network.state[f"optimizer.average.{key}"], average, rtol=1e-12)
