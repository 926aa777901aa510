"""Launch glue: networks on a card that is not there, whose launches run the CUDA source."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from cuda.fake_driver import Fake, Stream
from cuda.fake_driver import ndarray as card_array
from cuda.networks_on_cards import NET, TWO, array, counting, on_card, on_cpu, put

from convdsl.diagnostics import InputError


@pytest.mark.dear
def test_numpy_in_numpy_out(fake: Fake) -> None:
    net, plain = on_card(NET), on_cpu(NET)
    assert net.device == "cuda:0"
    for shape in ((1, 3, 8, 8), (2, 3, 9, 7), (1, 3, 8, 8)):
        x = array(*shape, seed=shape[2])
        kept = x.copy()
        y = net(x)
        assert type(y) is np.ndarray
        np.testing.assert_allclose(y, plain(x), rtol=0, atol=2e-6)
        assert np.array_equal(x, kept)
    assert net(x[:, :, ::1]).shape == (1, 5)
    np.testing.assert_allclose(net(x[:, :, ::-1]), plain(x[:, :, ::-1]), rtol=0, atol=2e-6)


def test_weights_and_code_are_uploaded_once_and_launches_captured_once(fake: Fake) -> None:
    net = on_card(NET)
    for seed in range(4):
        net(array(1, 3, 8, 8, seed=seed))
    assert fake.card.count("module") == fake.card.count("upload") == 1
    assert fake.card.count("captured") == 1
    assert fake.card.count("graph") == 4
    launches = fake.card.count("launch")
    net(array(1, 3, 8, 8))
    assert fake.card.count("launch") == launches


@pytest.mark.dear(share=4)
def test_arrays_on_the_card_stay_there_and_nobody_waits(fake: Fake) -> None:
    net, plain = on_card(NET), on_cpu(NET)
    x = array(2, 3, 8, 8)
    stream = Stream(fake)
    with stream:
        y = net(put(fake, x))
        z = net(put(fake, -x))
    assert isinstance(y, card_array)
    assert fake.card.count("get") == 0
    assert np.isnan(y.view).all()  # not computed yet
    assert stream.waiting
    assert not fake.current[0].waiting, "something went into another stream"
    stream.synchronize()
    np.testing.assert_allclose(y.view, plain(x), rtol=0, atol=2e-6)
    np.testing.assert_allclose(z.view, plain(-x), rtol=0, atol=2e-6)
    assert y.data.ptr != z.data.ptr, "outputs are the caller's own"


def test_a_callers_capture(fake: Fake) -> None:
    """Launched kernel by kernel into the caller's graph, on memory of its own."""
    net, plain, x = on_card(NET), on_cpu(NET), array(1, 3, 8, 8)
    net(x)
    given = put(fake, x)
    stream = Stream(fake)
    with stream:
        stream.begin_capture()
        y = net(given)
        with pytest.raises(InputError, match="inputs and outputs are on the card"):
            net(x)
        graph = stream.end_capture()
    for seed in range(3):
        given.view[...] = array(1, 3, 8, 8, seed=seed)
        graph.launch(stream)
        net(array(1, 3, 8, 8, seed=9))  # does not touch what the graph works on
        stream.synchronize()
        np.testing.assert_allclose(y.view, plain(given.view.copy()), rtol=0, atol=2e-6)


@pytest.mark.dear(share=4)
def test_many_threads_and_streams(fake: Fake) -> None:
    net, plain = on_card(NET), on_cpu(NET)
    expected = {seed: plain(array(1, 3, 8, 8, seed=seed)) for seed in range(8)}
    wrong: list[int] = []

    def work(seed: int) -> None:
        stream = Stream(fake) if seed % 2 else fake.current[0]
        given = put(fake, array(1, 3, 8, 8, seed=seed))
        for _ in range(3):
            y = CALLS(net, stream, given)
            if not np.allclose(y, expected[seed], rtol=0, atol=2e-6):
                wrong.append(seed)

    guard = threading.Lock()

    def CALLS(net, stream, given):
        with guard, stream:
            y = net(given)
            stream.synchronize()
        return y.view.copy()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_states_live_on_the_card(fake: Fake) -> None:
    net, x = on_card(counting(), {"total": np.zeros(4, np.float32)}), np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(net(x), 2 * x)
    np.testing.assert_array_equal(net(x), 4 * x)
    np.testing.assert_array_equal(net.state["total"], 2 * x)
    net.state["total"] = np.ones(4, np.float32)
    given = put(fake, x)
    first, second = Stream(fake), Stream(fake)
    with first:
        net(given)
    with second:
        y = net(given)
    second.synchronize()
    np.testing.assert_array_equal(y.view, 2 * (1 + 2 * x))
    np.testing.assert_array_equal(net.state.copy()["total"], 1 + 2 * x)


def test_a_callers_capture_keeps_the_copies_of_its_inputs(fake: Fake) -> None:
    """Of those that begin between sixteen bytes, and of those whose rows lie apart: the graph reads
    and writes them for as long as it is launched."""
    net, plain = on_card(TWO), on_cpu(TWO)
    net(array(2, 4), array(2, 4))
    whole, apart = put(fake, np.zeros(16, np.float32)), put(fake, array(4, 4))
    moved = card_array(fake, (2, 4), np.float32, whole.data.ptr + 4)
    rows = card_array(fake, (2, 4), np.float32, apart.data.ptr, (32, 4))
    with Stream(fake) as stream:
        stream.begin_capture()
        found = net(moved, rows)
        graph = stream.end_capture()
        for seed in range(2):
            moved.view[...] = array(2, 4, seed=seed)
            graph.launch(stream)
            stream.synchronize()
            for name, values in plain(moved.view.copy(), rows.view.copy()).items():
                np.testing.assert_allclose(found[name].view, values, rtol=0, atol=2e-6)


@pytest.mark.parametrize("what", [NET, TWO])
def test_networks_may_go_before_their_calls_are_through(fake: Fake, what: str) -> None:
    """Their memory is the pool's again in the order of the stream that it was allocated on, while
    calls on others may not have read it."""
    net, plain = on_card(what), on_cpu(what)
    given = [array(1, 3, 8, 8)] if what is NET else [array(2, 4), array(2, 4, seed=1)]
    net(*given)
    held = [put(fake, x) for x in given]
    streams = [Stream(fake) for _ in range(6)]  # more than scratch memory is kept for
    found = []
    for stream in streams:
        with stream:
            found.append(net(*held))
    del net
    gc.collect()
    fake.current[-1].synchronize()
    expected = plain(*given)
    for stream, each in zip(streams, found, strict=True):
        stream.synchronize()
        for name, values in (expected if what is TWO else {"y": expected}).items():
            y = each[name] if what is TWO else each
            np.testing.assert_allclose(y.view, values, rtol=0, atol=2e-6)


def test_states_may_go_before_their_calls_are_through(fake: Fake) -> None:
    net, x = on_card(counting(), {"total": np.zeros(4, np.float32)}), np.arange(4, dtype=np.float32)
    net(x)
    given = put(fake, x)
    with Stream(fake) as stream:
        y = net(given)
    del net
    gc.collect()
    fake.current[-1].synchronize()
    stream.synchronize()
    np.testing.assert_array_equal(y.view, 4 * x)
