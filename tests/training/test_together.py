"""Steps and runs of several ranks are those of one with the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from losses import draw_case
from ranks import Meeting, Rank, together

import convdsl
from convdsl.compilation import Plan
from convdsl.diagnostics import InputError
from convdsl.ir.training import Choice, Loss, Training
from convdsl.kernel.program import format_program
from convdsl.ranks import Ranks
from convdsl.toolchain import find_toolchain
from convdsl.training.checkpoint import read_checkpoint
from convdsl.training.data.parts import Part
from convdsl.training.fit import Trained, prepare, train
from convdsl.training.losses import COMPARING, LOSSES
from convdsl.training.session import Session
from convdsl.training.settings import complete
from convdsl.training.step import training_step

Array = np.ndarray[Any, Any]

# Biases before batch normalisation have no gradient but rounding, which optimisers enlarge.
NET = """
model net {
    input image: f32[N, 2, 8, 6]
    a = image -> conv(8, 3x3, bias = false) -> bn as first -> relu -> dropout(0.3)
    a -> conv(6, 3x3, stride = 2, bias = false) -> bn(affine = false) -> relu -> flatten
      -> linear(3) -> output logits
}
"""
F64 = NET.replace("f32", "f64")


def batches(count: int, whole: int, dtype: str = "f4") -> list[dict[str, Array]]:
    draw = np.random.default_rng(whole)
    shape = (whole, 2, 8, 6)
    return [
        {
            "image": (3 + draw.standard_normal(shape)).astype(dtype),
            "label": draw.integers(0, 3, whole),
        }
        for _ in range(count)
    ]


def part_of(batch: Mapping[str, Array], rank: Ranks) -> dict[str, Array]:
    part = Part.of(len(next(iter(batch.values()))), rank.rank, rank.size)
    return {name: a[part.first : part.first + part.count] for name, a in batch.items()}


def steps(
    model: Any, training: Training, data: list[dict[str, Array]], size: int, rate: float = 0.1
) -> tuple[list[float], dict[str, Array]]:
    """Losses, and all states afterwards, which are the same bits on all ranks."""

    def work(rank: Rank) -> tuple[list[float], dict[str, Array]]:
        session = Session(model, training, "random:0", threads=1, ranks=rank)
        whole = len(next(iter(data[0].values())))
        losses = [float(session.step(part_of(b, rank), rate, whole)["loss"]) for b in data]
        return losses, session.states()

    found = together(size, work)
    for losses, states in found[1:]:
        assert losses == found[0][0]
        assert all(np.array_equal(a, found[0][1][key]) for key, a in states.items())
    return found[0]


def check_alike(some: Mapping[str, Array], others: Mapping[str, Array], tolerance: float) -> None:
    """Equal to so much of the largest element of each."""
    assert some.keys() == others.keys()
    for key, one in some.items():
        largest = max(1e-3, float(np.abs(one).max(initial=0)))
        assert np.abs(one - others[key]).max(initial=0) <= tolerance * largest, key


def drawn(said: dict[str, Any]) -> Any:
    return pytest.param(said, marks=pytest.mark.drawn)


SETTINGS = [
    drawn({"optimizer": "sgd(momentum = 0.9)"}),
    {"optimizer": "sgd(lr = 0.1)", "clip": 0.05, "ema": 0.9},
    drawn({"optimizer": "sgd(momentum = 0.9)", "accumulate": 2, "l2": 0.01}),
    drawn({"optimizer": "adamw(weight_decay = 0.1)", "clip_value": 0.1, "l1": 0.001}),
    drawn({"loss": "cross_entropy(logits, label, ignore_index = 1, label_smoothing = 0.1)"}),
    drawn({"loss": "cross_entropy(logits, label, class_weights = [0.2, 1, 3])", "clip": 1}),
]


@pytest.mark.dear
@pytest.mark.parametrize("said", SETTINGS, ids=str)
def test_synchronised_steps_are_those_of_one_process(said: dict[str, Any]) -> None:
    """To 1e-5 of the largest element after three steps, with dropout, clipping, averages."""
    model = convdsl.parse(NET)
    training = complete(model, {"batch": 8, "sync_batch_norm": True, **said})
    data = batches(3, 8)
    losses, states = steps(model, training, data, 1)
    shared, same = steps(model, training, data, 2)
    np.testing.assert_allclose(shared, losses, rtol=1e-5)
    check_alike(states, same, 1e-5)


@pytest.mark.dear
def test_parts_may_differ_in_size() -> None:
    """Three ranks and seven samples, in double precision: to 1e-12."""
    model = convdsl.parse(F64)
    training = complete(model, {"batch": 7, "sync_batch_norm": True, "optimizer": "sgd(lr = 1)"})
    data = batches(2, 7, "f8")
    losses, states = steps(model, training, data, 1)
    shared, same = steps(model, training, data, 3)
    np.testing.assert_allclose(shared, losses, rtol=1e-12)
    check_alike(states, same, 1e-12)


@pytest.mark.dear
def test_statistics_are_each_rank_s_own_unless_synchronised() -> None:
    """Then a step is the mean of the ranks' steps: gradients, loss and running statistics."""
    model = convdsl.parse(NET.replace("dropout(0.3)", "identity()"))
    training = complete(model, {"batch": 8, "optimizer": "sgd(lr = 1)"})
    (batch,) = batches(1, 8)
    (loss,), states = steps(model, training, [batch], 2)
    halves = [{k: a[:4] for k, a in batch.items()}, {k: a[4:] for k, a in batch.items()}]
    apart = [steps(model, training, [half], 1) for half in halves]
    assert loss == pytest.approx(np.mean([losses for losses, _ in apart]), rel=1e-6)
    means = {k: np.mean([found[k] for _, found in apart], axis=0) for k in states}
    check_alike(means, states, 1e-5)
    whole = steps(model, training, [batch], 1)[1]
    key = "first.running_var"
    assert np.abs(whole[key] - states[key]).max() > 1e-3


