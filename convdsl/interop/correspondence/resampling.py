"""What `resize` has not, from ONNX: cubic and antialiased, axis by axis.

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
    rounded: bool = False  # from one scale of all axes to whole sizes, at whose ends corners are

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
                last = size - 1 if self.rounded else whole - 1
                return o * (extent - 1) / last if last > 0 and size > 1 else 0.0
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

    def taps(self, extent: int, size: int, scale: float) -> tuple[Array, Array]:
        """(positions, weights) of what each output sums, [size, taps]: weights of a row sum to one,
        and beyond the border lies its last element."""
        narrowing = min(scale, 1.0) if self.antialias else 1.0
        places = np.array([self.place(o, extent, size, scale) for o in range(size)])
        below = np.floor(places).astype(np.int64)[:, None]
        reach = floor(-self.reach / narrowing) + 1
        taps = below + np.arange(reach, 2 - reach)
        weights = self.kernel((taps - places[:, None]) * narrowing)
        if self.exclude_outside:
            weights = np.where((taps >= 0) & (taps < extent), weights, 0.0)
        return np.clip(taps, 0, extent - 1), weights / weights.sum(axis=1, keepdims=True)


def without_zeros(positions: Array, weights: Array) -> tuple[Array, Array]:
    """The same sums, without taps of weight zero, of which an infinity would make NaN: rows that
    have fewer taps than others have equal parts of their largest one instead."""
    counts = np.count_nonzero(weights, axis=1)
    most = int(counts.max(initial=1))
    order = np.argsort(-np.abs(weights), axis=1, kind="stable")[:, :most]
    positions, weights = (np.take_along_axis(a, order, axis=1) for a in (positions, weights))
    parts = np.maximum(most - counts + 1, 1)[:, None]
    same = np.arange(most) > most - parts
    weights[:, :1] /= parts
    return np.where(same, positions[:, :1], positions), np.where(same, weights[:, :1], weights)


def resample(
    r: Reading, how: Resampling, sizes: Mapping[int, Any], scales: Mapping[int, float]
) -> Tensor:
    """The input resampled axis by axis: what shrinks most first, of two alike rows before what
    lies in them; what grows, the other way round."""
    x: Tensor = r[0]
    own = r.shape(0)
    changed = [a for a in sizes if own[a] != sizes[a] or scales.get(a, 1.0) != 1.0]
    pairs = {axis: (r.extent(own[axis]), r.extent(sizes[axis])) for axis in changed}
    growth = {axis: size / max(extent, 1) for axis, (extent, size) in pairs.items()}
    for axis in sorted(pairs, key=lambda a: (growth[a], a if growth[a] < 1 else -a)):
        extent, size = pairs[axis]
        scale = scales.get(axis, size / extent)
        if how.mode == "nearest":
            nearest = Known(how.nearest(extent, size, scale))
            x = r.apply("take", {"x": x, "positions": nearest}, axis=axis)
            continue
        x = _summed(r, x, axis, *without_zeros(*how.taps(extent, size, scale)))
    return r.unary("identity", x) if x is r[0] else x


def _summed(r: Reading, x: Tensor, axis: int, positions: Array, weights: Array) -> Tensor:
    """Weighted sums of neighbours: an infinity is met by its neighbours alone."""
    taken = r.apply("take", {"x": x, "positions": Known(positions)}, axis=axis)
    across = (*positions.shape, *[1] * (r.rank(0) - 1 - axis))
    weighted = r.binary("mul", taken, r.like(weights.reshape(across), x))
    return r.unary("reduce_sum", weighted, axes=(axis + 1,))
