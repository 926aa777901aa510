"""Loss scaling against torch.amp.GradScaler, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import convdsl
from convdsl.bound import bind_weights_of
from convdsl.training import scaling
from convdsl.training.settings import complete
from convdsl.training.step import RATE, training_step

NET = """
model net {
    input x: f32[N, 6]
    x -> linear(8) as a -> relu -> linear(3) as b -> output y
}
"""
INTERVAL = 4
SIZES = [1, 1, 1e36, 1, 1, 1, 1, 1, 1e36, 1e37, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_same_updates_are_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "INTERVAL", INTERVAL)
    model = convdsl.parse(NET)
    said = {"sgd": "sgd(lr = 0.1, momentum = 0.9, weight_decay = 0)",
            "adamw": "adamw(lr = 0.01, weight_decay = 0)"}[name]  # fmt: skip
    plan = training_step(model, complete(model, {"optimizer": said}), scaled=True)
    weights = dict(bind_weights_of(model, "random:0"))
    ours = convdsl.compile(plan.model, plan.arrays(weights), cache=False)
    theirs = {key: torch.tensor(array, requires_grad=True) for key, array in weights.items()}
    rate = 0.1 if name == "sgd" else 0.01
    values = list(theirs.values())
    optimiser = (
        torch.optim.SGD(values, lr=rate, momentum=0.9)
        if name == "sgd"
        else torch.optim.AdamW(values, lr=rate, weight_decay=0.0)
    )
    scaler = torch.amp.GradScaler("cpu", growth_interval=INTERVAL)
    random = np.random.default_rng(3)
    for number, size in enumerate(SIZES):
        x = (random.standard_normal((5, 6)) * size).astype("f4")
        label = random.integers(0, 3, 5)
        ours.by_name(x=x, label=label, **{RATE: np.asarray(rate)})
        hidden = torch.relu(torch.tensor(x) @ theirs["a.weight"].T + theirs["a.bias"])
        y = hidden @ theirs["b.weight"].T + theirs["b.bias"]
        optimiser.zero_grad()
        scaler.scale(torch.nn.functional.cross_entropy(y, torch.tensor(label))).backward()
        scaler.step(optimiser)
        scaler.update()
        assert float(ours.state["optimizer.scale"]) == scaler.get_scale(), number
        for key, value in theirs.items():
            expected = value.detach().numpy()
            np.testing.assert_allclose(ours.state[key], expected, rtol=0, atol=2e-5, err_msg=key)
    assert int(ours.state["optimizer.skipped"]) == sum(size > 1 for size in SIZES)


def test_numbers_are_the_documented_defaults() -> None:
    made = torch.amp.GradScaler("cpu")
    assert made.get_scale() == scaling.START or made._init_scale == scaling.START
    assert made.get_growth_factor() == scaling.GROWTH
    assert made.get_backoff_factor() == scaling.BACKOFF
    assert made.get_growth_interval() == scaling.INTERVAL
