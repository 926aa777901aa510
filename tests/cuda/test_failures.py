"""What is said when a card fails, has too little memory, or is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda.fake_driver import Card, Fake, there_is
from cuda.networks_on_cards import NET, TWO, array, counting, on_card, on_cpu, put

import convdsl
from convdsl.diagnostics import DeviceError, InputError
from convdsl.runtime.cuda import rerun
from convdsl.training.session import Session
from convdsl.training.settings import complete


def test_too_little_memory_is_told_with_the_plan(fake: Fake) -> None:
    net = on_card(NET)
    fake.card.memory = fake.card.used + 6000
    with pytest.raises(DeviceError) as caught:
        net(array(4, 3, 32, 32))
    said = str(caught.value)
    assert "cuda:0 has too little memory: the network takes" in said
    assert "weights 0.0 MB" in said
    assert "scratch memory 0." in said
    assert "help: a smaller batch" in said
    fake.card.memory = 1 << 30
    assert net(array(1, 3, 8, 8)).shape == (1, 5)


STEP = """
model counting {
    input x: f32[N, 3, 8, 8]
    x -> conv(4, 3x3) -> bn -> relu -> avg_pool(global) as pooled -> flatten -> linear(5)
      -> output y
}
"""


def another_process(fake: Fake, patch: pytest.MonkeyPatch) -> list[str]:
    """Where a call is run again: on a card that is as faulty, and has lost nothing. What was kept
    there, call by call."""
    kept: list[str] = []

    def answer(folder: str) -> dict[str, Any]:
        kept.append(" ".join(sorted(path.name for path in Path(folder).iterdir())))
        with there_is(Card(broken=fake.card.broken)):
            return json.loads(rerun.main(folder))

    patch.setattr(rerun, "answer", answer)
    return kept


def test_a_call_that_failed_is_run_again(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its process has lost the card: in another one, from what the host holds."""
    kept = another_process(fake, monkeypatch)
    net, x = on_card(NET), array(1, 3, 8, 8)
    net(x)
    name = next(e.split()[1] for e in fake.card.events if "launch" in e and "pool" in e)
    fake.card.broken[name] = "cudaErrorIllegalAddress: an illegal memory access"
    with pytest.raises(DeviceError, match=rf"at pooled.*kernel {name}, .*IllegalAddr.*\n.*again"):
        net(x)
    assert kept == ["binary facts.json input0.npy weights.npy"]
    monkeypatch.setenv("CONVDSL_CUDA_CHECK", "0")
    fake.card.lost = ""
    with pytest.raises(DeviceError, match="has failed: cudaErrorIllegal"):
        net(x)
    assert len(kept) == 1


def test_a_call_that_does_not_fail_again(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own error is told."""
    net, x = on_card(NET), array(1, 3, 8, 8)
    net(x)
    monkeypatch.setattr(rerun, "answer", lambda folder: {"number": None, "error": ""})
    fake.card.lost = "cudaErrorHardwareStackError"
    with pytest.raises(DeviceError, match="has failed: cudaErrorHardwareStackError\nhelp"):
        net(x)


@pytest.mark.dear
def test_what_the_card_refuses_is_named(fake: Fake) -> None:
    """Nothing is lost: the call is run again where it is, on copies of the states."""
    model = convdsl.parse(STEP)

    def begun() -> Session:
        return Session(model, complete(model), "random:0", device="cuda", cache=False)

    random = np.random.default_rng(0)
    x = random.standard_normal((4, 3, 8, 8)).astype(np.float32)
    given = {"x": x, "label": random.integers(0, 5, 4)}
    plain = begun()
    plain.step(given, 0.1)
    name = next(e.split()[1] for e in fake.card.events if "launch" in e and "pool" in e)
    fake.card.broken[name] = "refused: too many resources requested for launch"
    session = begun()
    with pytest.raises(DeviceError, match=rf"kernel {name}.*refused: too many.*\n.*run.* again"):
        session.step(given, 0.1)
    fake.card.broken.clear()
    session.step(given, 0.1)
    expected = plain.states()
    for key, kept in session.states().items():
        np.testing.assert_array_equal(kept, expected[key], key)


@pytest.mark.dear
def test_a_failure_names_its_layer(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = on_card(NET), array(1, 3, 8, 8)
    net(x)
    name = next(e.split()[1] for e in fake.card.events if "launch" in e and "pool" in e)
    fake.card.broken[name] = "cudaErrorIllegalAddress: an illegal memory access"
    with pytest.raises(DeviceError, match="has failed: cudaErrorIllegal.*\n.*CONVDSL_CUDA_CHECK=1"):
        net(x)
    fake.card.lost = ""
    monkeypatch.setenv("CONVDSL_CUDA_CHECK", "1")
    with pytest.raises(DeviceError, match=rf"at pooled.*kernel {name}, launch \d+ of \d+, grid"):
        net(x)
    fake.card.lost, fake.card.broken[name] = "", "refused: too many threads"
    with pytest.raises(DeviceError, match="at pooled.*refused: too many threads"):
        net(x)
    fake.card.broken.clear()
    np.testing.assert_allclose(net(x), on_cpu(NET)(x), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (Card(driver=0), "there is no NVIDIA driver on this machine"),
        (Card(cards=0), "the NVIDIA driver finds no card"),
        (Card(arch="sm_61"), "Fake card is sm_61; cards from sm_75 on are served"),
    ],
)
def test_no_card(card: Card, said: str) -> None:
    with there_is(card), pytest.raises(InputError, match=said):
        on_card(NET)


def test_which_card(fake: Fake) -> None:
    fake.card.cards = 2
    net = on_card(TWO)
    assert convdsl.compile(convdsl.parse(TWO), "random:1", device="cuda:1").device == "cuda:1"
    with pytest.raises(InputError, match="there is no cuda:2; cards here are numbered 0 to 1"):
        convdsl.compile(convdsl.parse(TWO), "random:1", device="cuda:2")
    for name in ("gpu", "cuda:", "cuda:x", "cpu:1", "CUDA"):
        with pytest.raises(InputError, match="unknown device"):
            convdsl.compile(convdsl.parse(TWO), "random:1", device=name)
    with pytest.raises(InputError, match="code for target cpu does not run on device cuda"):
        convdsl.compile(convdsl.parse(TWO), "random:1", device="cuda", target="cpu")
    assert net.device == "cuda:0"


def test_a_card_that_another_process_has_to_itself(fake: Fake) -> None:
    """It is counted, and cannot be made current: by a call, by an input, for a state."""
    net, x = on_card(NET), array(1, 3, 8, 8)
    given = put(fake, x)
    counts = on_card(counting(), {"total": np.zeros(4, np.float32)})
    counts(np.zeros(4, np.float32))
    fake.card.taken = "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy"
    for does in (
        lambda: net(x),
        lambda: net(given),
        lambda: net.resident({"x": x}),
        lambda: counts.state["total"],
    ):
        with pytest.raises(DeviceError, match="cuda:0 has failed: cudaErrorDevicesUnavailable"):
            does()
    fake.card.taken = ""
    assert net(x).shape == (1, 5)


def test_too_little_memory_on_a_card_that_says_no_more(fake: Fake) -> None:
    """How much is free cannot be asked of a card that is lost."""
    net = on_card(NET)
    fake.card.memory, fake.card.lost = fake.card.used + 6000, "cudaErrorLaunchFailure"
    with pytest.raises(DeviceError, match="has too little memory: the network takes") as caught:
        net(array(4, 3, 32, 32))
    assert "free" not in str(caught.value)
