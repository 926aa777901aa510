"""Launches kernels of a module on a processor, and runs whole programs so."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cuda_shim.modules import Library

Array = npt.NDArray[Any]
Three = tuple[int, int, int]


class Caught(AssertionError):
    """What a detector found: its name, and who did what."""

    def __init__(self, detector: str, message: str) -> None:
        super().__init__(f"{detector}: {message}")
        self.detector = detector


@dataclass(frozen=True)
class Order:
    """In which order blocks and threads run: 0 ascending, 1 descending, else a seed.

    in_flight: blocks that run at once, changed at barriers.
    late: copies from global to shared memory complete when they are waited for, not at once.
    """

    blocks: int = 0
    threads: int = 0
    in_flight: int = 1
    late: bool = True


FORWARD = Order()
ORDERS: Mapping[str, Order] = {
    "forward": FORWARD,
    "backward": Order(1, 1, 3, late=False),
    "shuffled": Order(2, 3, 4),
    "mixed": Order(7, 1, 2, late=False),
}


@dataclass(frozen=True)
class Launched:
    """One launch of one kernel, its arguments arrays by their names."""

    function: str
    grid: Three
    block: Three
    shared_bytes: int = 0
    granule: int = 4  # bytes of an element of the shared memory that the launch asks for


@dataclass(frozen=True)
class Memory:
    """An argument: a flat array, and whether the kernel may write it."""

    name: str
    array: Array
    written: bool


class _Region(ctypes.Structure):
    _fields_ = [
        ("begin", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("granule", ctypes.c_int32),
        ("written", ctypes.c_int32),
    ]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint32),
        ("shared_granule", ctypes.c_uint32),
        ("block_order", ctypes.c_uint32),
        ("thread_order", ctypes.c_uint32),
        ("in_flight", ctypes.c_uint32),
        ("late", ctypes.c_int32),
        ("noted", ctypes.c_int32),
        ("regions", ctypes.POINTER(_Region)),
        ("region_count", ctypes.c_uint32),
        ("message_bytes", ctypes.c_uint32),
        ("message", ctypes.c_char_p),
    ]


_GAP = 1 << 20
"""Bytes of nobody's around each argument: what runs out of one does not run into another."""


@dataclass(frozen=True)
class _Piece:
    """Arguments that overlap are one region: [start, stop) in the caller's memory."""

    start: int
    stop: int
    members: tuple[Memory, ...]

    @property
    def written(self) -> bool:
        return any(m.written for m in self.members)

    @property
    def name(self) -> str:
        return " = ".join(m.name for m in self.members)

    @property
    def granule(self) -> int:
        return min(m.array.itemsize for m in self.members)


def _start(array: Array) -> int:
    return array.ctypes.data


def _pieces(memories: Sequence[Memory]) -> list[_Piece]:
    made: list[_Piece] = []
    for m in sorted(memories, key=lambda m: _start(m.array)):
        start, stop = _start(m.array), _start(m.array) + m.array.nbytes
        if made and start < made[-1].stop:
            last = made.pop()
            made.append(_Piece(last.start, max(last.stop, stop), (*last.members, m)))
        else:
            made.append(_Piece(start, stop, (m,)))
    return made


def _bytes_at(address: int, count: int) -> npt.NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))


def launch(
    library: Library,
    launched: Launched,
    memories: Sequence[Memory],
    order: Order = FORWARD,
    *,
    noted: bool,
) -> None:
    """Run one kernel on arrays, which change in place where they are written. Raises Caught.

    With notes each argument is moved to a place of its own first."""
    pieces = _pieces([m for m in memories if m.array.nbytes])
    field = np.empty(sum(p.stop - p.start + 256 + _GAP for p in pieces) + _GAP, np.uint8)
    moved: dict[int, int] = {}  # where a piece begins -> where it lies now
    at = -(-_start(field) // 256) * 256 + _GAP
    for piece in pieces:
        moved[piece.start] = at if noted else piece.start
        if noted:
            _bytes_at(at, piece.stop - piece.start)[:] = _bytes_at(
                piece.start, piece.stop - piece.start
            )
        at += -(-(piece.stop - piece.start) // 256) * 256 + _GAP
    regions = (_Region * max(len(pieces), 1))(
        *[
            _Region(moved[p.start], p.stop - p.start, p.name.encode(), p.granule, p.written)
            for p in pieces
        ]
    )

    def address(m: Memory) -> int:
        for piece in pieces:
            if m in piece.members or any(m is member for member in piece.members):
                return moved[piece.start] + _start(m.array) - piece.start
        return 0

    pointers = [ctypes.c_void_p(address(m)) for m in memories]
    arguments = (ctypes.c_void_p * max(len(pointers), 1))(
        *[ctypes.addressof(pointer) for pointer in pointers]
    )
    message = ctypes.create_string_buffer(1024)
    given = _Launch(
        library.kernels[launched.function], arguments, launched.grid, launched.block,
        launched.shared_bytes, launched.granule, order.blocks, order.threads, order.in_flight,
        order.late, noted, regions, len(pieces), len(message),
        ctypes.cast(message, ctypes.c_char_p),
    )  # fmt: skip
    if library.launch(ctypes.byref(given)):
        detector, _, text = message.value.decode().partition(": ")
        raise Caught(detector, f"{launched.function}: {text}")
    if noted:
        for piece in pieces:
            if piece.written:
                count = piece.stop - piece.start
                _bytes_at(piece.start, count)[:] = _bytes_at(moved[piece.start], count)
