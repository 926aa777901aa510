"""What `resize` has not, from ONNX: cubic and antialiased, each axis is multiplied by a matrix.

Every output position is a weighted sum of input positions that depends on sizes alone. The weights
are those of ONNX's Resize: cubic convolution (Keys 1981, eq. 4, with a free coefficient), or linear
interpolation; with antialiasing the kernel is widened by as much as the axis shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from convdsl.interop.reading.tensors import Array, Known, ReadError, Tensor

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading

Kernel: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True)
class Resampling:
    """What Resize says of all axes."""

    mode: str
    coordinates: str
    rounding: str
    antialias: bool
    exclude_outside: bool
    coefficient: float

    @property
    def reach(self) -> int:
        return 2 if self.mode == "cubic" else 1

    def kernel(self, x: Array) -> Array:
        """Weight at a distance, which is zero from `reach` on."""
        x = np.abs(x)
        if self.mode == "linear":
            return np.clip(1 - x, 0, 1)
        a = self.coefficient
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    def place(self, o: int, extent: int, size: int, scale: float) -> float:
        """Where output position o lies in the input."""
        whole = scale * extent
        match self.coordinates:
            case "half_pixel":
                return (o + 0.5) / scale - 0.5
            case "half_pixel_symmetric":
                return extent / 2 * (1 - size / whole) + (o + 0.5) / scale - 0.5
            case "pytorch_half_pixel":
                return (o + 0.5) / scale - 0.5 if size > 1 else 0.0
            case "align_corners":
                return o * (extent - 1) / (whole - 1) if whole > 1 and size > 1 else 0.0
            case "asymmetric":
                return o / scale
            case "tf_half_pixel_for_nn":
                return (o + 0.5) / scale
            case _:
                raise ReadError(f"{self.coordinates} is supported for plain resizing only")

    def nearest(self, extent: int, size: int, scale: float) -> Array:
        """[size]: the position of the input nearest to each of the output."""
        places = np.array([self.place(o, extent, size, scale) for o in range(size)])
        rounded = {
            "floor": np.floor(places),
            "ceil": np.ceil(places),
            "round_prefer_floor": np.ceil(places - 0.5),
            "round_prefer_ceil": np.floor(places + 0.5),
        }[self.rounding]
        return np.clip(rounded, 0, extent - 1).astype(np.int64)

    def matrix(self, extent: int, size: int, scale: float) -> Array:
        """[size, extent]: rows of weights that sum to one; beyond the border its last element."""
        narrowing = min(scale, 1.0) if self.antialias else 1.0
        result = np.zeros((size, extent))
        for o in range(size):
            x = self.place(o, extent, size, scale)
            first = floor(x) + floor(-self.reach / narrowing) + 1
            taps = np.arange(first, 2 * floor(x) + 2 - first)
            weights = self.kernel((taps - x) * narrowing)
            if self.exclude_outside:
                weights = np.where((taps >= 0) & (taps < extent), weights, 0.0)
            np.add.at(result[o], np.clip(taps, 0, extent - 1), weights / weights.sum())
        return result


def resample(
    r: Reading, how: Resampling, sizes: Mapping[int, Any], scales: Mapping[int, float]
) -> Tensor:
    """The input, its axes multiplied from the last to the first spatial one."""
    x: Tensor = r[0]
    rank = r.rank(0)
    for axis in sorted(sizes, reverse=True):
        extent, size = r.extent(r.shape(0)[axis]), r.extent(sizes[axis])
        scale = scales.get(axis, size / extent)
        if size == extent and scale == 1.0:
            continue
        if how.mode == "nearest":
            positions = Known(how.nearest(extent, size, scale))
            x = r.apply("take", {"x": x, "positions": positions}, axis=axis)
            continue
        matrix = how.matrix(extent, size, scale)
        if axis == rank - 1:
            x = r.binary("matmul", x, r.like(matrix.T, x))
        elif axis == rank - 2:
            x = r.binary("matmul", r.like(matrix, x), x)
        else:
            order = [*(i for i in range(rank) if i != axis), axis]
            turned = r.unary("transpose", x, axes=tuple(order))
            made = r.binary("matmul", turned, r.like(matrix.T, x))
            back = tuple(order.index(i) for i in range(rank))
            x = r.unary("transpose", made, axes=back)
    return r.unary("identity", x) if x is r[0] else x
