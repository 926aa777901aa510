"""Element types, tensor types, windows."""

from __future__ import annotations

import numpy as np
import pytest

from convdsl.tensor import DType, TensorType, Window, symbol

N, H = symbol("N"), symbol("H", minimum=4)


@pytest.mark.parametrize("dtype", DType)
def test_dtypes_are_numpys(dtype: DType) -> None:
    assert np.dtype(dtype.numpy).itemsize == dtype.bytes
    bits = dtype is DType.BF16  # NumPy has no such type: an array holds the bits
    assert (np.dtype(dtype.numpy).kind == "f" or bits) == dtype.is_float


def test_sizes_of_a_tensor() -> None:
    t = TensorType(DType.F64, (N, 3, H, H))
    assert str(t) == "f64[N, 3, H, H]"
    assert t.rank == 4
    assert str(t.elements) == "3*N*H**2"
    assert t.bytes == t.elements * 8
    assert {s.name for s in t.symbols()} == {"N", "H"}
    assert t.bind({"H": 8}) == TensorType(DType.F64, (N, 3, 8, 8))
    assert TensorType(DType.BOOL, ()).elements == 1


def test_extent_of_a_window() -> None:
    window = Window((3, H), (2, 1), ((1, 1), (0, 0)), (4, 2))
    assert window.rank == 2
    assert window.extent(0) == 9
    assert window.extent(1) == H * 2 - 1
