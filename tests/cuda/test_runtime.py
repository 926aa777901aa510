"""Launch glue: networks on a card that is not there, whose launches run the CUDA source."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda.fake_driver import Card, Fake, Stream, there_is
from cuda.fake_driver import ndarray as card_array
from graphs import Builder

import convdsl
from convdsl.diagnostics import ArtifactError, DeviceError, InputError
from convdsl.ir.model import Model
from convdsl.runtime.cuda import rerun
from convdsl.training.session import Session
from convdsl.training.settings import complete

NET = """
model net {
    input x: f32[N, 3, H, W]
    a = x -> conv(8, 3x3) -> relu
    b = a -> conv(8, 3x3) -> bn
    a + b -> relu -> max_pool(2x2) as pooled -> avg_pool(global) -> flatten
      -> linear(5) -> softmax -> output y
}
"""
TWO = """
model two {
    input a: f32[N, 4]
    input b: f32[N, 4]
    output sum = a + b -> relu -> linear(3) -> tanh -> linear(4) -> tanh
    output product = a * b -> linear(4)
}
"""


def counting() -> Model:
    """total <- total + x; y = 2 (total + x)."""
    b = Builder()
    x, total = b.input("x", 4), b.parameter("total", 4)
    after = b("add", total, x, name="after")
    b.update(total, after)
    return Model("counts", b.output(y=b("mul", after, b.constant("two", 2.0))))


@pytest.fixture
def fake() -> Iterator[Fake]:
    with there_is(Card()) as fake:
        yield fake


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def put(fake: Fake, values: np.ndarray) -> card_array:
    made = card_array(fake, values.shape, values.dtype)
    made.view[...] = values
    return made


def on_card(what: str | Model, weights: Any = "random:1") -> convdsl.Executable:
    model = convdsl.parse(what) if isinstance(what, str) else what
    return convdsl.compile(model, weights, device="cuda", cache=False)


def on_cpu(text: str) -> convdsl.Executable:
    return convdsl.compile(convdsl.parse(text), "random:1", cache=False)


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


class Interface:
    """What says where it lies by `__cuda_array_interface__`."""

    def __init__(self, array: card_array) -> None:
        self.__cuda_array_interface__ = array.__cuda_array_interface__


class DLPack:
    """What is exchanged by DLPack."""

    def __init__(self, shared: card_array) -> None:
        self.shared = shared
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: int) -> object:
        self.streams.append(stream)
        return self


class OnHost:
    """A tensor in the host's memory, as PyTorch hands it over."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **how: object) -> object:
        return self.array.__dlpack__(**how)


@pytest.mark.dear(share=4)
def test_who_says_where_it_lies(fake: Fake) -> None:
    net, x = on_card(NET), array(1, 3, 8, 8)
    expected = on_cpu(NET)(x)
    kept = put(fake, x)
    for given in (Interface(kept), DLPack(kept)):
        y = net(given)
        assert isinstance(y, card_array)
        fake.current[-1].synchronize()
        np.testing.assert_allclose(y.view, expected, rtol=0, atol=2e-6)
    assert given.streams == [0]
    y = net(OnHost(x))
    assert type(y) is np.ndarray
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6)


def test_several_inputs_of_both_kinds(fake: Fake) -> None:
    net, a, b = on_card(TWO), array(2, 4), array(2, 4, seed=1)
    expected = on_cpu(TWO)(a, b)
    found = net(b=put(fake, b), a=a)
    fake.current[-1].synchronize()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].view, values, rtol=0, atol=2e-6)


def test_a_view_that_begins_anywhere(fake: Fake) -> None:
    """Kernels read sixteen bytes at once: an input that begins between is copied."""
    text = "model one {\n    input x: f32[N, 4]\n    x -> relu -> output y\n}"
    net, x = on_card(text), array(3, 4)
    whole = put(fake, np.zeros(16, np.float32))
    moved = card_array(fake, (3, 4), np.float32, whole.data.ptr + 4)
    moved.view[...] = x
    y = net(moved)
    fake.current[-1].synchronize()
    np.testing.assert_array_equal(y.view, np.maximum(x, 0))
    assert fake.card.count("copy") == 1
    net(put(fake, x))
    assert fake.card.count("copy") == 1


def test_what_is_no_array(fake: Fake) -> None:
    net = on_card(NET)
    with pytest.raises(InputError, match="input `x` is a list: NumPy arrays are taken"):
        net([1.0])
    with pytest.raises(InputError, match="is float64, the model takes float32"):
        net(np.zeros((1, 3, 8, 8)))
    with pytest.raises(InputError, match="expected f32"):
        net(put(fake, array(3, 8, 8)))


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
    for key, array in session.states().items():
        np.testing.assert_array_equal(array, expected[key], key)


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


def test_code_without_a_card_is_saved_and_not_run(tmp_path: Path) -> None:
    with there_is(Card(driver=0)):
        net = convdsl.compile(
            convdsl.parse(NET), "random:1", target="cuda", arch="sm_80", cache=False
        )
        net.save(tmp_path / "net.cdsl", N=1, H=8, W=8)
        with pytest.raises(InputError, match="there is no NVIDIA driver"):
            net(array(1, 3, 8, 8))
        with pytest.raises(InputError, match="there is no NVIDIA driver"):
            convdsl.load_executable(tmp_path / "net.cdsl")


