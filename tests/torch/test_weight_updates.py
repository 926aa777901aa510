"""Clipping, decay by groups, accumulation and averages against PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from weight_updates import drawn, run, settings

from convdsl.ir.training import Choice

torch = pytest.importorskip("torch")


def parameters(weights: Any) -> dict[str, Any]:
    return {k: torch.nn.Parameter(torch.tensor(w)) for k, w in weights.items()}


def hand_over(theirs: dict[str, Any], gradients: Any) -> None:
    for key, g in gradients.items():
        theirs[key].grad = torch.tensor(g)


def check(found: dict[str, Any], theirs: dict[str, Any]) -> None:
    for key, wanted in theirs.items():
        np.testing.assert_allclose(found[key], wanted.detach().numpy(), rtol=1e-11, err_msg=key)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize(
    "limits", [{"clip": 0.7}, {"clip_value": 0.3}, {"clip": 1, "clip_value": 0.2}]
)
def test_clipping(limits: dict[str, float], scale: float) -> None:
    weights, gradients = drawn(1, 20, scale)
    found = run(settings(**limits), weights, gradients)
    theirs = parameters(weights)
    optimizer = torch.optim.SGD(theirs.values(), lr=0.1)
    for number, step in enumerate(gradients):
        hand_over(theirs, step)
        if "clip_value" in limits:
            torch.nn.utils.clip_grad_value_(theirs.values(), limits["clip_value"])
        if "clip" in limits:
            torch.nn.utils.clip_grad_norm_(theirs.values(), limits["clip"])
        optimizer.step()
        check(found[number], theirs)


def test_groups() -> None:
    """Rates of their own, decay of their own; the rest decays where it has two axes."""
    weights, gradients = drawn(2, 20)
    groups = (
        Choice("group", {"parameters": ("head",), "lr_factor": 0.1}),
        Choice("group", {"parameters": ("*.bias",), "weight_decay": 0.3, "lr_factor": 2}),
    )
    training = settings("adam", groups=groups, optimizer_arguments={"weight_decay": 0.2})
    found = run(training, weights, gradients)
    theirs = parameters(weights)
    own = {
        "stem.weight": {"lr": 0.1, "weight_decay": 0.2},
        "stem.bias": {"lr": 0.2, "weight_decay": 0.3},
        "head.weight": {"lr": 0.01, "weight_decay": 0.2},
        "scale": {"lr": 0.1, "weight_decay": 0.0},
    }
    optimizer = torch.optim.Adam([{"params": [p], **own[k]} for k, p in theirs.items()])
    for number, step in enumerate(gradients):
        hand_over(theirs, step)
        optimizer.step()
        check(found[number], theirs)


@pytest.mark.parametrize("all_decay", [False, True])
def test_regularisation(all_decay: bool) -> None:
    weights, gradients = drawn(3, 10)
    found = run(settings(l1=0.01, l2=0.2, decay_all=all_decay), weights, gradients)
    theirs = parameters(weights)
    optimizer = torch.optim.SGD(theirs.values(), lr=0.1)
    for number, step in enumerate(gradients):
        optimizer.zero_grad()
        whole = [p for p in theirs.values() if all_decay or p.dim() > 1]
        loss = sum((p * torch.tensor(step[k])).sum() for k, p in theirs.items())
        loss = loss + sum(0.01 * p.abs().sum() + 0.1 * (p * p).sum() for p in whole)
        loss.backward()
        optimizer.step()
        check(found[number], theirs)


@pytest.mark.parametrize("batches", [2, 3, 7])
def test_accumulation(batches: int) -> None:
    """Between updates nothing changes but the mean; clipping and averages see the mean."""
    weights, gradients = drawn(4, 5 * batches)
    said = {"accumulate": batches, "clip": 1.0, "ema": 0.9}
    found = run(settings("adamw", **said), weights, gradients)
    theirs = parameters(weights)
    optimizer = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.01 * (p.dim() > 1)} for p in theirs.values()], lr=0.1
    )
    for number in range(5):
        mean = {
            k: np.mean([g[k] for g in gradients[number * batches :][:batches]], axis=0)
            for k in weights
        }
        before = found[number * batches - 1] if number else weights
        for between in range(number * batches, (number + 1) * batches - 1):
            for key in weights:
                np.testing.assert_array_equal(found[between][key], before[key])
        hand_over(theirs, mean)
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        optimizer.step()
        check(found[(number + 1) * batches - 1], theirs)
        assert not found[(number + 1) * batches - 1]["optimizer.gradient.stem.bias"].any()


def test_averages() -> None:
    weights, gradients = drawn(5, 20)
    found = run(settings(ema=0.8), weights, gradients)
    module = torch.nn.ParameterDict(
        {k.replace(".", "_"): p for k, p in parameters(weights).items()}
    )
    averaged = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8)
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for number, step in enumerate(gradients):
        for key, g in step.items():
            module[key.replace(".", "_")].grad = torch.tensor(g)
        optimizer.step()
        averaged.update_parameters(module)
        for key in weights:
            wanted = averaged.module[key.replace(".", "_")].detach().numpy()
            ours = found[number][f"optimizer.average.{key}"]
            np.testing.assert_allclose(ours, wanted, rtol=1e-11, err_msg=key)
