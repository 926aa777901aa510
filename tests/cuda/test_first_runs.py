"""What a first run on a card stumbles over: who waits for what is copied, several cards, memory
that runs out beside a call, drivers that are too old, processes that were forked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda.fake_driver import Card, Fake, Stream, there_is
from cuda.fake_driver import ndarray as card_array
from cuda.networks_on_cards import NET, TWO, array, counting, on_card, on_cpu, put

import convdsl
from convdsl.diagnostics import DeviceError, InputError


def test_uploads_are_there_for_every_stream(fake: Fake) -> None:
    """The driver may have read what it copies, and not yet written it."""
    net, x = on_card(NET), array(1, 3, 8, 8)
    with Stream(fake) as stream:
        y = net(put(fake, x))
        stream.synchronize()
    np.testing.assert_allclose(y.view, on_cpu(NET)(x), rtol=0, atol=2e-6)
    fake.null[0].waiting.clear()  # what nobody has waited for
    given = net.resident({"x": x})
    with Stream(fake) as stream:
        y = net(**given)
        stream.synchronize()
    np.testing.assert_allclose(y.view, on_cpu(NET)(x), rtol=0, atol=2e-6)


def test_the_first_call_of_all_is_in_a_callers_capture(fake: Fake) -> None:
    """Weights and states are uploaded beside the capture, not into it."""
    x, total = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
    net = on_card(counting(), {"total": total})
    net2 = on_card(TWO)
    a, b = array(3, 4), array(3, 4, seed=1)
    stream = Stream(fake)
    with stream:
        stream.begin_capture()
        y, found = net(put(fake, x)), net2(put(fake, a), put(fake, b))
        graph = stream.end_capture()
    for times in (1, 2):
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(y.view, 2 * (total + times * x))
    for name, expected in on_cpu(TWO)(a, b).items():
        np.testing.assert_allclose(found[name].view, expected, rtol=0, atol=2e-6)


def test_memory_that_is_pinned_is_the_callers_again_at_once(fake: Fake) -> None:
    """Beside an input on the card nobody waits, and the driver reads pinned memory late."""
    net, a, b = on_card(TWO), array(2, 4), array(2, 4, seed=1)
    expected = on_cpu(TWO)(a, b)
    pinned = a.copy()
    fake.card.pinned.append(pinned)
    found = net(a=pinned, b=put(fake, b))
    pinned[:] = np.nan
    fake.current[-1].synchronize()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].view, values, rtol=0, atol=2e-6)


def test_another_card_has_streams_and_memory_of_its_own(fake: Fake) -> None:
    fake.card.cards = 2
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    net = convdsl.compile(counting(), {"total": zeros}, device="cuda:1", cache=False)
    given = net.resident({"x": ones})
    y = net(**given)
    assert (given["x"].device.id, y.device.id) == (1, 1)
    net.wait(y)
    np.testing.assert_array_equal(y.view, 2 * ones)
    net.state["total"] = 3 * ones
    net.wait(y := net(**given))
    np.testing.assert_array_equal(y.view, 8 * ones)
    np.testing.assert_array_equal(net.state["total"], 4 * ones)
    with pytest.raises(InputError, match="`x` lies on cuda:0, the network runs on cuda:1"):
        net(put(fake, ones))


@pytest.mark.parametrize(
    "error", ["cudaErrorMemoryAllocation: out of memory", "CUDA_ERROR_OUT_OF_MEMORY: out of memory"]
)
def test_too_little_memory_for_the_driver_itself(fake: Fake, error: str) -> None:
    """For code and graphs: told as any other."""
    net, x = on_card(NET), array(1, 3, 8, 8)
    fake.card.refuses["cubin"] = error
    with pytest.raises(DeviceError, match="too little memory: the network takes .*out of memory"):
        net(x)
    del fake.card.refuses["cubin"]
    assert net(x).shape == (1, 5)


def test_too_little_memory_to_run_a_call_again(fake: Fake) -> None:
    """What failed first is told."""
    net, x = on_card(NET), array(1, 3, 8, 8)
    before = fake.card.used
    net(x)
    needed = fake.card.used - before
    name = next(e.split()[1] for e in fake.card.events if "launch" in e and "pool" in e)
    fake.card.broken[name] = "refused: too many resources requested"
    fake.card.memory = fake.card.used + needed
    net = on_card(NET)
    with pytest.raises(DeviceError, match="has failed: .*too many res.*\n.*CONVDSL_CUDA_CHECK=1"):
        net(x)


def test_too_little_memory_beside_calls(fake: Fake) -> None:
    """For inputs that are brought to the card, and for those that are brought in order there."""
    net, x = on_card(NET), array(2, 3, 32, 32)
    given = put(fake, x)
    turned = card_array(fake, x.shape, x.dtype, given.data.ptr)
    turned.view = turned.view[:, :, ::-1]
    fake.card.memory = fake.card.used + 6000
    with pytest.raises(DeviceError, match="cuda:0 has too little memory"):
        net.resident({"x": x})
    with pytest.raises(DeviceError, match="cuda:0 has too little memory"):
        net(turned)


def test_a_card_that_fails_beside_calls(fake: Fake) -> None:
    net = on_card(counting(), {"total": np.zeros(4, np.float32)})
    net(np.ones(4, np.float32))
    fake.card.lost = "cudaErrorIllegalAddress: an illegal memory access"
    for work in (
        lambda: net.state["total"],
        lambda: net.state.replace({"total": np.ones(4, np.float32)}),
        lambda: net.resident({"x": np.ones(4, np.float32)}),
        lambda: net.wait(None),
    ):
        with pytest.raises(DeviceError, match="cuda:0 has failed: cudaErrorIllegalAddress"):
            work()


@pytest.mark.parametrize(
    ("kind", "arch", "said"),
    [
        ("PTX", "sm_80", "load the code for sm_80: .*toolchain\nhelp: .*--arch sm_90a"),
        (
            "cubin",
            "sm_90",
            "load the code for sm_90: .*toolchain\nhelp: update the driver",
        ),
    ],
)
def test_code_that_the_driver_does_not_load(
    tmp_path: Path, fake: Fake, kind: str, arch: str, said: str
) -> None:
    path = tmp_path / "net.cdsl"
    model = convdsl.parse(TWO)
    convdsl.compile(model, "random:1", target="cuda", arch=arch, cache=False).save(path, N=2)
    fake.card.refuses[kind] = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION: an unsupported toolchain"
    with pytest.raises(DeviceError, match=said):
        convdsl.load_executable(path)(array(2, 4), array(2, 4))


@pytest.mark.parametrize(
    ("card", "visible", "said"),
    [
        (
            Card(driver=12020, trouble="cudaErrorInsufficientDriver: CUDA driver version is"),
            None,
            "help: the driver serves CUDA 12.2, CuPy here asks for more: update the driver",
        ),
        (Card(trouble="cudaErrorInitializationError: initialization error"), None, "forked.*spawn"),
        (Card(trouble="cudaErrorNoDevice: none"), "-1", "help: CUDA_VISIBLE_DEVICES is `-1`"),
    ],
)
def test_what_keeps_a_card_away(
    card: Card, visible: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with there_is(card), pytest.raises(InputError, match=said):
        on_card(NET)