@pytest.mark.dear
@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.drawn(share=20)
@pytest.mark.parametrize("seed", range(6))
def test_every_loss_is_that_of_the_whole_batch(name: str, seed: int) -> None:
    """Drawn arguments and targets: weights, ignored labels, sums and means, boxes without extent.
    The gradient goes to one weight for each element of the output."""
    case, number = draw_case(name, seed), 0
    while len(case.output) < 2:  # two ranks have a sample each
        number += 100
        case = draw_case(name, seed + number)
    builder, sizes = LOSSES[name], ", ".join(map(str, case.output.shape[1:]))
    model = convdsl.parse(
        f"model one {{\n    input x: f64[N, {sizes}]\n"
        f'    x + parameter([1, {sizes}], dtype = "f64", weight = zeros) -> output y\n}}\n'
    )
    mixes = case.target.dtype.kind == "f" and builder.shares is not None
    training = replace(
        complete(model, {"loss": "mse(y, target)", "optimizer": "sgd(lr = 1)"}),
        loss=(Loss(Choice(name, case.arguments), ("y", builder.usual)),),
        augment=(Choice("mixup"),) if mixes else (),  # whose labels are shares
    )
    data = [{"x": case.output, builder.usual: case.target}]
    (loss,), states = steps(model, training, data, 1, 1.0)
    (shared,), same = steps(model, training, data, 2, 1.0)
    np.testing.assert_allclose(shared, loss, rtol=1e-12, equal_nan=True)
    for key, array in states.items():
        np.testing.assert_allclose(same[key], array, rtol=1e-9, atol=1e-15, equal_nan=True)


