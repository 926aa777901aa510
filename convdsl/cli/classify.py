"""Name what photos show.

The image is prepared as the model's file declares; the classes are named by its labels.
Logits become probabilities by softmax, unless the model's outputs are probabilities already.
JSON: [{"file", "top": [{"index", "label", "probability"}]}].
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from convdsl.cli import console
from convdsl.cli.building import Network, network
from convdsl.cli.options import add_building, add_format, add_model, completes_files, positive
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser, artifacts=True)
    completes_files(parser.add_argument("image", nargs="+", metavar="IMAGE", help="an image file"))
    parser.add_argument(
        "--top", type=positive, default=5, metavar="K", help="classes to show (default 5)"
    )
    add_format(parser, ("table", "json"))
    add_building(parser)


def run(options: argparse.Namespace) -> int:
    made = network(options)
    found: list[dict[str, Any]] = []
    for images in _batches(options.image, _batch(made, options)):
        for name, top in zip(images, top_classes(made, images, options.top), strict=True):
            found.append({"file": name, "top": top})
            if options.format == "table":
                console.result(_lines(top, name))
    if options.format == "json":
        console.result(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


def _batch(made: Network, options: argparse.Namespace) -> int:
    """Images at once: what an artifact was compiled for, else --batch."""
    first = next(iter(made.executable.inputs.values())).shape[0]
    if isinstance(first, int):
        return first
    return max(_counts(made), default=0) or options.batch or options.usual_batch


def _counts(made: Network) -> list[int]:
    """The batches that an artifact for several has code for, where all else is as in the first."""
    rest = {name: size for name, size in made.binding.items() if name != "N"}
    return [size["N"] for size in made.executable.sizes if rest | {"N": size.get("N")} == size]


def _batches(images: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


def top_classes(made: Network, images: Sequence[str], count: int) -> list[list[dict[str, Any]]]:
    """The likeliest classes of each image, the first first. Raises InputError."""
    scores = _scores(made, images)
    classes = scores.shape[1]
    labels: Sequence[str | None] = [*(made.executable.labels or ()), *[None] * classes]
    answers: list[list[dict[str, Any]]] = []
    for likely in map(probabilities, scores):
        order = likely.argsort(kind="stable")[::-1][:count]
        answers.append(
            [{"index": int(i), "label": labels[i], "probability": float(likely[i])} for i in order]
        )
    return answers


def _scores(made: Network, images: Sequence[str]) -> NDArray[Any]:
    """One row of scores an image. A batch that is fixed, or the smallest that an
    artifact has for as many, is filled up with the last image."""
    import numpy as np

    from convdsl.ir.preprocess import Preprocessing
    from convdsl.preprocessing import prepare

    net = made.executable
    if net.preprocessing is None:
        raise InputError(
            f"{net.name} does not declare how images become inputs (preprocess)\n"
            "help: say it in the model; where nothing is said, `convdsl train` does the same as\n"
            "      `preprocess image: resize(224x224) -> rescale(1 / 255)` with the input's size"
        )
    declared = Preprocessing.from_json(net.preprocessing)
    others = [name for name in net.inputs if name != declared.input]
    if others:
        raise InputError(f"{net.name} needs more than an image: {', '.join(others)}")
    wanted = net.inputs[declared.input]
    arrays = [prepare(image, declared, wanted) for image in images]
    batch = wanted.shape[0]
    if made.executable.sizes:
        batch = min((count for count in _counts(made) if count >= len(arrays)), default=batch)
    if isinstance(batch, int):
        arrays += arrays[-1:] * (batch - len(arrays))
    scores = made.run({declared.input: np.concatenate(arrays)})[made.output]
    if (
        scores.ndim < 2
        or len(scores) != len(arrays)
        or scores.size != len(scores) * scores.shape[1]
    ):
        raise InputError(f"{net.name} puts out {list(scores.shape)}, not one score per class")
    return scores.reshape(len(scores), -1)[: len(images)]


def probabilities(scores: NDArray[Any]) -> NDArray[np.float64]:
    """softmax(scores), or the scores themselves where they are a distribution already."""
    import numpy as np

    wide = scores.astype(np.float64)
    if (wide >= 0).all() and abs(wide.sum() - 1) < 1e-4:
        return wide
    powers = np.exp(wide - wide.max())
    return powers / powers.sum()


def _lines(top: Sequence[dict[str, Any]], name: str) -> str:
    rows = [f"  {c['probability']:7.4f}  {c['label'] or 'class'} ({c['index']})" for c in top]
    return "\n".join([name, *rows])
