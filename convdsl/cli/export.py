"""Write a model as ONNX, or as PyTorch source.

ONNX holds the network, its weights, preprocessing and class names; the batch and other free
sizes stay open, but those that `--input` says. `--to pytorch` writes a plain nn.Module whose state
dict has the same keys.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from convdsl.cli import console
from convdsl.cli.building import load_model
from convdsl.cli.files import place_of
from convdsl.cli.options import (
    add_inputs,
    add_model,
    add_weights,
    completes,
    input_shapes,
    weights_of,
)
from convdsl.cli.sizing import sizes_of

SUFFIXES = {"onnx": ".onnx", "pytorch": ".py"}
_NAMES = {"onnx": "an ONNX model", "pytorch": "PyTorch source"}


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_inputs(parser)
    add_weights(parser)
    parser.add_argument(
        "--to", choices=SUFFIXES, help="what to write (default onnx, or what -o FILE ends in)"
    )
    output = parser.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default MODEL.onnx or MODEL.py)"
    )
    completes(output)


def run(options: argparse.Namespace) -> int:
    from convdsl import exporting

    model = load_model(options)
    sizes = sizes_of(model, input_shapes(options))
    if sizes:
        model = replace(model, graph=model.graph.bind(sizes))
    to = options.to or _said_by(options.output or "")
    end = SUFFIXES[to]
    named = options.output or f"{model.name}{end}"
    path = place_of(_NAMES[to], named, end, is_said=bool(options.to))
    if options.weights and to == "pytorch":
        console.note("--weights plays no part in --to pytorch")
    data = exporting.export(model, weights_of(options), path, to=to)
    console.note(f"{path}: {len(data):,} bytes")
    return 0


def _said_by(path: str) -> str:
    """What the end of a path says is to be written; ONNX where it says nothing."""
    return next((to for to, end in SUFFIXES.items() if path.lower().endswith(end)), "onnx")
