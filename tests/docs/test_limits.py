"""docs/formats.md: the limits on files are those of the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from convdsl import preprocessing
from convdsl.interop import onnx_file, trial
from convdsl.interop.reading import folding
from convdsl.runtime import artifact, cache
from convdsl.runtime.cpu import team
from convdsl.training.data import arrays, folders, idx, tables
from convdsl.weights import checkpoint, npz_file, pickles, store

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"

LIMITS: tuple[tuple[str, int, str], ...] = (
    ("an ONNX file", trial.MAX_FILE, "bytes"),
    ("one tensor of an ONNX file", onnx_file.MAX_TENSOR, "bytes"),
    ("nodes of an ONNX file", onnx_file.MOST_NODES, ""),
    ("elements that an ONNX file makes of a few", folding.LARGEST_MADE, ""),
    ("tensors of a weight file", store.MAX_ENTRIES, ""),
    ("one array of an .npz", npz_file.MAX_ARRAY_BYTES, "bytes"),
    ("the index of a PyTorch checkpoint", checkpoint.MAX_PICKLE_BYTES, "bytes"),
    ("steps of that index", pickles.MAX_OPCODES, ""),
    ("axes of a tensor of a checkpoint", checkpoint.MAX_RANK, ""),
    ("the manifest of an artifact", artifact.MAX_MANIFEST_BYTES, "bytes"),
    ("the code cache; the least recently used go", cache.LIMIT_BYTES, "bytes"),
    ("an image, decoded", preprocessing.MOST_DECODED_BYTES, "bytes"),
    ("an IDX file, unpacked", idx.MOST_BYTES, "bytes"),
    ("a table of paths and labels", tables.MOST_BYTES, "bytes"),
    ("files of a data set", folders.MOST_FILES, ""),
    ("samples of an iterator", arrays.MOST_ITERATED, "bytes"),
    ("threads", team.MOST_THREADS, ""),
)


def lines() -> Iterator[str]:
    yield from ("| at most | |", "|---|--:|")
    for what, number, unit in LIMITS:
        yield f"| {what} | {number:,} {unit}".rstrip() + " |"


def test_table(request: pytest.FixtureRequest) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    start = text.index("<!-- limits: written by tests/docs, run `make golden` -->\n")
    start = text.index("\n", start) + 1
    end = text.index("<!-- end of limits -->")
    written = "".join(f"{line}\n" for line in lines())
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(text[:start] + written + text[end:], encoding="utf-8")
        return
    assert text[start:end] == written, "run `make golden`"
