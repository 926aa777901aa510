"""`train` blocks: what is read, for which model, and what is wrong with them."""

from __future__ import annotations

import pytest
from fuzz.test_mutations import EXAMPLES

from convdsl.diagnostics import CompileError, SourceFile
from convdsl.elaborate import elaborate, load_file
from convdsl.ir.training import Choice, Loss, Training
from elaborate.sources import INPUT, build, errors

MODEL = f"model m {{\n{INPUT}\nx -> relu -> output y\n}}\n"


def training(settings: str, before: str = "") -> Training:
    found = build(f"{before}\n{MODEL}train {{\n{settings}\n}}\n").training
    assert found is not None
    return found


def test_nothing_is_said() -> None:
    assert build(MODEL).training is None
    assert training("") == Training()


def test_everything() -> None:
    found = training(
        """loss = cross_entropy(y, label, label_smoothing = 0.1)
           optimizer = sgd(lr, momentum = 0.9, nesterov = true)
           schedule = multistep(at = [30, 60], factor = 0.1)
           augment = random_crop(32x32, pad = 4) -> horizontal_flip
           metrics = [accuracy, accuracy(top = 5)]
           epochs = 30 * 3
           batch = 256
           seed = 1
           clip = 1.5
           ema = 0.999""",
        before="let lr = 0.1",
    )
    measure = Choice("cross_entropy", {"label_smoothing": 0.1})
    assert found == Training(
        loss=(Loss(measure, ("y", "label")),),
        optimizer=Choice("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        schedule=Choice("multistep", {"at": [30, 60], "factor": 0.1}),
        augment=(Choice("random_crop", {"size": (32, 32), "pad": 4}), Choice("horizontal_flip")),
        metrics=(Choice("accuracy"), Choice("accuracy", {"top": 5})),
        epochs=90,
        batch=256,
        seed=1,
        clip=1.5,
        ema=0.999,
    )


@pytest.mark.parametrize(
    ("loss", "terms"),
    [
        ("mse", [("mse", (), 1.0)]),
        ("mse(y, t)", [("mse", ("y", "t"), 1.0)]),
        ("mse(y, t) + 0.4 * l1(y, t)", [("mse", ("y", "t"), 1.0), ("l1", ("y", "t"), 0.4)]),
        ("mse - l1 / 2", [("mse", (), 1.0), ("l1", (), -0.5)]),
        ("2 * (mse + l1 * w)", [("mse", (), 2.0), ("l1", (), 6.0)]),
        ("-2 * mse", [("mse", (), -2.0)]),
    ],
)
def test_losses_are_weighted_sums(
    loss: str, terms: list[tuple[str, tuple[str, ...], float]]
) -> None:
    found = training(f"loss = {loss}", before="let w = 3").loss
    assert [(t.measure.name, t.compares, t.weight) for t in found] == terms


def test_a_block_for_one_model_and_one_for_the_rest() -> None:
    other = MODEL.replace("model m", "model n")
    text = f"{MODEL}{other}train {{ epochs = 1 }}\ntrain n {{ epochs = 2 }}\n"
    for name, epochs in (("m", 1), ("n", 2)):
        found = elaborate(SourceFile("a", text), model=name).training
        assert found is not None
        assert found.epochs == epochs


def test_the_zoo_has_one() -> None:
    found = load_file(EXAMPLES / "lenet5.cnn").training
    assert found is not None
    assert found.optimizer is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("epochs = 1\nepochs = 2", "`epochs` is set twice"),
        ("epochs = -1", "`epochs` takes a whole number, not the number -1"),
        ("epoch = 1", "unknown training setting `epoch`"),
        ("loss = mse(y, t, u)", "`mse` compares an output with a target"),
        ("loss = mse(1, t)", "`mse` compares an output with a target"),
        ("loss = mse * l1", "the loss is a weighted sum of losses"),
        ("loss = mse / 0", "the loss is a weighted sum of losses"),
        ("loss = mse ** 2", "`loss` takes one of"),
        ("loss = 2 * mze", "unknown loss `mze`"),
        ("loss = mze", "unknown loss `mze`"),
        ("loss = mse(y, t, gamma = 1)", "`mse` has no argument `gamma`"),
        ("optimizer = sgd(0.1, 0.1, 0.9, 0, true, 1)", "too many arguments for `sgd`"),
        ("optimizer = sgd(0.1, lr = 0.1)", "`lr` is given twice"),
        ("optimizer = sgd(lr = true)", "`lr` takes a number of 0 or more, not the boolean true"),
        ("optimizer = [sgd]", "`optimizer` takes one of"),
        ("schedule = cosinus", "unknown schedule `cosinus`"),
        ("augment = random_crop(size = 0.5)", "`size` takes a size, or a whole number"),
        ("metrics = accuracy -> f1", "`metrics` takes one of"),
    ],
)
def test_mistakes(settings: str, message: str) -> None:
    (found,) = errors(f"{MODEL}train {{\n{settings}\n}}\n")
    assert found.message.startswith(message)


def test_one_block_for_each() -> None:
    (found,) = errors(f"{MODEL}train {{ epochs = 1 }}\ntrain {{ epochs = 2 }}\n")
    assert found.message == "a second `train` for the file"
    (found,) = errors(f"{MODEL}train m {{ epochs = 1 }}\ntrain m {{ epochs = 2 }}\n")
    assert found.message == "a second `train` for `m`"


def test_all_mistakes_at_once() -> None:
    with pytest.raises(CompileError) as caught:
        build(f"{MODEL}train {{\nepochs = -1\nloss = mze(y, t)\noptimizer = sdg(0.1)\n}}\n")
    assert [d.code for d in caught.value.diagnostics] == ["E0903"] * 3
