"""Name what photos show.

The image is prepared as the model's file declares; the classes are named by its labels.
Logits become probabilities by softmax, unless the model's outputs are probabilities already.
JSON: [{"file", "top": [{"index", "label", "probability"}]}].
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from convdsl.cli import console
from convdsl.cli.building import network
from convdsl.cli.options import add_building, add_format, add_model, completes, positive


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser, artifacts=True)
    completes(parser.add_argument("image", nargs="+", metavar="IMAGE", help="an image file"))
    parser.add_argument(
        "--top", type=positive, default=5, metavar="K", help="classes to show (default 5)"
    )
    add_format(parser, ("table", "json"))
    add_building(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl.classification import Classifier

    made = network(options)
    classifier = Classifier(made.executable, made.binding)
    found: list[dict[str, Any]] = []
    for images in _batches(options.image, classifier.batch(options.batch or options.usual_batch)):
        for name, top in zip(images, classifier.top(images, options.top), strict=True):
            found.append({"file": name, "top": top})
            if options.format == "table":
                console.result(_lines(top, name))
    if options.format == "json":
        console.result(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


def _batches(images: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _lines(top: Sequence[dict[str, Any]], name: str) -> str:
    rows = [f"  {c['probability']:7.4f}  {c['label'] or 'class'} ({c['index']})" for c in top]
    return "\n".join([name, *rows])
