"""What feeds a run: data in parts, settings that depend on them, checked and ready batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from convdsl.diagnostics import InputError, expect
from convdsl.ir.model import Model
from convdsl.ir.training import Choice, Loss, Training
from convdsl.ranks import ALONE, Ranks
from convdsl.tensor import DType, TensorType
from convdsl.training.data import (
    DataSet,
    Loader,
    Preparation,
    Sample,
    Wanted,
    augmentation,
    balanced_weights,
    check_labels,
    label_doubts,
    open_parts,
    preparation,
    split,
)
from convdsl.training.data.arrays import LABEL, ArrayData
from convdsl.training.data.augmentation import BATCHES
from convdsl.training.data.boxes import BOXES
from convdsl.training.data.images import MASK
from convdsl.training.data.sample import Subset, check_named_alike
from convdsl.training.evaluation import names_of
from convdsl.training.judging import compares

_HOW = {
    LABEL: "put images into a folder for each class, or call the array of classes `y`",
    MASK: "lay masks beside the images, images/a.png and masks/a.png, or give an array `mask`",
    BOXES: "give an array `boxes` of left, top, right, bottom, or these columns of a CSV",
}
"""How data have a target."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a run learns from, and what it is measured on."""

    train: DataSet
    validation: DataSet | None


def open_training_data(
    model: Model, data: Any, labels: Any, validation: Any, training: Training
) -> Data:
    """Data in two parts: as they come, as `validation` says, or cut by `val_fraction`."""
    name = preparation(model).name
    wanted = Wanted(model.inputs[name], name=name)
    parts = open_parts(data, labels, wanted)
    if validation is not None:
        known = replace(wanted, classes=parts.train.classes)  # numbered as in training
        apart = open_parts(validation, None, known).train
        check_named_alike(parts.train, apart)
        return Data(parts.train, apart)
    if parts.validation is not None or not training.val_fraction:
        return Data(parts.train, parts.validation)
    if round(training.val_fraction * len(parts.train)) < 1:
        return Data(parts.train, None)
    return Data(*split(parts.train, training.val_fraction, training.seed or 0))


def settled(model: Model, training: Training, data: DataSet, ranks: int = 1) -> Training:
    """Settings that depend on the data: the batch, and weights of classes that balance them. A
    batch that the network fixes is that of each of the ranks."""
    sizes = [type.shape[0] for type in model.inputs.values() if type.rank]
    fixed = next((size for size in sizes if isinstance(size, int)), None)
    assert training.batch is not None
    batch = fixed * ranks if fixed else min(training.batch, len(data))
    terms = tuple(
        replace(term, measure=_balanced(model, term.measure, data)) for term in training.loss
    )
    return replace(training, batch=batch, loss=terms)


def _balanced(model: Model, measure: Choice, data: DataSet) -> Choice:
    if measure.arguments.get("class_weights") != "balanced":
        return measure
    count = _classes(model)
    if count is None:
        raise InputError('class_weights = "balanced" needs an output of a known number of classes')
    weights = [float(weight) for weight in balanced_weights(data, count)]
    return replace(measure, arguments={**measure.arguments, "class_weights": weights})


def _classes(model: Model) -> int | None:
    """How many classes the first output tells apart."""
    type = next(iter(model.outputs.values()))
    count = type.shape[1] if type.rank > 1 else None
    return count if isinstance(count, int) else None


MOST_WORKERS = 256
"""Threads that read ahead: more than there are processors only hold samples."""


