"""Augmentation: samples as they might have been, by draws that follow from counters.

    read -> place -> geometry, light -> finish -> erase, cutout -> batch -> mixup, cutmix

The chain of a text is taken in three parts, each in its order: what changes images, what changes
inputs, what mixes batches. A `random_crop` takes the place of the text's `center_crop`, and a
`random_resized_crop` that of all its geometry: so the network sees the scale it is used at, and
every pixel comes from the image as it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convdsl.diagnostics import InputError
from convdsl.ir.preprocess import GEOMETRY, PreprocessingStep
from convdsl.ir.techniques import AUGMENTATIONS
from convdsl.ir.training import Choice
from convdsl.training.data.augmentation import geometry, light, mixing
from convdsl.training.data.augmentation.geometry import Change, Known
from convdsl.training.data.augmentation.mixing import ArrayChange, BatchChange
from convdsl.training.data.preparation import Preparation

SAMPLES = {
    "random_crop": geometry.random_crop,
    "random_resized_crop": geometry.random_resized_crop,
    "horizontal_flip": geometry.horizontal_flip,
    "vertical_flip": geometry.vertical_flip,
    "rotate": geometry.rotate,
    "affine": geometry.affine,
    "elastic": geometry.elastic,
    "mirror_pad": geometry.mirror_pad,
    "color_jitter": light.color_jitter,
}
"""What changes images, with masks and boxes."""

INPUTS = {"erase": mixing.erase, "cutout": mixing.cutout}
"""What changes inputs, after arithmetic."""

BATCHES = {"mixup": mixing.mixup, "cutmix": mixing.cutmix}
"""What mixes batches, and makes labels shares of all classes."""

REPLACES: Mapping[str, tuple[str, ...]] = {
    "random_crop": ("center_crop",),
    "random_resized_crop": GEOMETRY,
}
"""Steps of the text whose place an augmentation takes."""


@dataclass(frozen=True)
class Augmentation:
    """A chain, ready. The empty one changes nothing."""

    samples: tuple[Change, ...] = ()
    inputs: tuple[ArrayChange, ...] = ()
    batches: tuple[BatchChange, ...] = ()
    replaces: frozenset[str] = field(default_factory=frozenset[str])

    @property
    def mixes(self) -> bool:
        """Whether labels of a batch are shares of classes, f32 [N, classes]."""
        return bool(self.batches)

    def geometry(self, prepare: Preparation) -> tuple[PreprocessingStep, ...]:
        """The steps that are left of those that prepare images."""
        return tuple(step for step in prepare.geometry if step.name not in self.replaces)


def augmentation(
    chain: Sequence[Choice], prepare: Preparation, classes: int | None = None
) -> Augmentation:
    """The chain of a text, for a network that tells `classes` classes apart. Raises InputError."""
    moved = [choice.name for choice in chain if choice.name not in BATCHES]
    if moved and prepare.preprocessing is None:
        raise InputError(f"{moved[0]} changes images, and the network takes {prepare.input}")
    known = Known(prepare.size, prepare.filter, classes)

    def made(table: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(
            table[choice.name](AUGMENTATIONS[choice.name].complete(choice.arguments), known)
            for choice in chain
            if choice.name in table
        )

    replaced = frozenset(step for choice in chain for step in REPLACES.get(choice.name, ()))
    return Augmentation(made(SAMPLES), made(INPUTS), made(BATCHES), replaced)
