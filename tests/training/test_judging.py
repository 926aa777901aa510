"""What losses and metrics cannot judge is said at once, and where; of every kind of shape."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

import convdsl
from convdsl.diagnostics import InputError, SourceFile
from convdsl.elaborate import elaborate
from convdsl.ir import techniques
from convdsl.ir.model import Model
from convdsl.loading import parse
from convdsl.tensor import DType, TensorType
from convdsl.training.judging import LOSS, disagreements, loss_model
from convdsl.training.losses import COMPARING
from convdsl.training.metrics import METRICS
from convdsl.training.settings import complete

SHAPES = [(), (1,), (2,), (4,), (5,), (1, 1), (3, 1), (1, 4), (3, 4), (5, 8), (2, 5), (12,)]
SHAPES += [(1, 5, 4), (3, 4, 6), (4, 2, 2, 4)]
"""Of a sample."""


def _always(shape: tuple[int, ...]) -> bool:
    return True


def _classes(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 1


def _boxes(shape: tuple[int, ...]) -> bool:
    return shape[-1:] == (4,)


ACCEPTS: dict[str, Callable[[tuple[int, ...]], bool]] = {
    "cross_entropy": _classes,
    "nll": _classes,
    "kl_divergence": _classes,
    "binary_cross_entropy": _always,
    "focal": _always,
    "mse": _always,
    "l1": _always,
    "smooth_l1": _always,
    "huber": _always,
    "dice": lambda shape: len(shape) >= 2,
    "box": lambda shape: (
        (len(shape) == 1 and shape[0] % 4 == 0) or (len(shape) == 2 and shape[1] == 4)
    ),
    "iou": _boxes,
    "giou": _boxes,
    "diou": _boxes,
    "ciou": _boxes,
}
"""What docs/training.md says that a loss takes, but for the batch."""


def network(shape: tuple[int, ...], train: str) -> Model:
    listed = ", ".join(("N", *map(str, shape)))
    head = f"model m {{\n    input x: f32[{listed}]\n    x -> relu -> output y\n}}\n"
    return parse(f"{head}train {{\n{train}\n}}\n")


def test_every_loss_is_told_of() -> None:
    assert set(ACCEPTS) == set(COMPARING)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("name", COMPARING)
def test_losses_of_every_shape(name: str) -> None:
    for shape in SHAPES:
        model = network(shape, f"loss = 2 * {name}(y, target)")
        found = tuple(d for d in disagreements(model) if d.severity == "error")
        if ACCEPTS[name](shape):
            assert found == ()
            measure, _ = loss_model(model, complete(model))
            assert measure.graph.outputs[LOSS].type == TensorType(DType.F32, ())
            continue
        (error,) = found
        assert error.code == "E0903"
        assert error.span is not None
        assert (error.span.line, error.span.text) == (6, f"{name}(y, target)")
        assert error.message.endswith(str(model.outputs["y"]))
        (help,) = error.help
        listed = help.rpartition(" are ")[2].split(", ")
        assert set(listed) == {other for other in COMPARING if ACCEPTS[other](shape)}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_every_pair_of_shapes(name: str) -> None:
    """What types say is what arrays of these types meet."""
    kinds = ((DType.F32, np.float32), (DType.I64, np.int64))
    pairs = product(SHAPES, SHAPES, kinds)
    for output, target, (dtype, numpy) in pairs:
        y, t = (2, *output), (2, *target)
        builder = METRICS[name]
        types = TensorType(DType.F32, y), TensorType(dtype, t)
        metric = builder.make(techniques.METRICS[name].complete({}))
        arrays = np.zeros(y, np.float32), np.zeros(t, numpy)
        assert _refused(builder.compares, *types) == _refused(metric.add, *arrays)


def _refused(rule: Callable[..., None], *given: object) -> str | None:
    """What is said of what does not go together."""
    try:
        rule(*given)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "binary_cross_entropy", "dice"])
def test_metrics_are_placed(name: str, loss: str) -> None:
    """Metrics look at the first term of the loss: each one is sound, or pointed at."""
    for shape in ((4,), (3, 4, 6), (1, 5, 4), (1,)):
        if not ACCEPTS[loss](shape):
            continue
        model = network(shape, f"loss = {loss}\nmetrics = [{name}]")
        for error in disagreements(model):
            if error.code == "W0904":  # of the loss
                continue
            assert error.span is not None
            assert (error.span.line, error.span.text) == (7, name)
            assert name not in "".join(error.help)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("loss = cross_entropy(class_weights = [1, 2])", "has 2 numbers for 5 classes"),
        ("loss = cross_entropy(class_weights = balanced)", ""),
        ("loss = mse\naugment = mixup(0.2)", "mixing samples"),
        ("loss = mse + cross_entropy(y, target)", "`target` is f32[N, 5]"),
        ("loss = mse(y, x)", ""),
        ("loss = cross_entropy(y, x)", "`x` is f32[N, 5]"),
        ("loss = mse(y, y)", "`y` is an output"),
    ],
)
def test_what_else_does_not_go_together(train: str, said: str) -> None:
    found = disagreements(network((5,), train))
    assert len(found) == bool(said)
    for error in found:
        assert said in error.message
        assert error.span is not None
        assert error.span.line == 6


def test_open_sizes_may_yet_fit() -> None:
    for loss in ("cross_entropy", "giou", "box"):
        text = "model m {\n    input x: f32[N, C]\n    x -> relu -> output y\n}\n"
        assert disagreements(parse(f"{text}train {{ loss = {loss} }}\n")) == ()


def test_a_block_of_several_models_may_be_meant_for_others() -> None:
    text = "".join(
        f"model {name} {{\n    input x: f32[N, {size}]\n    x -> relu -> output y\n}}\n"
        for name, size in (("four", 4), ("five", 5))
    )
    text += "train { loss = giou(y, boxes) }\n"
    source = SourceFile("two.cnn", text)
    assert disagreements(elaborate(source, model="four")) == ()
    (found,) = disagreements(elaborate(source, model="five"))
    assert (found.code, found.severity) == ("W0903", "warning")


def test_an_output_of_another_model_is_said_once() -> None:
    text = "".join(
        f"model {name} {{\n    input x: f32[N, 4]\n    x -> relu -> output {name}\n}}\n"
        for name in ("one", "other")
    )
    text += "train { loss = mse(one, target) }\n"
    model = elaborate(SourceFile("two.cnn", text), model="other")
    assert [w.code for w in (*model.warnings, *disagreements(model))] == ["W0903"]


@pytest.mark.parametrize(
    ("layers", "loss", "said"),
    [
        ("relu -> softmax", "cross_entropy", "`softmax` has made shares"),
        ("relu -> sigmoid", "cross_entropy", "`sigmoid` has made shares"),
        ("softmax -> reshape([x.batch, 5, 1])", "focal", "`softmax` has made shares"),
        ("softmax", "mse(y, t) + 2 * cross_entropy(y, label)", "`softmax` has made shares"),
        ("softmax", "nll", "takes logarithms"),
        ("linear(1)", "cross_entropy", "of one class is always 0"),
        ("sigmoid", "binary_cross_entropy", "`sigmoid` has made shares"),
        ("softmax -> relu", "cross_entropy", ""),
        ("log_softmax", "nll", ""),
        ("log_softmax", "cross_entropy", ""),
        ("softmax", "mse(y, t)", ""),
        ("softmax", "kl_divergence", ""),
        ("linear(1)", "binary_cross_entropy", ""),
    ],
)
def test_losses_that_are_likely_meant_for_other_values(layers: str, loss: str, said: str) -> None:
    text = f"model m {{\n    input x: f32[N, 5]\n    x -> {layers} -> output y\n}}\n"
    found = disagreements(parse(f"{text}train {{ loss = {loss} }}\n"))
    assert [(d.code, d.severity) for d in found] == [("W0904", "warning")] * bool(said)
    for doubt in found:
        assert said in doubt.message
        assert [label.span.line for label in doubt.labels] == [5, 3]


def test_what_is_said_of_cross_entropy_of_one_class_is_so() -> None:
    text = "model m {\n    input x: f32[N, 1]\n    x -> relu -> output y\n}\n"
    model = parse(f"{text}train {{ loss = cross_entropy }}\n")
    measured, _ = loss_model(model, complete(model))
    given = np.array([[-3.0], [0.0], [1e4]], np.float32)
    loss = convdsl.compile(measured, cache=False)(y=given, label=np.zeros(3, np.int64))
    assert float(loss) == 0
