"""Tables of images (.csv, or .tsv with tabs): a path and its targets in each row.

    path, label                             with or without a line of names
    path, mask                              the mask's path
    path, left, top, right, bottom          a box, in pixels; x0 y0 x1 y1, xmin ymin xmax ymax, too

Paths are relative to the table's folder. Labels are the classes' numbers, names (sorted, so that
each has a number) or, with a fraction, numbers to be learnt.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError, reason
from convdsl.training.data.arrays import ANY, LABEL, Wanted
from convdsl.training.data.boxes import BOXES
from convdsl.training.data.images import MASK, ImageFiles

Array: TypeAlias = "npt.NDArray[Any]"

PATH = "path"
MOST_BYTES = 1 << 30
"""Of a table."""

_NAMES = {"file": PATH, "filename": PATH, "image": PATH, "class": LABEL, "y": LABEL}
_SIDES = (
    ("left", "top", "right", "bottom"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
)


def read_table(
    path: Path, wanted: Wanted = ANY, classes: Sequence[str] | None = None
) -> ImageFiles:
    """The images of a table; names of classes are numbered as in `classes`, where they are given.
    Raises InputError."""
    lines = _rows(path)
    columns, numbered = _columns(lines, path)
    folder = path.parent
    _check_first(lines[0][1], folder, path)
    paths = [folder / text for text in columns.pop(PATH)]
    targets: dict[str, Array] = {}
    known: tuple[str, ...] | None = None
    masks: list[Path] | None = None
    for sides in _SIDES:
        if all(side in columns for side in sides):
            texts = [columns.pop(side) for side in sides]
            edges = [_numbers(t, s, path, numbered) for t, s in zip(texts, sides, strict=True)]
            targets[BOXES] = np.stack(edges, -1)
    for name, texts in columns.items():
        if name == LABEL:
            targets[LABEL], known = _labels(texts, path, numbered, classes)
        elif name == MASK:
            masks = [folder / text for text in texts]
        else:
            targets[name] = _numbers(texts, name, path, numbered)
    return ImageFiles(paths, str(path), wanted, targets, known, masks)


def _check_first(row: list[str], folder: Path, path: Path) -> None:
    """InputError where the first line is taken for data and is not: names of columns that are not
    known, or columns with other signs between."""
    if _header(row) is not None or (row[0] and "\0" not in row[0] and (folder / row[0]).exists()):
        return
    between = next((sign for sign in (";", "\t", "|") if len(row) == 1 and sign in row[0]), None)
    if between is not None:
        said = f"has columns with {between!r} between: write commas"
        raise InputError(f"{path} {said}{', or call it .tsv' if between == chr(9) else ''}")
    if not Path(row[0]).suffix:
        raise InputError(
            f"{path}: no image {row[0]} is there, which its first line names\n"
            f"help: names of columns are {PATH}, {LABEL} and others (docs/formats.md)"
        )


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that hold something, with the numbers of their lines."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(f"{path} is of {size / 1e9:,.1f} GB, at most {MOST_BYTES / 1e9:,.1f}")
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the table {path}: {reason(error)}") from None
    rows = [(number, row) for number, row in rows if any(row)]
    if not rows:
        raise InputError(f"{path} holds no rows")
    return rows


def _columns(
    rows: list[tuple[int, list[str]]], path: Path
) -> tuple[dict[str, list[str]], list[int]]:
    """Columns by name, and the lines that their rows stand in."""
    names = _header(rows[0][1])
    if names is None:
        names = [PATH, LABEL][: len(rows[0][1])]
    else:
        rows = rows[1:]
    if PATH not in names:
        raise InputError(f"{path}: no column is called `{PATH}`, but {', '.join(names)}")
    if not rows:
        raise InputError(f"{path} holds no rows but its names")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: several columns are called `{name}`")
    for number, row in rows:
        if len(row) != len(names):
            raise InputError(
                f"{path}:{number} has {len(row)} columns, not {len(names)} ({', '.join(names)})\n"
                "help: a table without names holds a path and a label; name other columns in its "
                "first line"
            )
    columns = {name: [row[i] for _, row in rows] for i, name in enumerate(names)}
    numbered = [number for number, _ in rows]
    for number, text in zip(numbered, columns[PATH], strict=True):
        if not text or "\0" in text:
            raise InputError(f"{path}:{number} names no image")
    return columns, numbered


def _header(row: Sequence[str]) -> list[str] | None:
    """The names of the columns, where the first row is of names."""
    names = [_NAMES.get(cell.lower(), cell.lower()) for cell in row]
    return names if PATH in names else None


def _labels(
    texts: Sequence[str], path: Path, numbered: Sequence[int], classes: Sequence[str] | None
) -> tuple[Array, tuple[str, ...] | None]:
    """Classes by number or by name, else numbers."""
    if all(_is_whole(text) for text in texts):
        return np.array([int(text) for text in texts], np.int64), None
    if all(_is_number(text) for text in texts):
        return _numbers(texts, LABEL, path, numbered), None
    names = tuple(classes) if classes is not None else tuple(sorted(set(texts)))
    numbers: Mapping[str, int] = {name: number for number, name in enumerate(names)}
    for number, text in zip(numbered, texts, strict=True):
        if not text or text not in numbers:
            said = f"the class {text!r} is none of the training data" if text else "no label"
            raise InputError(f"{path}:{number}: {said}")
    return np.array([numbers[text] for text in texts], np.int64), names


def _numbers(texts: Sequence[str], name: str, path: Path, numbered: Sequence[int]) -> Array:
    for number, text in zip(numbered, texts, strict=True):
        if not _is_number(text):
            raise InputError(f"{path}:{number}: {name} is {text!r}, which is no number")
    return np.array([float(text) for text in texts], np.float32)


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
