"""Issue slots of a warp in one step of a product: how many instructions a scheduler issues.

    products + loads of fragments + bringing them into registers + copies + the loop

Numbers of the machine code that NVRTC 13.5 makes for sm_80 (tests/cuda/test_machine_code.py holds
main loops to what follows from them).
"""

from __future__ import annotations

from convdsl.kernel.mma import TF32
from convdsl.schedules.cuda.factor import Form, Way
from convdsl.schedules.cuda.tile import LEAST_COPY, VECTOR, Tile
from convdsl.tensor import DType
from convdsl.tensor.records import record

_TESTED = 10.0
"""Of one copy that a border may leave out: address, tests, the copy."""
_ALONE = 12.0  # the same of a single element
_HALF_ALONE = 60.0
"""The same of a single half, which goes through registers: where it is from is worked out anew for
each, and all of a step are held at a time."""
_PLAIN = 4.0  # without tests
_LOOP = 24.0  # of a step besides: where it is, the barrier, the wait
_ROUNDED = 3.0  # of rounding to TF32: no card does it in one
_NARROWED = 0.5  # of an f32 that becomes a half: two at a time
_JOINED = 0.5  # of a half that comes with others of its depth: two become a register
_MOVED = 10.0
"""Of the four registers of a piece's rows that come from two loads, and must stand side by side."""


@record
class Side:
    """A factor: how it is stored and copied, whether a border cuts it, whether it was rounded
    before; its rows in a tile, and those that a thread brings to tensor units."""

    dtype: DType
    way: Way
    bordered: bool
    rounded: bool
    size: int
    brought: int


def slots(tile: Tile, sides: tuple[Side, Side]) -> float:
    """Of a whole step."""
    copies = sum(_copies(tile, side) for side in sides)
    if tile.form is None:
        products = tile.thread_rows * tile.thread_vectors * VECTOR * tile.depth
        loads = tile.depth / VECTOR * tile.thread_rows + tile.depth * tile.thread_vectors
        return products + loads + copies + _LOOP
    if tile.grouped:
        return tile.mmas + copies + _LOOP
    chunk = sum(_fragments(tile, side) for side in sides)
    if tile.halves:
        chunk += _MOVED * tile.row_pieces * (tile.chunk // tile.form.k)
    return tile.mmas + tile.chunks * chunk + copies + _LOOP


def _copies(tile: Tile, side: Side) -> float:
    count = side.size * tile.depth / side.way.width / tile.threads
    if side.way.width > 1:
        return count * (_TESTED if side.bordered else _PLAIN)
    return count * (_ALONE if side.dtype.bytes >= LEAST_COPY else _HALF_ALONE)


def _fragments(tile: Tile, side: Side) -> float:
    """Loads of one chunk, and what makes registers of a form of them."""
    elements = side.brought * tile.vector
    along = side.way.form is Form.ROWS
    loads = elements / min(tile.vector, side.brought) if along else side.brought
    if tile.halves:
        return loads + (_JOINED * elements if along else 0.0)
    if tile.form is TF32:
        exact = side.rounded or side.dtype is not DType.F32
        return loads + (0.0 if exact else _ROUNDED * elements)
    return loads + _NARROWED * elements
