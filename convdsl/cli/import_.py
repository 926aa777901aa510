"""Turn an ONNX model into .cnn text and a weight file.

The text is meant to be read and changed: repeated parts become blocks and loops. Before anything
is written it is read back: its graph must be the file's, and so must what it computes of drawn
inputs. The weights go into a safetensors file under the layers' names, class names into a text
file beside.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from convdsl.cli import console
from convdsl.cli.files import place_of, plain_path
from convdsl.cli.interruption import Waiting
from convdsl.cli.options import add_set, add_shapes, batch_of, completes, input_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from convdsl.ir.model import Model


def configure(parser: argparse.ArgumentParser) -> None:
    completes(parser.add_argument("file", metavar="FILE", help="an ONNX model"), "onnx")
    output = parser.add_argument(
        "-o", "--output", metavar="FILE", help="the text (default FILE.cnn); - prints it"
    )
    weights = parser.add_argument(
        "--weights", metavar="FILE", help="the weights (default beside the text, .safetensors)"
    )
    completes(output)
    completes(weights)
    add_set(parser)
    add_shapes(parser, batch=None)


def run(options: argparse.Namespace) -> int:
    from convdsl import exporting, loading, translation
    from convdsl.cli.options import parameters

    path = plain_path(options.file)
    named: str = options.output or f"{path.stem}.cnn"
    output = None if named == "-" else place_of("a network", named, ".cnn")
    beside = output.with_suffix(".safetensors") if output else f"{path.stem}.safetensors"
    stored = place_of("weights", options.weights or str(beside), ".safetensors")
    model = _sized(loading.load_onnx(path, **parameters(options)), options)
    for text in model.notes:
        console.note(text)
    names = output.with_suffix(".labels.txt") if output and model.labels else None
    made = exporting.translation(model, names.name if names else None)
    for note in translation.renamed(model):
        console.note(note)
    agreement = translation.compare_numbers(model, made.model, made.weights)
    console.note(agreement or "the numbers were not compared: nothing could be run")
    files = {stored: made.weights}
    if names and model.labels:
        files = {names: "".join(f"{label}\n" for label in model.labels).encode(), **files}
    if output is None:
        console.result(made.text)
    else:
        files = {output: made.text.encode(), **files}
    _write(files)
    return 0


def _sized(model: Model, options: argparse.Namespace) -> Model:
    """With the sizes that `--batch` and `--input` say, and all others left free."""
    from convdsl.sizes import bind

    binding = bind(model, input_shapes(options), batch_of(model, options))
    settled = model.settled(binding)
    return replace(settled, graph=settled.graph.bind(binding)) if binding else model


def _write(files: Mapping[Path, bytes]) -> None:
    """All of them, or none where one cannot be."""
    from convdsl.runtime.whole_files import told_of, write_all

    with Waiting(), told_of():
        write_all({path: [data] for path, data in files.items()})
    for path, data in files.items():
        console.note(f"{path}: {len(data):,} bytes")
