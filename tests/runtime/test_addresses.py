"""Where elements lie, read out of the array: as NumPy says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convdsl.runtime.cpu.addresses import address_of

GRID = np.arange(60, dtype="f4").reshape(3, 4, 5)


@pytest.mark.parametrize(
    "array",
    [
        GRID,
        GRID[1:],
        GRID[::-1, ::-1],
        GRID.T,
        np.broadcast_to(GRID[0], (7, 4, 5)),
        np.zeros((0, 3)),
        np.array(2.5),
        np.frombuffer(b"01234567", "u1")[3:],
        GRID.astype(">f8"),
    ],
    ids=lambda array: f"{type(array).__name__}{array.shape}{array.strides}",
)
def test_the_address_is_what_numpy_says(array: Any) -> None:
    assert address_of(array) == array.ctypes.data


def test_of_an_array_that_is_a_file(tmp_path: Path) -> None:
    file = np.memmap(tmp_path / "a", "f4", "w+", shape=(8,))
    assert address_of(file[2:]) == file.ctypes.data + 8
