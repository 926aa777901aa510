"""The form of filtering that has so many outputs and taps, and its matrices for filters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from convdsl.schedules.filtering import Form
from convdsl.schedules.fourier import LENGTHS, FourierForm
from convdsl.schedules.winograd import PAIRS, PointForm


@lru_cache(maxsize=256)
def form(m: int, r: int) -> Form:
    """F(m, r): that of rational points where there are such for as many inputs, else that of roots
    of unity. ValueError where there is neither."""
    if m >= 1 and r >= 1 and m + r - 1 in PAIRS:
        return PointForm(m, r)
    if m >= 1 and r >= 2 and m + r - 1 in LENGTHS:
        return FourierForm(m, r)
    raise ValueError(f"no form F({m}, {r})")


@lru_cache(maxsize=256)
def _matrix(form: Form) -> npt.NDArray[np.float64]:
    """For filters; packing asks for every few channels of every layer."""
    made = form.filters.matrix
    made.flags.writeable = False
    return made


def of_filters(
    forms: Sequence[Form], flips: Sequence[bool], filters: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Filters [taps.., ..] as they are multiplied, [products.., ..], in double precision, along one
    axis after the other; `flips` says along which of these they are turned round."""
    made, before = filters.astype(np.float64, copy=False), 1
    rest = filters.shape[len(forms) :]
    for form, flip in zip(forms, flips, strict=True):
        g = _matrix(form)
        products, r = g.shape
        with np.errstate(all="ignore"):  # of filters that are no numbers, which are told elsewhere
            made = np.matmul(g[:, ::-1] if flip else g, made.reshape(before, r, -1))
        before *= products
    return made.reshape(*(form.products for form in forms), *rest)
