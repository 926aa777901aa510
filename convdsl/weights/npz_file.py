"""NumPy archives of plain arrays; sizes are checked before anything is allocated.

The header of each array (numpy.lib.format, versions 1 to 3) is matched, not evaluated: object
arrays, which would need pickle, cannot even be named.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convdsl.diagnostics import WeightError
from convdsl.weights.store import MAX_ENTRIES, Entry, WeightStore

MAX_ARRAY_BYTES = 16 << 30
"""Largest array accepted."""

MAX_DEFLATE_RATIO = 1040
"""DEFLATE cannot shrink further (258 bytes in 2 bits); who declares more, lies."""

_MAX_HEADER = 10_000
_LOCAL_HEADER = 30  # bytes before the name of a member
_MAGIC = b"\x93NUMPY"


class NpzFile(WeightStore):
    """An `.npz` as np.savez and np.savez_compressed write it. With `texts` its arrays may hold
    names (dtype U) beside numbers."""

    def __init__(self, path: Path, *, texts: bool = False) -> None:
        super().__init__(str(path))
        self._texts = texts
        try:
            self._zip = zipfile.ZipFile(path)
            members = self._zip.infolist()
            if len(members) > MAX_ENTRIES:
                raise WeightError(f"{path} holds {len(members)} arrays, at most {MAX_ENTRIES}")
            self._members = {member.filename.removesuffix(".npy"): member for member in members}
            self._entries = {name: self._check(name) for name in self._members}
        except _DAMAGE as error:
            raise WeightError(f"{path} is not a sound .npz archive: {error}") from None

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self._entries

    def read(self, name: str) -> NDArray[Any]:
        entry = self._entries[name]
        try:
            with self._zip.open(self._members[name]) as file:
                _, fortran, dtype = _read_header(file, texts=self._texts)
                data = file.read()  # to the end, so that zipfile checks the CRC
        except _DAMAGE as error:
            raise WeightError(f"cannot read {name} from {self.source}: {error}") from None
        if len(data) != prod(entry.shape) * dtype.itemsize:
            raise WeightError(f"{name} in {self.source} is cut short")
        flat: NDArray[Any] = np.frombuffer(data, dtype)
        return flat.reshape(entry.shape, order="F" if fortran else "C")

    def map(self, name: str) -> NDArray[Any]:
        """One array, mapped where it is stored without compression: then nothing is read yet, and
        its checksum never compared. Raises WeightError."""
        entry, member = self._entries[name], self._members[name]
        if member.compress_type != zipfile.ZIP_STORED or prod(entry.shape) == 0:
            return self.read(name)
        try:
            with Path(self.source).open("rb") as file:
                file.seek(member.header_offset)
                local = file.read(_LOCAL_HEADER)
                names, extra = local[26:28], local[28:30]
                file.seek(int.from_bytes(names, "little") + int.from_bytes(extra, "little"), 1)
                _, fortran, dtype = _read_header(file, texts=self._texts)
                return _mapped(Path(self.source), entry.shape, fortran, dtype, file.tell())
        except _DAMAGE as error:
            raise WeightError(f"cannot read {name} from {self.source}: {error}") from None

    def _check(self, name: str) -> Entry:
        """The entry of a member whose declared sizes agree with each other and the file."""
        member = self._members[name]
        if not member.filename.endswith(".npy"):
            raise ValueError(f"it holds {member.filename!r}, which is no array")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed in a way that NumPy does not use")
        ratio = 1 if member.compress_type == zipfile.ZIP_STORED else MAX_DEFLATE_RATIO
        if member.file_size > member.compress_size * ratio:
            raise ValueError(f"{name} declares more bytes than its compressed data can hold")
        with self._zip.open(member) as file:
            try:
                shape, _, dtype = _read_header(file, texts=self._texts)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            body = member.file_size - file.tell()
        declared = prod(shape) * dtype.itemsize
        if declared != body:
            raise ValueError(f"{name} declares {declared} bytes and brings {body}")
        if declared > MAX_ARRAY_BYTES:
            raise ValueError(f"{name} declares {declared} bytes, at most {MAX_ARRAY_BYTES}")
        return Entry(shape, dtype.name)


def is_npy(path: Path) -> bool:
    """Whether a file begins as np.save begins it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_npy(path: Path) -> NDArray[Any]:
    """One array file, as np.save writes it. Raises WeightError."""
    array = map_npy(path)
    if array.nbytes > MAX_ARRAY_BYTES:
        raise WeightError(
            f"{path} is not a sound .npy file: it declares {array.nbytes} bytes, at most "
            f"{MAX_ARRAY_BYTES}"
        )
    return np.array(array, order="K")


def map_npy(path: Path, *, texts: bool = False) -> NDArray[Any]:
    """The array in such a file, mapped: nothing is read yet. With `texts` it may hold names (dtype
    U). Raises WeightError."""
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _read_header(file, texts=texts)
            declared = prod(shape) * dtype.itemsize
            body = path.stat().st_size - file.tell()
            if declared != body:
                raise ValueError(f"it declares {declared} bytes and brings {body}")
            return _mapped(path, shape, fortran, dtype, file.tell())
    except (OSError, ValueError) as error:
        raise WeightError(f"{path} is not a sound .npy file: {error}") from None


def _mapped(
    path: Path, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any], offset: int
) -> NDArray[Any]:
    order = "F" if fortran else "C"
    if prod(shape) == 0:
        return np.zeros(shape, dtype, order)
    return np.memmap(path, dtype, "r", offset, shape, order)


# What a hostile archive makes zipfile and zlib raise.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)

# The header exactly as NumPy writes it; nothing is evaluated.
_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<>|][fiub][1248]|[<>]U[1-9][0-9]{0,3})',"
    rb" 'fortran_order': (?P<fortran>True|False),"
    rb" 'shape': \((?P<shape>(?:\d{1,15}(?:, ?|(?=\))))*)\), \}[ \n]*"
)


_TYPE = re.compile(rb"'descr': ?'[<>|=]?([a-zA-Z])(\d{0,3})'")
_TYPES = {b"c": "complex numbers", b"U": "texts", b"S": "bytes", b"M": "dates", b"m": "durations"}


def _foreign(header: bytes) -> str:
    """What an array holds that is not read, as far as its header says so."""
    found = _TYPE.search(header)
    kind = _TYPES.get(found[1]) if found is not None else None
    return f"an array of {kind}" if kind is not None else "what NumPy never writes such a header of"


def _read_header(
    file: IO[bytes], *, texts: bool = False
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, element type); `file` is left at the data. Elements are numbers, or,
    where `texts` may be, of so many characters each: plain bytes too."""
    magic = file.read(8)
    if magic[:6] != _MAGIC or magic[6:] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise ValueError("a member is no array")
    length = int.from_bytes(file.read(2 if magic[6] == 1 else 4), "little")
    if length > _MAX_HEADER:
        raise ValueError(f"an array's header has {length} bytes, at most {_MAX_HEADER}")
    text = file.read(length)
    header = _HEADER.fullmatch(text)
    if header is None and b"'|O'" in text:
        raise ValueError(
            "an array of Python objects, which only pickle reads, is no plain array of numbers"
            + (": names are plain as np.array(names, 'U')" if texts else "")
        )
    if header is None or (b"U" in header["dtype"] and not texts):
        raise ValueError(f"{_foreign(text)} is no plain array of numbers")
    shape = tuple(int(extent) for extent in header["shape"].split(b",") if extent.strip())
    return shape, header["fortran"] == b"True", np.dtype(header["dtype"].decode())
