"""`train` blocks: what is read, for which model, and what is wrong with them."""

from __future__ import annotations

from dataclasses import fields

import pytest
from fuzz.test_mutations import EXAMPLES

from convdsl.diagnostics import CompileError, SourceFile
from convdsl.elaborate import elaborate, load_file
from convdsl.ir.techniques import LOSSES, NEEDED, ONE_OF, SETTINGS, SOME_OF
from convdsl.ir.training import Choice, Loss, Training, names
from elaborate.sources import INPUT, build, errors

MODEL = f"model m {{\n{INPUT}\nx -> relu -> output y\n}}\n"


def training(settings: str, before: str = "") -> Training:
    found = build(f"{before}\n{MODEL}train {{\n{settings}\n}}\n").training
    assert found is not None
    return found


def test_nothing_is_said() -> None:
    assert build(MODEL).training is None
    assert training("") == Training()


def test_choices_need_no_quotes() -> None:
    """Unless the file means something else by the word."""
    for text in ("pad", '"pad"', "chosen"):
        assert training(f"fit = {text}", before='let chosen = "pad"').fit == "pad"
    assert training("fit = pad", before='let pad = "resize"').fit == "resize"
    found = training("loss = cross_entropy(y, label, class_weights = balanced, reduction = sum)")
    assert found.loss[0].measure.arguments == {"class_weights": "balanced", "reduction": "sum"}


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
           clip_value = 0.5
           l1 = 1e-5
           l2 = 1e-4
           decay_all = true
           accumulate = 4
           ema = 0.999
           patience = 5
           fit = pad
           val_fraction = 0.2""",
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
        clip_value=0.5,
        l1=1e-5,
        l2=1e-4,
        decay_all=True,
        accumulate=4,
        ema=0.999,
        patience=5,
        val_fraction=0.2,
        fit="pad",
    )


LAYERS = f"model m {{\n{INPUT}\nx -> conv(4, 1x1) as stem -> conv(4, 1x1) as head -> output y\n}}\n"


def test_parameters_are_named_by_patterns() -> None:
    groups = '[group("stem.*", lr_factor = 0.1), group(["*.bias", "head"], weight_decay = 0)]'
    found = build(f'{LAYERS}train {{\nfreeze = "stem"\ngroups = {groups}\n}}\n').training
    assert found is not None
    assert found.freeze == ("stem",)
    assert found.groups == (
        Choice("group", {"parameters": ("stem.*",), "lr_factor": 0.1}),
        Choice("group", {"parameters": ("*.bias", "head"), "weight_decay": 0}),
    )
    assert names("stem", "stem.weight")
    assert names("s*", "stem.weight")
    assert not names("ste", "stem.weight")


@pytest.mark.parametrize(
    ("settings", "name", "help"),
    [
        ('freeze = ["stem.*", "hed.*"]', "hed.*", "did you mean"),
        ('freeze = "stam"', "stam", "did you mean `stem`?"),
        ('groups = [group(["head.bias", "head.bais"])]', "head.bais", "did you mean `head.bias`?"),
        ('groups = group("xyz")', "xyz", "there are stem.weight, stem.bias, head.weight"),
    ],
)
def test_patterns_that_name_nothing(settings: str, name: str, help: str) -> None:
    (found,) = errors(f"{LAYERS}train {{\n{settings}\n}}\n")
    assert found.message == f"no parameter, or layer with parameters, is called `{name}`"
    assert found.span is not None
    assert found.span.text == f'"{name}"'
    assert found.help[0].startswith(help)


@pytest.mark.parametrize("kind", ["settings", *ONE_OF, *SOME_OF, "loss"])
def test_defaults_are_what_they_may_be(kind: str) -> None:
    tables = {"loss": LOSSES, **ONE_OF, **SOME_OF}
    techniques = tables[kind].values() if kind in tables else ()
    arguments = [a for t in techniques for a in t.arguments] or list(SETTINGS.values())
    for argument in arguments:
        if argument.default not in (None, (), NEEDED):
            assert argument.takes.fits(argument.default), argument.name
    for technique in techniques:
        given = dict.fromkeys(technique.lacks({}), 1)
        assert technique.complete(given).keys() == technique.takes.keys()
        assert technique.objects(technique.complete(given)) is None


def test_every_plain_setting_has_a_default() -> None:
    several = {"loss", *ONE_OF, *SOME_OF}
    assert {f.name for f in fields(Training)} == several | SETTINGS.keys()
    assert Training(epochs=3).setting("epochs") == 3
    assert Training().setting("epochs") == SETTINGS["epochs"].default
    assert Training(decay_all=True).setting("decay_all") is True


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
    assert found.fit == "pad"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("epochs = 1\nepochs = 2", "`epochs` is set twice"),
        ("epochs = -1", "`epochs` is at least 0, not -1"),
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
        ("batch = 0", "`batch` takes a whole number of 1 or more, not the number 0"),
        ("ema = 1", "`ema` takes a number from 0 up to, not including, 1, not the number 1"),
        ("clip = inf", "`clip` takes a number of 0 or more, not the number inf"),
        ("clip_value = nan", "`clip_value` takes a number of 0 or more, not the number nan"),
        ('fit = "stretch"', '`fit` takes `resize` or `pad`, not the text "stretch"'),
        ("fit = crop", "`fit` takes `resize` or `pad`, not `crop`"),
        ("metrics = f1(average = mikro)", "`average` takes `macro` or `micro`, not `mikro`"),
        ("freeze = [1]", "`freeze` takes a name or a list of names, not a list of 1"),
        ("freeze = []", "`freeze` takes a name or a list of names, not a list of 0"),
        ("schedule = step", "`step` needs `every`"),
        ("schedule = multistep(factor = 0.5)", "`multistep` needs `at`"),
        ("groups = [group(lr_factor = 2)]", "`group` needs `parameters`"),
        ("loss = focal(gama = 2)", "`focal` has no argument `gama`"),
        ("loss = nll(class_weights = [0, 0])", "`class_weights` takes a list of numbers of 0"),
        ('loss = nll(class_weights = "even")', "`class_weights` takes a list of numbers of 0"),
        ("optimizer = adam(beta2 = 1)", "`beta2` takes a number from 0 up to, not including, 1"),
        ("optimizer = sgd(nesterov = true)", "`sgd` with `nesterov` needs `momentum`"),
        ("augment = erase(scale = [0.5, 0.1])", "`scale` takes a list of two numbers"),
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
