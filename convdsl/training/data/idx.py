"""IDX files, as MNIST came in: big-endian arrays behind a short header, plain or gzipped.

    0 0 TYPE RANK   then RANK extents of four bytes, then the elements

LeCun, Cortes, Burges, "The MNIST database of handwritten digits". A plain file is mapped; a
compressed one is read as far as its header says.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError, reason

Array: TypeAlias = "npt.NDArray[Any]"

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_BYTES = 4 << 30
"""Largest array taken out of a compressed file."""

_MOST_RANK = 8
_CHUNK = 1 << 24
_GZIP = b"\x1f\x8b"
_DAMAGE = (OSError, EOFError, zlib.error, struct.error)


def is_idx(path: Path) -> bool:
    """Whether a file begins as IDX does, plain or in gzip."""
    try:
        with _opened(path) as file:
            start = file.read(4)
    except _DAMAGE:
        return False
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in TYPES and start[3] > 0


def read_idx(path: Path) -> Array:
    """The array in a file. Raises InputError for what is none, or is cut short."""
    try:
        with _opened(path) as file:
            shape, dtype, offset = _header(file, path)
            declared = prod(shape) * dtype.itemsize
            if isinstance(file, gzip.GzipFile):
                return _decompressed(file, path, shape, dtype, declared)
        _check_size(path, declared, path.stat().st_size - offset)
        if declared == 0:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape)
    except _DAMAGE as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from None


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    return gzip.GzipFile(path) if compressed else path.open("rb")


def _header(
    file: IO[bytes] | gzip.GzipFile, path: Path
) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """(shape, element type, bytes of the header); `file` is left at the elements."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES:
        raise InputError(f"{path} is no IDX file, as MNIST's are")
    rank = start[3]
    if not 1 <= rank <= _MOST_RANK:
        raise InputError(f"{path} declares an array of {rank} axes, not of 1 to {_MOST_RANK}")
    extents = file.read(4 * rank)
    if len(extents) < 4 * rank:
        raise InputError(f"{path} is cut short: it ends in its header")
    return struct.unpack(f">{rank}I", extents), np.dtype(TYPES[start[2]]), 4 + 4 * rank


def _decompressed(
    file: gzip.GzipFile, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], declared: int
) -> Array:
    if declared > MOST_BYTES:
        raise InputError(
            f"{path} declares {declared / 1e9:,.1f} GB, and a compressed file is read into memory "
            f"up to {MOST_BYTES / 1e9:,.1f}\nhelp: decompress it (gunzip)"
        )
    data = bytearray()
    while len(data) <= declared:
        part = file.read(min(_CHUNK, declared + 1 - len(data)))
        if not part:
            break
        data += part
    _check_size(path, declared, len(data))
    return np.frombuffer(data, dtype).reshape(shape)


def _check_size(path: Path, declared: int, there: int) -> None:
    if there < declared:
        raise InputError(
            f"{path} is cut short: its header declares {declared:,} bytes of elements, {there:,} "
            "are there\nhelp: copy or download it again"
        )
    if there > declared:
        raise InputError(
            f"{path} is no sound IDX file: more follows than the {declared:,} bytes of elements "
            "that its header declares"
        )
