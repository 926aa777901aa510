"""Losses drawn over what they take, as graphs of the loss and its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convdsl.autodiff import gradients
from convdsl.ir import techniques
from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType
from convdsl.training.losses import LOSSES

Array = np.ndarray[Any, Any]

OUTPUT, TARGET = "output", "target"


@dataclass(frozen=True)
class Case:
    """A loss with all its arguments, an output and a target in double precision."""

    name: str
    arguments: Mapping[str, Any]
    output: Array
    target: Array

    def graph(self, dtype: DType = DType.F64) -> Graph:
        """Inputs `output`, `target`; outputs `loss` and `gradient`."""
        graph = self.forward(dtype)
        build = Build(graph, BY_NAME, Names(node.name for node in graph.nodes()))
        loss, y = graph.outputs["loss"], graph.inputs[OUTPUT]
        seed = build.filled(1.0, loss.type)
        (dy,) = gradients(graph, {loss: seed}, [y], build)
        assert dy is not None
        graph.outputs["gradient"] = dy
        return graph

    def forward(self, dtype: DType = DType.F64) -> Graph:
        """The loss alone."""
        graph = Graph()
        build = Build(graph, BY_NAME)
        y = build.input(OUTPUT, TensorType(dtype, self.output.shape))
        builder = LOSSES[self.name]
        rule = builder.target
        if self.target.dtype.kind == "f" and rule(y.type, self.arguments).dtype is DType.I64:
            assert builder.shares is not None
            rule = builder.shares
        wanted = rule(y.type, self.arguments)
        assert wanted.shape == self.target.shape
        builder.check(self.target, y.type, self.arguments)
        loss = builder.build(build, y, build.input(TARGET, wanted), self.arguments)
        assert loss.type == TensorType(dtype, ())
        graph.outputs = {"loss": loss}
        return graph

    def arrays(self, dtype: DType = DType.F64) -> dict[str, Array]:
        target = self.target
        if target.dtype.kind == "f":
            target = target.astype(dtype.numpy)
        return {OUTPUT: self.output.astype(dtype.numpy), TARGET: target}


def draw_case(name: str, seed: int) -> Case:
    """Small and ragged, or huge logits, one class, a batch of 1, everything ignored."""
    random = np.random.default_rng((seed, *name.encode()))
    rank = int(random.integers(0, 3)) if name != "dice" else int(random.integers(1, 3))
    batch = int(random.choice((1, 2, 5)))
    space = tuple(int(n) for n in random.integers(1, 5, rank))
    classes = int(random.choice((1, 2, 3, 7)))
    scale = float(random.choice((1.0, 1.0, 30.0, 1e4)))
    return _DRAWN[name](random, name, (batch, classes, *space), scale)


def complete(name: str, **arguments: Any) -> dict[str, Any]:
    return techniques.LOSSES[name].complete(arguments)


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _reduction(random: np.random.Generator) -> str:
    return str(random.choice(("mean", "mean", "sum")))


def _logits(random: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    logits = random.standard_normal(shape) * scale
    return np.round(logits) if scale == 1e4 else logits  # the same in single precision


def _labels(random: np.random.Generator, shape: tuple[int, ...], ignored: int) -> Array:
    labels = random.integers(0, shape[1], (shape[0], *shape[2:]))
    chance = random.choice((0.0, 0.3, 1.0), p=(0.4, 0.5, 0.1))
    return np.where(random.random(labels.shape) < chance, ignored, labels)


def _weights(random: np.random.Generator, classes: int) -> list[float] | None:
    if random.random() < 0.4:
        return None
    weights = random.random(classes) * 3
    if classes > 1 and random.random() < 0.3:
        weights[0] = 0.0
    return [float(w) for w in weights]


def _of_classes(
    random: np.random.Generator, name: str, shape: tuple[int, ...], scale: float
) -> Case:
    ignored = int(random.choice((-100, 255, 0)))
    arguments = complete(
        name,
        class_weights=_weights(random, shape[1]),
        ignore_index=ignored,
        reduction=_reduction(random),
    )
    logits = _logits(random, shape, scale)
    if name == "nll":
        return Case(name, arguments, log_softmax(logits), _labels(random, shape, ignored))
    arguments["label_smoothing"] = float(random.choice((0.0, 0.1, 1.0)))
    if random.random() < 0.3:
        return Case(name, arguments, logits, np.exp(log_softmax(random.standard_normal(shape))))
    return Case(name, arguments, logits, _labels(random, shape, ignored))


def _binary(random: np.random.Generator, name: str, shape: tuple[int, ...], scale: float) -> Case:
    arguments = complete(name, reduction=_reduction(random))
    for each in ("positive_weight", "class_weights"):
        arguments[each] = _weights(random, shape[1]) or 0.7
    target = random.random(shape) if random.random() < 0.3 else random.integers(0, 2, shape) * 1.0
    return Case(name, arguments, _logits(random, shape, scale), target)


def _focal(random: np.random.Generator, name: str, shape: tuple[int, ...], scale: float) -> Case:
    arguments = complete(
        name,
        gamma=float(random.choice((0.0, 0.5, 1.0, 2.0, 5.0))),
        alpha=float(random.choice((-1.0, 0.0, 0.25, 1.0))),
        reduction=_reduction(random),
    )
    logits = _logits(random, shape, scale)
    if shape[1] > 1 and random.random() < 0.5:
        return Case(name, arguments, logits, _labels(random, shape, -100))
    return Case(name, arguments, logits, random.integers(0, 2, shape) * 1.0)


def _numbers(random: np.random.Generator, name: str, shape: tuple[int, ...], scale: float) -> Case:
    arguments = complete(name, reduction=_reduction(random))
    for each in ("beta", "delta"):
        if each in arguments:
            arguments[each] = float(random.choice((0.3, 1.0, 2.0)))
    if name == "smooth_l1" and random.random() < 0.2:
        arguments["beta"] = 0.0
    output, target = (random.standard_normal(shape) * scale for _ in range(2))
    return Case(name, arguments, output, target)


def _divergence(
    random: np.random.Generator, name: str, shape: tuple[int, ...], scale: float
) -> Case:
    reduction = str(random.choice(("mean", "sum", "batchmean")))
    logs = bool(random.random() < 0.4)
    arguments = complete(name, reduction=reduction, log_target=logs)
    target = random.random(shape)
    if not logs:
        target *= random.random(shape) < 0.8
    total = np.maximum(target.sum(1, keepdims=True), 1e-3)
    target = np.log(target / total) if logs else target / total
    return Case(name, arguments, _logits(random, shape, scale), target)


def _dice(random: np.random.Generator, name: str, shape: tuple[int, ...], scale: float) -> Case:
    arguments = complete(
        name, eps=float(random.choice((0.0, 1e-5, 1.0))), reduction=_reduction(random)
    )
    logits = _logits(random, shape, scale)
    if shape[1] > 1 and random.random() < 0.7:
        return Case(name, arguments, logits, _labels(random, shape, -100))
    return Case(name, arguments, logits, random.integers(0, 2, shape) * 1.0)


def _box(random: np.random.Generator, name: str, shape: tuple[int, ...], scale: float) -> Case:
    batch, classes = shape[0] * 2, shape[1]
    arguments = complete(name, beta=float(random.choice((1 / 9, 1.0))))
    arguments["reduction"] = _reduction(random)
    given = (batch, classes, 4) if random.random() < 0.5 else (batch, 4 * classes)
    kinds = random.integers(0, max(classes, 3 if classes == 1 else 0), (batch, 1))
    target = np.concatenate([kinds * 1.0, random.standard_normal((batch, 4))], 1)
    return Case(name, arguments, random.standard_normal(given) * scale, target)


def _overlap(random: np.random.Generator, name: str, shape: tuple[int, ...], scale: float) -> Case:
    """Boxes apart, crossing, nearly equal, and targets without an extent, which do not count."""
    shape = (shape[0], *shape[2:], 4)
    size = min(scale, 30.0)
    boxes = np.sort(random.random((2, *shape[:-1], 2, 2)) * size, axis=-2).reshape(2, *shape)
    output, target = boxes
    share = random.random(shape[:-1])[..., None]
    target = np.where(share < 0.2, 0.0, target)
    output = np.where(share > 0.9, target * 1.1, output)
    return Case(name, complete(name, reduction=_reduction(random)), output, target)


_DRAWN = {
    "cross_entropy": _of_classes,
    "nll": _of_classes,
    "binary_cross_entropy": _binary,
    "focal": _focal,
    "mse": _numbers,
    "l1": _numbers,
    "smooth_l1": _numbers,
    "huber": _numbers,
    "kl_divergence": _divergence,
    "dice": _dice,
    "box": _box,
    "iou": _overlap,
    "giou": _overlap,
    "diou": _overlap,
    "ciou": _overlap,
}
