"""What photos show, as a network says: the same on the command line, served and in batches.

The image is prepared as the model's file declares; the classes are named by its labels. Logits
become probabilities by softmax, unless the model's outputs are probabilities already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convdsl.diagnostics import InputError
from convdsl.ir.preprocess import Preprocessing
from convdsl.runtime.executable import Executable

if TYPE_CHECKING:
    from convdsl.preprocessing import Picture


@dataclass(frozen=True)
class Classifier:
    """A network that takes one image and puts out one score per class. `binding` says which of an
    artifact's sizes is meant, where it has several."""

    network: Executable
    binding: Mapping[str, int] = field(default_factory=dict[str, int])

    def batch(self, usual: int) -> int:
        """Images at once: what an artifact was compiled for, else as many as said."""
        first = next(iter(self.network.inputs.values())).shape[0]
        return first if isinstance(first, int) else max(self._counts(), default=usual)

    def _counts(self) -> list[int]:
        """The batches that an artifact for several has code for, where all else is as chosen."""
        batch = str(next(iter(self.network.inputs.values())).shape[0])
        rest = {name: size for name, size in self.binding.items() if name != batch}
        sizes = self.network.sizes
        return [size[batch] for size in sizes if rest | {batch: size.get(batch)} == size]

    def top(self, images: Sequence[Picture], count: int, fill: int = 0) -> list[Any]:
        """Of each image the likeliest classes, {`index`, `label`, `probability`}, the first first.
        Raises InputError."""
        scores = self.scores(images, fill)
        labels: Sequence[str | None] = [*(self.network.labels or ()), *[None] * scores.shape[1]]
        answers: list[Any] = []
        for likely in map(probabilities, scores):
            order = likely.argsort(kind="stable")[::-1][:count]
            answers.append(
                [
                    {"index": int(i), "label": labels[i], "probability": float(likely[i])}
                    for i in order
                ]
            )
        return answers

    def scores(self, images: Sequence[Picture], fill: int = 0) -> NDArray[Any]:
        """One row of scores an image. A batch that is fixed, or the smallest that an artifact has
        for as many, or `fill` is filled up with the last image."""
        name, arrays = prepared(self.network, images)
        batch = self.network.inputs[name].shape[0]
        if self.network.sizes:
            batch = min((n for n in self._counts() if n >= len(arrays)), default=batch)
        least = batch if isinstance(batch, int) else fill
        arrays += arrays[-1:] * (least - len(arrays))
        made = self.network.by_name(**{name: np.concatenate(arrays)})
        scores = next(iter(made.values()))
        if (
            scores.ndim < 2
            or len(scores) != len(arrays)
            or scores.size != len(scores) * scores.shape[1]
        ):
            raise InputError(
                f"{self.network.name} puts out {list(scores.shape)}, not one score per class"
            )
        return scores.reshape(len(scores), -1)[: len(images)]


def prepared(network: Executable, images: Sequence[Picture]) -> tuple[str, list[NDArray[Any]]]:
    """The input that images are for, and of each its array [1, C, H, W]. Raises InputError."""
    from convdsl.preprocessing import prepare

    if network.preprocessing is None:
        raise InputError(
            f"{network.name} does not declare how images become inputs (preprocess)\n"
            "help: say it in the model: `preprocess image: resize(224x224) -> rescale(1 / 255)`, "
            "with the input's name and size, is what `convdsl train` does where nothing is said"
        )
    declared = Preprocessing.from_json(network.preprocessing)
    others = [name for name in network.inputs if name != declared.input]
    if others:
        raise InputError(f"{network.name} needs more than an image: {', '.join(others)}")
    wanted = network.inputs[declared.input]
    return declared.input, [prepare(image, declared, wanted) for image in images]


def probabilities(scores: NDArray[Any]) -> NDArray[np.float64]:
    """softmax(scores), or the scores themselves where they are a distribution already."""
    wide = scores.astype(np.float64)
    if (wide >= 0).all() and abs(wide.sum() - 1) < 1e-4:
        return wide
    powers = np.exp(wide - wide.max())
    return powers / powers.sum()
