"""Optimisers against PyTorch's, over 100 steps in double precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from optimisers import Array, drawn, trajectory

from convdsl.ir.techniques import OPTIMIZERS

torch = pytest.importorskip("torch")

BETAS = {"beta1": 0.8, "beta2": 0.95}
SETS: list[tuple[str, str, dict[str, Any]]] = [
    ("sgd", "SGD", {}),
    ("sgd", "SGD", {"weight_decay": 0.1}),
    ("sgd", "SGD", {"momentum": 0.9}),
    ("sgd", "SGD", {"momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1}),
    ("sgd", "SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("adagrad", "Adagrad", {}),
    ("adagrad", "Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial": 0.5, "eps": 1e-3}),
    ("adadelta", "Adadelta", {}),
    ("adadelta", "Adadelta", {"rho": 0.7, "eps": 1e-3, "weight_decay": 0.1}),
    ("rmsprop", "RMSprop", {}),
    ("rmsprop", "RMSprop", {"momentum": 0.9, "weight_decay": 0.1, "alpha": 0.9}),
    ("rmsprop", "RMSprop", {"momentum": 0.5, "centered": True, "eps": 1e-3}),
    ("rmsprop", "RMSprop", {"centered": True, "alpha": 0.9, "eps": 1e-4}),
    ("adam", "Adam", {}),
    ("adam", "Adam", {"weight_decay": 0.1, "amsgrad": True, **BETAS, "eps": 1e-4}),
    ("amsgrad", "Adam", {"weight_decay": 0.1}),
    ("adamw", "AdamW", {}),
    ("adamw", "AdamW", {"weight_decay": 0.3, "amsgrad": True, **BETAS}),
    ("adamax", "Adamax", {}),
    ("adamax", "Adamax", {"weight_decay": 0.1, **BETAS}),
    ("nadam", "NAdam", {}),
    ("nadam", "NAdam", {"weight_decay": 0.1, "momentum_decay": 0.1, **BETAS}),
    ("radam", "RAdam", {}),
    ("radam", "RAdam", {"weight_decay": 0.1, **BETAS}),
    ("radam", "RAdam", {"beta2": 0.5}),
]
SPELLED = {"initial": "initial_accumulator_value"}


def theirs(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as PyTorch's optimisers take them."""
    made = {SPELLED.get(k, k): v for k, v in arguments.items() if not k.startswith("beta")}
    if any(key.startswith("beta") for key in arguments):
        made["betas"] = (arguments.get("beta1", 0.9), arguments.get("beta2", 0.999))
    return made | ({"amsgrad": True} if name == "amsgrad" else {})


def reference(
    name: str, kind: str, arguments: Mapping[str, Any], p: Array, gradients: Any, rates: Any
) -> list[Array]:
    parameter = torch.nn.Parameter(torch.tensor(p))
    optimiser = getattr(torch.optim, kind)([parameter], lr=rates[0], **theirs(name, arguments))
    found = []
    torch.set_default_dtype(torch.float64)  # NAdam keeps a product of momenta in this type
    for g, rate in zip(gradients, rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate
        parameter.grad = torch.tensor(g)
        optimiser.step()
        found.append(parameter.detach().numpy().copy())
    torch.set_default_dtype(torch.float32)
    return found


@pytest.mark.parametrize(("name", "kind", "arguments"), SETS)
def test_a_hundred_steps(name: str, kind: str, arguments: dict[str, Any]) -> None:
    p, gradients, rates = drawn(len(name) + len(arguments))
    found = trajectory(name, arguments, p, gradients, rates)
    wanted = reference(name, kind, arguments, p, gradients, rates)
    for step, (ours, other) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(ours, other, rtol=1e-10, atol=1e-12, err_msg=f"step {step}")
    assert not np.allclose(found[-1], p)


@pytest.mark.parametrize("kind", sorted({kind for _, kind, _ in SETS}))
def test_defaults_are_pytorchs(kind: str) -> None:
    name = next(name for name, other, _ in SETS if other == kind)
    ours = OPTIMIZERS[name].complete({})
    defaults = getattr(torch.optim, kind)([torch.nn.Parameter(torch.zeros(1))]).defaults
    for key, value in theirs(name, ours).items():
        assert defaults[key] == pytest.approx(value), key
