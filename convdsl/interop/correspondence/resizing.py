"""Resizing of space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.interop.correspondence.resampling import Resampling, resample
from convdsl.interop.correspondence.row import Read, Row
from convdsl.interop.correspondence.wording import Lacking, PyTorch, Wording, text
from convdsl.interop.reading.tensors import ReadError, Tensor, Undecided
from convdsl.ir.opdef import Call
from convdsl.ir.windows import FITTING
from convdsl.ops.resize import COORDINATES, CROP, LINEAR, NEAREST, ROUNDINGS, WHOLE, rational
from convdsl.tensor import Dim

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling


# From ONNX


def _read_resize(r: Reading) -> Tensor:
    """Opset 10 has scales as the second input, later ones roi, scales and sizes."""
    rank, own = r.rank(0), r.shape(0)
    axes = [axis % rank for axis in r.attribute("axes") or range(rank)]
    last = len(r.inputs) - 1
    scales = r.numbers(2 if r.opset > 10 else 1) if r.has(2 if r.opset > 10 else 1) else []
    how: dict[str, Any] = {}
    coordinates = r.attribute("coordinate_transformation_mode", "half_pixel")
    coordinates = "asymmetric" if r.opset <= 10 else coordinates
    default = "round_prefer_floor" if r.opset > 10 else "floor"
    rounding = r.attribute("nearest_mode", default)
    if coordinates not in COORDINATES or rounding not in ROUNDINGS:
        raise ReadError(f"there are no coordinates {coordinates}, rounded by {rounding}")
    if last >= 3 and r.has(3):
        sizes, common = _fitted(r, dict(zip(axes, r.sizes(3), strict=True)))
        _only_space(axes, [a > 1 or _stays(own[a], sizes[a]) for a in axes])
        how["size"] = tuple(sizes.get(a, own[a]) for a in range(2, rank))
        if _is_resampling(r) or (common and coordinates not in (CROP, "align_corners")):
            way = replace(_resampling(r, coordinates, rounding), rounded=bool(common))
            return resample(r, way, sizes, common)
    elif scales:
        factors = dict(zip(axes, scales, strict=True))
        _only_space(axes, [factors[a] == 1.0 for a in axes])
        if _is_resampling(r) or _falls_between(r, coordinates, factors):
            sizes = {
                a: own[a] if f == 1.0 else _scaled(r.extent(own[a]), f) for a, f in factors.items()
            }
            return resample(r, _resampling(r, coordinates, rounding), sizes, factors)
        factors = {a: _meant(own[a], f) for a, f in factors.items()}
        how["scale"] = tuple(factors.get(a, 1.0) for a in range(2, rank))
    else:
        raise ReadError("neither scales nor sizes")
    if coordinates == CROP:
        roi = r.numbers(1)
        half = len(roi) // 2
        starts, ends = (
            dict(zip(axes, roi[:half], strict=True)),
            dict(zip(axes, roi[half:], strict=True)),
        )
        space = range(2, rank)
        how["roi"] = (*(starts.get(a, 0.0) for a in space), *(ends.get(a, 1.0) for a in space))
        how["extrapolation"] = r.attribute("extrapolation_value", 0.0)
    how |= {"coordinates": coordinates, "rounding": rounding}
    return r.unary("resize", r[0], mode=r.attribute("mode", "nearest"), **how)


def _is_resampling(r: Reading) -> bool:
    """Whether more than two neighbours of a position count."""
    mode = r.attribute("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        raise ReadError(f"{mode} interpolation does not exist")
    return mode == "cubic" or (mode == "linear" and bool(r.attribute("antialias", 0)))


def _falls_between(r: Reading, coordinates: str, factors: Mapping[int, float]) -> bool:
    """Whether corners are aligned for a size that is no whole number, which ours rounds first."""
    if coordinates != "align_corners":
        return False
    own = r.shape(0)
    return any(
        factor % 1 and _product(r.extent(own[a]), factor) % 1 for a, factor in factors.items()
    )


def _scaled(extent: int, scale: float) -> int:
    """The size that a scale gives."""
    return int(_product(extent, scale))


def _product(extent: int, scale: float) -> float:
    """In single precision, as ONNX has it: 23 times what is 9/23 there, and lies below it, is 9."""
    return float(np.float32(extent) * np.float32(scale))


def _meant(extent: Dim, scale: float) -> float:
    """A scale that gives that size exactly: the simplest fraction that single precision writes so,
    the number itself, or the ratio of the sizes. Of a free extent the fraction is taken: 0.7 is
    less in single precision, and would make 6 of 10."""
    fraction = float(Fraction(scale).limit_denominator(_SIMPLE))
    simple = fraction if np.float32(fraction) == np.float32(scale) else scale
    if not isinstance(extent, int):
        return simple
    size = _scaled(extent, scale)
    exact = (factor for factor in (simple, scale) if floor(rational(factor) * extent) == size)
    return next(exact, size / extent)


_SIMPLE = 1 << 11
"""The largest denominator of what is taken for a ratio; 24 bits tell them apart up to here."""


def _resampling(r: Reading, coordinates: str, rounding: str) -> Resampling:
    return Resampling(
        r.attribute("mode", "nearest"),
        coordinates,
        rounding,
        bool(r.attribute("antialias", 0)),
        bool(r.attribute("exclude_outside", 0)),
        r.attribute("cubic_coeff_a", -0.75),
    )


def _stays(own: Dim, size: Dim) -> bool:
    """Whether an extent is the one asked for; where a free size decides, sizes are bound first."""
    if own != size and not (isinstance(own, int) and isinstance(size, int)):
        raise Undecided(f"{own} may be {size} or not")
    return own == size


def _only_space(axes: Sequence[int], unchanged: Sequence[bool]) -> None:
    if not all(same for axis, same in zip(axes, unchanged, strict=True) if axis < 2):
        raise ReadError("batch and channels cannot be resized")


def _fitted(r: Reading, sizes: dict[int, Any]) -> tuple[dict[int, Any], dict[int, float]]:
    """Sizes under the policy for the aspect ratio, halves rounded up; and the one scale of all
    axes, by which positions lie, where a rounded size is another."""
    policy = r.attribute("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return sizes, {}
    if policy not in _POLICIES:
        raise ReadError(f"there is no policy {policy} of keeping the aspect ratio")
    own = {axis: r.extent(r.shape(0)[axis]) for axis in sizes}
    ratio = _POLICIES[policy](Fraction(r.extent(sizes[axis]), own[axis]) for axis in sizes)
    exact = {axis: ratio * own[axis] for axis in sizes}
    found = {axis: floor(size + Fraction(1, 2)) for axis, size in exact.items()}
    return found, {} if found == exact else dict.fromkeys(sizes, float(ratio))


_POLICIES = {"not_larger": min, "not_smaller": max}
"""Which of the axes' scales is the one of all."""


