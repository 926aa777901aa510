"""Training and the command line on a card that is not there, against the processor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cuda.fake_driver import Fake

import convdsl
from convdsl.cli import main
from convdsl.diagnostics import InputError
from convdsl.training.session import Session
from convdsl.training.settings import complete

pytestmark = pytest.mark.ladder(share=6)  # seconds each

NET = """
model small {
    input image: f32[N, 1, 8, 8]
    image -> conv(4, 3x3) -> bn -> relu -> max_pool(2x2) -> conv(6, 3x3) -> relu
      -> avg_pool(global) -> flatten -> dropout(0.2) -> linear(3) -> output logits
}
train {
    optimizer = sgd(lr = 0.1, momentum = 0.9)
    epochs = 2
    batch = 8
}
"""


def batches(count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        {
            "image": random.standard_normal((8, 1, 8, 8)).astype(np.float32),
            "label": random.integers(0, 3, 8),
        }
        for _ in range(count)
    ]


def session(device: str, **more: str) -> Session:
    model = convdsl.parse(NET)
    return Session(model, complete(model), "random:3", device=device, cache=False, **more)


@pytest.mark.dear
def test_steps_are_those_of_the_processor(fake: Fake) -> None:
    """The loss, every state after some steps, and the network as it is then."""
    card, plain = session("cuda"), session("cpu")
    for number, batch in enumerate(batches(4)):
        found, expected = card.step(batch, 0.1)["loss"], plain.step(batch, 0.1)["loss"]
        assert abs(float(found) - float(expected)) < 1e-5, number
    assert fake.card.count("captured") == 1
    states = plain.states()
    for key, array in card.states().items():
        np.testing.assert_allclose(array, states[key], rtol=0, atol=2e-5, err_msg=key)
    x = batches(1)[0]["image"]
    np.testing.assert_allclose(card.network()(x), plain.network()(x), rtol=0, atol=5e-5)


def test_only_the_loss_comes_back(fake: Fake) -> None:
    card = session("cuda")
    card.step(batches(1)[0], 0.1)
    before = len(fake.card.events)
    card.step(batches(1)[0], 0.1)
    done = fake.card.events[before:]
    assert [event for event in done if event.startswith("get")] == ["get 4"]
    assert sum(event.startswith("set") for event in done) == 3  # images, labels, the rate


@pytest.mark.dear
def test_checkpoints_are_of_either_device(fake: Fake) -> None:
    first, second = batches(2)
    card, plain = session("cuda"), session("cpu")
    card.step(first, 0.1)
    plain.restore(card.states())
    found = plain.step(second, 0.1)["loss"]
    again = session("cuda")
    again.restore(card.states())
    assert abs(float(again.step(second, 0.1)["loss"]) - float(found)) < 1e-5
    assert again.steps == plain.steps == 2


@pytest.mark.dear
@pytest.mark.drawn(share=2)
@pytest.mark.parametrize("amp", ["float16", "bfloat16"])
def test_mixed_precision_is_near(fake: Fake, amp: str) -> None:
    """Products of halves; weights, sums and statistics stay f32."""
    card, plain = session("cuda", amp=amp), session("cpu")
    for number, batch in enumerate(batches(3)):
        found, expected = card.step(batch, 0.1)["loss"], plain.step(batch, 0.1)["loss"]
        assert abs(float(found) - float(expected)) < 2e-2, number
    states = card.states()
    assert ("optimizer.scale" in states) == (amp == "float16")
    assert {a.dtype.name for a in states.values()} == {"float32", "int64"}
    for key, array in plain.states().items():
        np.testing.assert_allclose(states[key], array, rtol=0, atol=3e-2, err_msg=key)


def test_gradients_that_float16_alone_would_lose(fake: Fake) -> None:
    """A network that is nearly sure: what it sends back is less than the least f16, 6e-8."""
    moved = {}
    for how in ({"amp": "float16"}, {"precision": "float16"}):
        card = session("cuda", **how)
        states = card.states()
        last = max(key for key in states if key.startswith("linear") and key.endswith("bias"))
        states[last] = np.array([20.0, 0.0, 0.0], np.float32)
        card.restore(states)
        batch = batches(1)[0] | {"label": np.zeros(8, np.int64)}
        card.step(batch, 1e6)
        key = next(key for key in states if key.startswith("conv_2") and key.endswith("weight"))
        moved[next(iter(how))] = bool(np.any(card.states()[key] != states[key]))
    assert moved == {"amp": True, "precision": False}


@pytest.mark.dear
def test_runs_go_on_with_and_without_loss_scaling(fake: Fake) -> None:
    first, second = batches(2)
    scaled, plain = session("cuda", amp="float16"), session("cpu")
    scaled.step(first, 0.1)
    plain.restore(scaled.states())
    plain.step(second, 0.1)
    scaled.restore(plain.states())
    assert scaled.steps == 2
    assert float(scaled.states()["optimizer.scale"]) == 2.0**16


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("small.cnn").write_text(NET)
    random = np.random.default_rng(1)
    images = random.standard_normal((40, 1, 8, 8)).astype(np.float32)
    labels = random.integers(0, 3, 40)
    np.savez("data.npz", x=images, y=labels)
    return tmp_path


@pytest.mark.dear
def test_train_eval_and_resume(folder: Path, fake: Fake, capsys: pytest.CaptureFixture) -> None:
    said = ["small.cnn", "--data", "data.npz"]
    assert main(["train", *said, "--out", "run", "--device", "cuda"]) == 0
    lines = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert main(["train", *said, "--out", "plain"]) == 0
    plain = [json.loads(line) for line in Path("plain/log.jsonl").read_text().splitlines()]
    for card, processor in zip(lines, plain, strict=True):
        assert abs(card["train_loss"] - processor["train_loss"]) < 1e-4
    mixed = ["--out", "mixed", "--amp", "float16"]
    assert main(["train", *said, *mixed, "--device", "cuda"]) == 0
    halves = [json.loads(line) for line in Path("mixed/log.jsonl").read_text().splitlines()]
    assert abs(halves[-1]["train_loss"] - plain[-1]["train_loss"]) < 2e-2
    assert main(["train", *said, *mixed, "--overwrite"]) == 2
    more = ["--out", "run", "--resume", "--set", "train.epochs=3"]
    assert main(["train", *said, *more]) == 0
    capsys.readouterr()
    weights = ["--weights", "run/weights.safetensors", "--format", "json"]
    assert main(["eval", *said, *weights, "--device", "cuda"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["eval", *said, *weights]) == 0
    assert abs(found["loss"] - json.loads(capsys.readouterr().out)["loss"]) < 1e-4


@pytest.mark.dear
def test_run_bench_and_compile(folder: Path, fake: Fake, capsys: pytest.CaptureFixture) -> None:
    shared = ["small.cnn", "--weights", "random:0"]
    np.save("x.npy", batches(1)[0]["image"])
    assert main(["run", *shared, "--data", "x.npy", "-o", "card.npy", "--device", "cuda"]) == 0
    assert main(["run", *shared, "--data", "x.npy", "-o", "plain.npy"]) == 0
    np.testing.assert_allclose(np.load("card.npy"), np.load("plain.npy"), rtol=0, atol=1e-5)
    made = ["compile", *shared, "--batch", "8", "--target", "cuda", "-o", "net.cdsl"]
    assert main(made) == 0
    assert "code for sm_90 (H100) and later cards" in capsys.readouterr().err
    assert main(["run", "net.cdsl", "--data", "x.npy", "-o", "again.npy"]) == 0
    np.testing.assert_array_equal(np.load("again.npy"), np.load("card.npy"))
    bench = ["bench", "small.cnn", "--device", "cuda", "--runs", "2", "--format", "json"]
    assert main(bench) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["device"] == "cuda:0"
    for wrong, said in (
        (["run", "net.cdsl", "--data", "x.npy", "--device", "cpu"], "is compiled for cuda"),
        (["compile", *shared, "--target", "cuda", "--explain"], "--explain is of processors"),
        (["compile", *shared, "--target", "cuda", "--cpu", "x86-64-v3"], "arch says which card"),
        (["compile", *shared, "--arch", "sm_80"], "arch sm_80 says which card"),
        (["run", *shared, "--data", "x.npy", "--precision", "high"], "highest"),
        (["run", *shared, "--data", "x.npy", "--device", "tpu"], "unknown device `tpu`"),
    ):
        assert main(wrong) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")


def test_doctor_tells_of_cards(folder: Path, fake: Fake, capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "--format", "json"]) == 0, capsys.readouterr().err
    told = {row["what"]: row["value"] for row in json.loads(capsys.readouterr().out)}
    assert told["card cuda:0"] == "Fake card, sm_90, 1.1 GB"


@pytest.mark.dear
def test_a_batch_that_lies_on_the_card(fake: Fake) -> None:
    """Nothing is uploaded but the rate; the loss stays there."""
    card, plain = session("cuda"), session("cpu")
    (batch, other) = batches(2)
    given = card.resident(batch)
    found = card.step(given, 0.1)["loss"]
    assert not isinstance(found, np.ndarray)
    assert abs(float(found.get()) - float(plain.step(batch, 0.1)["loss"])) < 1e-5
    before = len(fake.card.events)
    card.step(given, 0.1)
    done = fake.card.events[before:]
    assert sum(event.startswith("set") for event in done) == 1
    assert not [event for event in done if event.startswith("get")]
    mixed = {"image": given["image"], "label": other["label"]}
    assert np.isfinite(float(card.step(mixed, 0.1)["loss"].get()))
    with pytest.raises(InputError, match="label"):
        card.step(mixed | {"label": np.full(8, 7)}, 0.1)
    with pytest.raises(InputError, match="`image` is a list"):
        card.step(batch | {"image": [1.0]}, 0.1)
