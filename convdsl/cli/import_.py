"""Turn an ONNX model into .cnn text and a weight file.

The text is meant to be read and changed: repeated parts become blocks and loops. The weights go
into a safetensors file under the layers' names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from convdsl.cli import console
from convdsl.cli.options import add_set, completes_files, plain_path


def configure(parser: argparse.ArgumentParser) -> None:
    completes_files(parser.add_argument("file", metavar="FILE", help="an ONNX model"))
    output = parser.add_argument(
        "-o", "--output", metavar="FILE", help="the text (default FILE.cnn); - prints it"
    )
    weights = parser.add_argument(
        "--weights", metavar="FILE", help="the weights (default FILE.safetensors)"
    )
    completes_files(output)
    completes_files(weights)
    add_set(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl import driver
    from convdsl.cli.options import parameters

    path = plain_path(options.file)
    text, weights = driver.translate(path, **parameters(options))
    beside = Path(path.stem)
    if options.output == "-":
        console.result(text)
    else:
        _write(plain_path(options.output or f"{beside}.cnn"), text.encode())
    _write(plain_path(options.weights or f"{beside}.safetensors"), weights)
    return 0


def _write(path: Path, data: bytes) -> None:
    from convdsl.runtime.whole_files import write_whole

    write_whole(path, [data])
    console.note(f"{path}: {len(data):,} bytes")
