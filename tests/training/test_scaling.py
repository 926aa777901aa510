"""Loss scaling: what changes, what is left out, and how the scale follows.

Truth is the same training without it, which never saw the batches whose gradients overflow: scales
are powers of two, so that every number is the same. tests/torch holds it to PyTorch's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.bound import bind_weights_of
from convdsl.diagnostics import InputError
from convdsl.ir.verify import verify
from convdsl.runtime.executable import Executable
from convdsl.training import scaling
from convdsl.training.session import Session
from convdsl.training.settings import complete
from convdsl.training.step import RATE, training_step

Array = np.ndarray[Any, Any]

NET = """
model net {
    input x: f32[N, 3, 6, 6]
    x -> conv(5, 3x3) as a -> relu -> conv(4, 3x3) as b -> relu -> flatten -> linear(3) as c
      -> output logits
}
"""
OPTIMISERS = [
    "sgd(lr = 0.1, momentum = 0.9, nesterov = true)",
    "adamw(lr = 0.01)",
    "rmsprop(lr = 0.01)",
]


def batch(seed: int, size: float = 1.0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((4, 3, 6, 6)).astype("f4")
    return {"x": x * np.float32(size), "label": random.integers(0, 3, 4)}


def too_large(seed: int) -> dict[str, Array]:
    """One whose gradients are infinite, or no numbers."""
    return batch(seed, 1e36)


def runs(*, scaled: bool, **said: Any) -> Executable:
    model = convdsl.parse(NET)
    training = complete(model, {"schedule": "constant", **said})
    plan = training_step(model, training, scaled=scaled)
    verify(plan.model.graph)
    arrays = plan.arrays(dict(bind_weights_of(model, "random:1")))
    return convdsl.compile(plan.model, arrays, cache=False)


def step(run: Executable, given: dict[str, Array]) -> float:
    return float(run.by_name(**given, **{RATE: np.asarray(0.05)})["loss"])


def states(run: Executable) -> dict[str, Array]:
    """But the counter of batches, and what loss scaling remembers."""
    own = {*scaling.STATES, "optimizer.step"}
    return {key: a for key, a in run.state.copy().items() if key not in own}


def remembered(run: Executable) -> tuple[float, int, int]:
    """The scale, updates since it changed, updates left out."""
    scale, unbroken, skipped = (run.state[key] for key in scaling.STATES)
    return float(scale), int(unbroken), int(skipped)


def assert_alike(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for key, array in found.items():
        np.testing.assert_allclose(array, expected[key], rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_updates_that_overflow_never_were(optimizer: str) -> None:
    """Neither for weights nor for slots, averages or an optimiser that counts."""
    said = {"optimizer": optimizer, "ema": 0.9, "l2": 1e-3}
    run, plain = runs(scaled=True, **said), runs(scaled=False, **said)
    for seed, fits in enumerate([True, False, True, False, False, True]):
        before = states(run)
        if fits:
            assert step(run, batch(seed)) == pytest.approx(step(plain, batch(seed)), rel=1e-6)
        else:
            step(run, too_large(seed))
            for key, array in states(run).items():
                np.testing.assert_array_equal(array, before[key], key)
    assert_alike(states(run), states(plain))
    assert remembered(run) == (2.0**13, 1, 3)
    assert int(run.state["optimizer.step"]) == 6


@pytest.mark.dear
def test_the_scale_grows_after_so_many_updates_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "INTERVAL", 3)
    run = runs(scaled=True)
    found: list[tuple[float, int]] = []
    for seed, fits in enumerate([True, True, True, True, False, True, True, True]):
        step(run, batch(seed) if fits else too_large(seed))
        found.append(remembered(run)[:2])
    powers = [(2.0**n, since) for n, since in
              [(16, 1), (16, 2), (17, 0), (17, 1), (16, 0), (16, 1), (16, 2), (17, 0)]]  # fmt: skip
    assert found == powers


@pytest.mark.dear
def test_the_scale_never_grows_to_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "INTERVAL", 1)
    run = runs(scaled=True)
    tiny = {"x": np.zeros((4, 3, 6, 6), "f4"), "label": np.zeros(4, "i8")}
    run.state["optimizer.scale"] = np.float32(2.0**127)
    for key in ("a.weight", "b.weight", "c.weight"):
        run.state[key] = np.zeros_like(run.state[key])
    run.state["c.bias"] = np.array([200.0, 0.0, 0.0], "f4")  # sure of the label: no gradient
    step(run, tiny)
    assert remembered(run) == (2.0**127, 0, 0)


@pytest.mark.dear
def test_several_batches_for_an_update() -> None:
    """One of them overflows, and the update is left out, not only its own share."""
    run, plain = runs(scaled=True, accumulate=2), runs(scaled=False, accumulate=2)
    for seed in (0, 1):
        step(run, batch(seed))
        step(plain, batch(seed))
    assert remembered(run) == (2.0**16, 1, 0)
    before = states(run)
    step(run, too_large(2))
    assert remembered(run) == (2.0**16, 1, 0)
    step(run, batch(3))
    assert remembered(run) == (2.0**15, 0, 1)
    assert_alike(states(run), before)
    for seed in (4, 5):
        step(run, batch(seed))
        step(plain, batch(seed))
    assert_alike(states(run), states(plain))


@pytest.mark.dear
@pytest.mark.parametrize("clip", [{"clip_value": 0.1}, {"clip": 1.0}])
def test_what_is_clipped_was_finite(clip: dict[str, float]) -> None:
    """An infinite gradient is not made a large one; clipping is of unscaled gradients."""
    run, plain = runs(scaled=True, **clip), runs(scaled=False, **clip)
    for given in (batch(0), too_large(1), batch(2)):
        step(run, given)
    for given in (batch(0), batch(2)):
        step(plain, given)
    assert remembered(run)[2] == 1
    assert_alike(states(run), states(plain))


def test_only_a_card_multiplies_so() -> None:
    model = convdsl.parse(NET)
    for amp, precision, said in (
        ("float16", "highest", "a processor computes"),
        ("bfloat16", "highest", "a processor computes"),
        ("float8", "highest", "unknown type `float8`"),
        ("float16", "medium", "both say"),
    ):
        with pytest.raises(InputError, match=said):
            Session(model, complete(model), "random:0", amp=amp, precision=precision)