def test_the_program_begins_sums_as_soon_as_it_can() -> None:
    """Of a network with 3 MB of weights in the last layers: they travel while the first ones'
    gradients are computed, and updates come last."""
    model = convdsl.parse(
        "model deep {\n    input x: f32[N, 64]\n    x -> linear(512) -> relu -> linear(512)"
        " -> relu -> linear(512) -> relu -> linear(512) -> relu -> linear(4) -> output y\n}\n"
    )
    step = training_step(model, complete(model, {"optimizer": "sgd()"}), shared=True)
    program = Plan(step.model, find_toolchain("cpu")).lower({"N": 8}).program
    gradients = [each for each in program.sums if each.bytes > 1 << 10]
    assert [round(each.bytes / 2**20, 1) for each in gradients] == [1.0, 1.0, 1.0, 0.1]
    begins = [each.begin for each in gradients]
    assert begins == sorted(set(begins)), "one behind the other"
    updates = [n for n, s in enumerate(program.steps) if s.nodes[0].endswith((".mul", ".cast"))]
    assert all(each.end >= gradients[-1].begin for each in gradients), "nobody waits before"
    assert min(n for n in updates if n > begins[0]) >= gradients[-1].begin
    assert gradients[-1].begin - begins[0] >= 9
    text = format_program(program)
    assert text.count("begin the sum over ranks") == len(program.sums)


@pytest.mark.dear
def test_sums_travel_while_gradients_are_computed() -> None:
    """Nobody waits for a sum of gradients before those of all layers are on their way."""
    model = convdsl.parse(
        "model deep {\n    input x: f32[N, 512]\n    x -> linear(512) -> relu -> linear(512)"
        " -> relu -> linear(512) -> relu -> linear(512) -> relu -> linear(4) -> output y\n}\n"
    )
    training = complete(model, {"optimizer": "sgd()", "batch": 8})
    data = {"x": np.ones((8, 512), "f4"), "label": np.zeros(8, np.int64)}
    meeting = Meeting(2)

    def work(rank: Rank) -> None:
        session = Session(model, training, "random:0", threads=1, ranks=rank)
        session.step(part_of(data, rank), 0.1, 8)

    together(2, work, meeting=meeting)
    for sizes, on_their_way in zip(meeting.sizes, meeting.on_their_way, strict=True):
        layers = [size for size in sizes if size >= 512 * 512]
        assert max(on_their_way) == len(layers) == 4
        assert on_their_way[-1] == 0


# Runs

SMALL = """
model small {
    input image: f32[N, 1, 8, 8]
    x = image -> conv(4, 3x3, bias = false) -> bn -> relu -> dropout(0.2)
    x -> flatten -> linear(3) -> output logits
}
train {
    loss = cross_entropy(logits, label)
    optimizer = adamw(lr = 0.01)
    augment = [random_crop(8, pad = 1), horizontal_flip, mixup(alpha = 0.4), cutmix(alpha = 1)]
    metrics = [accuracy, f1, confusion_matrix]
    sync_batch_norm = true
    epochs = 3
    batch = 8
}
"""


def samples(count: int) -> dict[str, Array]:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, count)
    x = draw.integers(0, 120, (count, 8, 8), dtype=np.uint8)
    for number, kind in enumerate(y):
        x[number, 3 * kind : 3 * kind + 2] += 100
    return {"x": x, "y": y}


def run(size: int, out: Path | None, **more: Any) -> list[Trained]:
    def work(rank: Rank) -> Trained:
        return train(convdsl.parse(SMALL), samples(50), out=out, threads=1, ranks=rank, **more)

    return together(size, work)


@pytest.mark.dear
@pytest.mark.parametrize("size", [2, 3])
def test_runs_are_those_of_one_process(tmp_path: Path, size: int) -> None:
    """Order, augmentation, mixing across parts, schedule, validation with a ragged last batch."""
    (alone,) = run(1, tmp_path / "one", val_fraction=0.38)
    found = run(size, tmp_path / "more", val_fraction=0.38)
    for trained in found:
        for one, more in zip(alone.history, trained.history, strict=True):
            assert one.keys() == more.keys()
            for name in ("train_loss", "val_loss", "val_accuracy", "val_f1"):
                assert more[name] == pytest.approx(one[name], rel=1e-4), name
            assert more["val_confusion_matrix"] == one["val_confusion_matrix"]
    kept = [read_checkpoint(tmp_path / name / "checkpoint") for name in ("one", "more")]
    assert kept[0].run == kept[1].run
    check_alike(kept[0].states, kept[1].states, 1e-3)  # Adam divides by what begins as rounding
    assert [trained.folder is None for trained in found] == [rank > 0 for rank in range(size)]


