"""Where the elements of NumPy's arrays lie."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

_HEAD = object.__basicsize__


def _read(array: npt.NDArray[Any]) -> int:
    return ctypes.c_void_p.from_address(id(array) + _HEAD).value or 0


def _asked(array: npt.NDArray[Any]) -> int:
    return array.__array_interface__["data"][0]


def _stands_first() -> bool:
    """Whether the address follows the head of an array, as NumPy's C interface has it, and an
    object's `id` is where it is."""
    if sys.implementation.name != "cpython":
        return False
    row = np.zeros(8)
    return all(_read(array) == _asked(array) for array in (row, row[3:], row[::-1]))


address_of = _read if _stands_first() else _asked
"""The address of an array's first element: read where the array has it, in a quarter of the time
in which it is asked for. A call of a small network asks several times."""