def reading_ahead(said: int | None, processors: int | None = None) -> int:
    """Threads that read ahead: one, and a few where there are processors to spare."""
    if said is not None:
        expect("the number of workers", said, int)
        if not 0 <= said <= MOST_WORKERS:
            raise InputError(f"{said} workers: 0 to {MOST_WORKERS} read ahead")
        return said
    return max(1, min(4, (processors or len(os.sched_getaffinity(0))) // 4))


def loader_of(
    model: Model,
    targets: Mapping[str, TensorType],
    data: DataSet,
    training: Training,
    workers: int,
    *,
    trains: bool = True,
    ranks: Ranks = ALONE,
) -> Loader:
    """What feeds training, or measuring: in order, unchanged, and to the last sample. Of training
    batches each of the ranks gets its part."""
    assert training.batch is not None
    prepare = preparation(model, None, training.fit or "resize", targets)
    chain = augmentation(training.augment if trains else (), prepare, _classes(model))
    _check_data(model, targets, data, prepare, training)
    return Loader(
        data,
        prepare,
        training.batch,
        chain,
        seed=training.seed or 0,
        workers=workers,
        shuffle=trains,
        keep_last=not trains,
        rank=ranks.rank,
        ranks=ranks.size,
    )


def _check_data(
    model: Model,
    targets: Mapping[str, TensorType],
    data: DataSet,
    prepare: Preparation,
    training: Training,
) -> None:
    """The data have what the network takes and the loss compares with, in its shape, and labels are
    classes of the network. Raises InputError."""
    image, sample = prepare.name, data[0]
    have = {image, *(name for name in sample if name != "x")}
    for name in (*model.inputs, *targets):
        if name not in have:
            kind = "the loss compares with" if name in targets else "the network takes"
            there = names_of(sorted(have - {image}))
            how = f"give an array called `{name}`"
            if name in targets:
                how = _HOW.get(name, f"{how}, or another loss")
            raise InputError(
                f"{kind} `{name}`, which is not in {data.source}; besides images there is {there}"
                f"\nhelp: {how}"
            )
    for name, type in targets.items():
        if type.dtype.is_integer:
            _check_whole(data, name)
    sample = prepare.place(sample)
    for term in training.loss:
        _, target = compares(model.graph, term)
        _check_shape(prepare, sample, term.measure.name, target, targets, training)
    for term, classes in _labelled(model, targets, training):
        check_labels(data, classes, term.measure.arguments.get("ignore_index"))


def _check_whole(data: DataSet, name: str) -> None:
    """Arrays at hand hold classes; samples that are read later are looked at when they are."""
    while isinstance(data, Subset):
        data = data.whole
    if isinstance(data, ArrayData):
        data.check_whole(name)


def _labelled(
    model: Model, targets: Mapping[str, TensorType], training: Training
) -> Iterator[tuple[Loss, int]]:
    """The losses that compare with labels, and how many classes the network tells apart there."""
    for term in training.loss:
        output, target = compares(model.graph, term)
        type = targets.get(target)
        if target != LABEL or type is None or type.dtype is not DType.I64:
            continue
        classes = model.outputs[output].shape[1]
        if isinstance(classes, int):
            yield term, classes


def data_doubts(
    model: Model, targets: Mapping[str, TensorType], data: DataSet, training: Training
) -> tuple[str, ...]:
    """What is odd about data that fit the network."""
    return next((label_doubts(data, n) for _, n in _labelled(model, targets, training)), ())


def _check_shape(
    prepare: Preparation,
    sample: Sample,
    loss: str,
    target: str,
    targets: Mapping[str, TensorType],
    training: Training,
) -> None:
    """A target of the data has the axes that the loss compares. Labels that augmentation mixes have
    them only in a batch."""
    mixed = target == LABEL and any(choice.name in BATCHES for choice in training.augment)
    if target not in targets or target not in sample or mixed:
        return
    wanted, given = targets[target], prepare.target(target, sample[target]).shape
    pairs = zip(wanted.shape[1:], given, strict=False)
    fits = len(given) == wanted.rank - 1 and all(
        not isinstance(want, int) or want == have for want, have in pairs
    )
    if not fits:
        how = "give such an array, or take a loss for such targets (cross_entropy for classes)"
        if wanted.dtype.is_integer:  # the loss is one for classes already
            how = "give the number of each class: of one-hot rows the argmax"
        raise InputError(
            f"{loss} compares with `{target}` of {wanted}, and of a sample it is {list(given)}\n"
            f"help: {how}"
        )