@pytest.mark.dear
def test_it_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    said = {"schedule": "constant"}  # whatever the last epoch is
    (whole,) = run(1, tmp_path / "whole", epochs=4, **said)
    run(3, tmp_path / "parts", epochs=1, **said)
    run(1, tmp_path / "parts", epochs=2, resume=True, **said)
    found = run(2, tmp_path / "parts", epochs=4, resume=True, **said)
    assert len(found[1].history) == 4
    kept = [read_checkpoint(tmp_path / name / "checkpoint") for name in ("whole", "parts")]
    assert kept[1].progress.epoch == 4
    for one, more in zip(whole.history, found[1].history, strict=True):
        assert more["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    check_alike(kept[0].states, kept[1].states, 1e-2)


@pytest.mark.dear
def test_a_loss_that_is_no_number_is_one_message(tmp_path: Path) -> None:
    """With the reason that only one rank can see."""
    x = np.random.default_rng(0).standard_normal((16, 1, 8, 8)).astype("f4")
    x[3] = np.nan
    text = SMALL.replace("random_crop(8, pad = 1), horizontal_flip, ", "")

    def work(rank: Rank) -> str:
        with pytest.raises(InputError, match="the loss is nan") as caught:
            train(
                convdsl.parse(text), {"x": x, "y": np.zeros(16, int)},
                ranks=rank, threads=1, val_fraction=0.0,
            )  # fmt: skip
        return str(caught.value)

    first, second = together(2, work)
    assert first == second
    assert "the data hold values in `image` that are no numbers" in first


def test_a_batch_has_a_sample_for_each() -> None:
    with pytest.raises(InputError, match="a batch of 2 has no sample for each of 3 processes"):
        run(3, None, batch=2)
    model, rank = convdsl.parse(NET), Rank(Meeting(2), 0)
    session = Session(model, complete(model), "random:0", threads=1, ranks=rank)
    (batch,) = batches(1, 3)
    with pytest.raises(InputError, match="rank 0 of 2 has 4 samples of a batch of 8, not 3"):
        session.step(batch, 0.1, 8)


@pytest.mark.parametrize("size", [1, 2])
def test_samples_that_see_each_other_are_told_of(size: int) -> None:
    model = convdsl.parse(NET)
    mixing = convdsl.parse(NET.replace("image -> conv(8", "image - mean(image, 0) -> conv(8"))
    said = "net may compare the samples of a batch with each other"
    for network, told in ((model, False), (mixing, size > 1)):
        rank = Rank(Meeting(size), 0)
        data = (batches(1, 8)[0]["image"], batches(1, 8)[0]["label"])
        notes = prepare(network, data, said={"batch": 4, "epochs": 1}, ranks=rank).notes
        assert any(note.startswith(said) for note in notes) == told


@pytest.mark.parametrize("whole", [1, 2, 7, 64])
def test_parts_are_the_batch(whole: int) -> None:
    for ranks in range(1, whole + 1):
        parts = [Part.of(whole, rank, ranks) for rank in range(ranks)]
        assert [p.first for p in parts] == list(np.cumsum([0] + [p.count for p in parts])[:-1])
        assert sum(p.count for p in parts) == whole
        assert max(p.count for p in parts) - min(p.count for p in parts) <= 1
        chosen = np.arange(whole) * 10
        for part in parts:
            mine = part.samples(chosen, 2)
            assert list(mine[2:]) == list(chosen[part.first : part.first + part.count])
            assert mine[1] == chosen[part.first - 1]