def _read_upsample(r: Reading) -> Tensor:
    scales = r.numbers(1) if r.has(1) else r.attribute("scales")
    if scales is None:  # opset 1 spoke of planes only
        scales = [1.0, 1.0, r.attribute("height_scale"), r.attribute("width_scale")]
    _only_space(range(len(scales)), [scale == 1.0 for scale in scales])
    how = {"coordinates": "asymmetric", "rounding": "floor"}
    factors = tuple(map(_meant, r.shape(0)[2:], scales[2:]))
    return r.unary("resize", r[0], scale=factors, mode=r.attribute("mode", "nearest"), **how)


# As ONNX


def _spell_resize(s: Spelling) -> str:
    call = s.call
    crops = call["roi"] != WHOLE
    roi = s.constant(call["roi"], "float32") if crops else ""
    by_scale = not (call["scale"] == FITTING or _is_ratio_of_sizes(call))
    size = (
        (s.constant(call["scale"], "float32"),)
        if by_scale
        else ("", s.integers(call.outputs[0].shape[2:]))
    )
    how = {"extrapolation_value": call["extrapolation"]} if crops else {}
    return s(
        "Resize",
        s["x"],
        roi,
        *size,
        axes=list(range(2, call.type("x").rank)),
        mode=call["mode"],
        coordinate_transformation_mode=call["coordinates"],
        nearest_mode=call["rounding"],
        **how,
    )


def _is_ratio_of_sizes(call: Call) -> bool:
    """Whether the sizes say the scales as well, which single precision may not."""
    x, (out,) = call.type("x"), call.outputs
    scales = [rational(scale) for scale in call["scale"]]
    axes = zip(scales, x.shape[2:], out.shape[2:], strict=True)
    return all(extent * scale.numerator == size * scale.denominator for scale, extent, size in axes)


# In PyTorch

_CONVENTION = "PyTorch has no interpolation of this mode, coordinates and rounding"


def _say_resize(w: Wording) -> str:
    """`functional.interpolate`, which has four of the conventions."""
    call = w.call
    linear = ("linear", "bilinear", "trilinear")[w.rank - 1]
    how = (call["mode"], call["coordinates"], call["rounding"])
    if how == (NEAREST, "asymmetric", "floor"):
        mode = '"nearest"'
    elif how[:2] == (LINEAR, "half_pixel"):
        mode = f'"{linear}"'
    elif how[:2] == (LINEAR, "align_corners"):
        mode = f'"{linear}", align_corners=True'
    else:
        raise Lacking(_CONVENTION)
    if call["size"] != FITTING:
        size = ", ".join(map(text, call["size"]))
        return f"functional.interpolate({w['x']}, size=({size},), mode={mode})"
    scale = tuple(float(factor) for factor in call["scale"])
    return f"functional.interpolate({w['x']}, scale_factor={scale}, mode={mode})"


ROWS = (
    Row(
        "resize",
        "Resize",
        PyTorch("functional.interpolate", _say_resize, lacks=(_CONVENTION,)),
        _spell_resize,
        Read(_read_resize, deciding=(1, 2, 3)),
    ),
)

READING = {"Upsample": Read(_read_upsample, deciding=(1,))}
"""What opsets before 10 call resizing."""
