"""Name what photos show.

The image is prepared as the model's file declares; the classes are named by its labels.
Logits become probabilities by softmax, unless the model's outputs are probabilities already.
JSON: [{"file", "top": [{"index", "label", "probability"}]}].
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
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
    for name in options.image:
        found.append({"file": name, "top": top_classes(made, name, options.top)})
        if options.format == "table":
            console.result(_lines(found[-1]["top"], name))
    if options.format == "json":
        console.result(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


def top_classes(made: Network, image: str, count: int) -> list[dict[str, Any]]:
    """The likeliest classes of one image, the first first. Raises InputError."""
    from convdsl.ir.preprocess import Preprocessing
    from convdsl.preprocessing import prepare

    net = made.executable
    if net.preprocessing is None:
        raise InputError(f"{net.name} does not declare how images become inputs (preprocess)")
    declared = Preprocessing.from_json(net.preprocessing)
    others = [name for name in net.inputs if name != declared.input]
    if others:
        raise InputError(f"{net.name} needs more than an image: {', '.join(others)}")
    array = prepare(image, declared, net.inputs[declared.input])
    scores = made.run({declared.input: array})[made.output]
    if scores.shape[0] != 1 or scores.ndim < 2 or scores.size != scores.shape[1]:
        raise InputError(f"{net.name} puts out {list(scores.shape)}, not one score per class")
    likely = probabilities(scores.reshape(-1))
    labels: Sequence[str | None] = net.labels or [None] * likely.size
    order = likely.argsort(kind="stable")[::-1][:count]
    return [{"index": int(i), "label": labels[i], "probability": float(likely[i])} for i in order]


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