@pytest.mark.dear
@pytest.mark.parametrize(
    ("arch", "loaded"),
    [("sm_80", "module sm_80"), ("sm_86", "module sm_80"), ("sm_90", "module PTX")],
)
def test_artifacts(tmp_path: Path, arch: str, loaded: str) -> None:
    """They run on cards of their generation and later ones, and nothing is compiled for it."""
    path, x = tmp_path / "net.cdsl", array(1, 3, 8, 8)
    with there_is(Card()):
        net = convdsl.compile(
            convdsl.parse(NET), "random:1", target="cuda", arch="sm_80", cache=False
        )
        net.save(path, N=1, H=8, W=8)
    with there_is(Card(arch=arch)) as fake, pytest.MonkeyPatch.context() as patch:
        patch.delattr("convdsl.backends.cuda.nvrtc.compile_source")
        again = convdsl.load_executable(path)
        assert again.device == "cuda:0"
        np.testing.assert_allclose(again(x), on_cpu(NET)(x), rtol=0, atol=2e-6)
        assert fake.card.count(loaded) == 1
        again.save(tmp_path / "copy.cdsl")
    assert (tmp_path / "copy.cdsl").read_bytes() == path.read_bytes()
    older = pytest.raises(InputError, match="is made for sm_80; Fake card here is sm_75")
    with there_is(Card(arch="sm_75")), older:
        convdsl.load_executable(path)
    with pytest.raises(InputError, match="is compiled for cuda: it does not run on cpu"):
        convdsl.load_executable(path, device="cpu")


@pytest.mark.dear(share=4)
def test_artifacts_for_one_capability(tmp_path: Path) -> None:
    """Code for sm_90a runs on cards of 9.0 and on no later one: it holds no PTX for these."""
    path, x = tmp_path / "net.cdsl", array(1, 3, 8, 8)
    with there_is(Card(arch="sm_90")) as fake:
        net = convdsl.compile(convdsl.parse(NET), "random:1", device="cuda", cache=False)
        net.save(path, N=1, H=8, W=8)
        np.testing.assert_allclose(net(x), on_cpu(NET)(x), rtol=0, atol=2e-6)
        assert fake.card.count("module sm_90a") == 1
    with there_is(Card(arch="sm_90")):
        convdsl.load_executable(path)(x)
    said = "is made for sm_90a, and runs on cards of sm_90 alone; Fake card here is sm_100"
    with there_is(Card(arch="sm_100")), pytest.raises(InputError, match=said):
        convdsl.load_executable(path)
    assert b".version" not in path.read_bytes()


@pytest.mark.dear
def test_artifacts_for_several_sizes(tmp_path: Path, fake: Fake) -> None:
    path = tmp_path / "net.cdsl"
    convdsl.compile(convdsl.parse(NET), "random:1", target="cuda", arch="sm_80").save(
        path, N=(1, 3), H=8, W=8
    )
    again = convdsl.load_executable(path)
    for batch in (3, 1):
        x = array(batch, 3, 8, 8)
        np.testing.assert_allclose(again(x), on_cpu(NET)(x), rtol=0, atol=2e-6)
    with pytest.raises(InputError, match="there is no code for N = 2"):
        again(array(2, 3, 8, 8))


def test_states_in_artifacts(tmp_path: Path, fake: Fake) -> None:
    net, x = on_card(counting(), {"total": np.zeros(4, np.float32)}), np.arange(4, dtype=np.float32)
    net(x)
    net.save(tmp_path / "counts.cdsl")
    again = convdsl.load_executable(tmp_path / "counts.cdsl")
    np.testing.assert_array_equal(again(x), 4 * x)
    np.testing.assert_array_equal(net(x), 4 * x)


@pytest.mark.dear(share=4)
def test_damaged_artifacts(tmp_path: Path, fake: Fake) -> None:
    """Code that stands beside another program's manifest is never loaded."""
    from convdsl.runtime import artifact

    first, second = tmp_path / "a.cdsl", tmp_path / "b.cdsl"
    on_card(NET).save(first, H=8, W=8)
    on_card(NET).save(second, H=9, W=9)
    manifest, sections = artifact.read(first)
    _, others = artifact.read(second)
    for changes in (
        {"sections": {"object": others["object"]}},
        {"manifest": {"arena_bytes": manifest["arena_bytes"] + 256}},
        {"manifest": {"target": {"arch": "sm_80", "precision": "highest"}}},
        {"manifest": {"target": {"arch": "sm_9000", "precision": "highest"}}},
        {"manifest": {"kind": "cpu"}},
        {"manifest": {"kind": "tpu"}},
        {"sections": {"object": sections["object"][:100]}},
    ):
        said, held = dict(manifest), dict(sections)
        said |= changes.get("manifest", {})
        held |= changes.get("sections", {})
        artifact.write(tmp_path / "bad.cdsl", held, said)
        with pytest.raises((ArtifactError, InputError)):
            convdsl.load_executable(tmp_path / "bad.cdsl")


@pytest.mark.dear
def test_the_code_cache_is_by_architecture_and_precision(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[str] = []
    from cuda import fake_driver

    def counting(source: str, arch: str):
        made.append(arch)
        return fake_driver.compile_source(source, arch)

    monkeypatch.setattr("convdsl.backends.cuda.nvrtc.compile_source", counting)
    for how in (
        *({"arch": "sm_80"},) * 2,
        *({"arch": "sm_90"},) * 2,
        *({"arch": "sm_90", "precision": "medium"},) * 2,
    ):
        net = convdsl.compile(
            convdsl.parse(NET), "random:1", target="cuda", inputs=(3, 8, 8), **how
        )
    assert made == ["sm_80", "sm_90", "sm_90"]
    np.testing.assert_allclose(
        net(array(1, 3, 8, 8)), on_cpu(NET)(array(1, 3, 8, 8)), rtol=0, atol=1e-2
    )
