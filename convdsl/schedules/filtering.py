"""Filtering with fewer products: transforms of inputs and filters, products, and a transform back.

    y = A ((G g) * (B d))      y[i] = sum over s of d[i + s] g[s]

A form makes m outputs of a filter of r taps, along one axis, from t = m + r - 1 inputs. In two
dimensions each axis has a form of its own: one of a single tap does nothing. What A, G and B are
say `winograd`, whose points are small rational numbers, and `fourier`, whose points are roots of
unity; `forms` chooses.

Rounding grows with the form. `amplification` says it: for independent elements of equal variance
and many channels, added up one after the other, how many times the rms error is that of direct
sums, r times as long,

    amplification^2 = max over i of sum over j of A[i,j]^2 |G[j]|^2 |B[j]|^2 / r^2

and `worst` what the error can grow by if all of it adds up, in units of the largest |d| and |g|.
Where both factors are rounded to fewer bits than sums have, that of the factors is all that counts;
it does not grow with the length of the sum: `rounding` is r^(1/2) times `amplification`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convdsl.schedules.steps import Steps


@dataclass(frozen=True)
class Form(ABC):
    """For one axis: `m` outputs at a time, `r` taps."""

    m: int
    r: int

    @property
    def t(self) -> int:
        """Inputs."""
        return self.m + self.r - 1

    @property
    @abstractmethod
    def products(self) -> int:
        """Of a tile."""

    @property
    @abstractmethod
    def said(self) -> str:
        """What the form is called."""

    @cached_property
    @abstractmethod
    def inputs(self) -> Steps:
        """B."""

    @cached_property
    @abstractmethod
    def filters(self) -> Steps:
        """G."""

    @cached_property
    @abstractmethod
    def outputs(self) -> Steps:
        """A."""

    @cached_property
    def amplification(self) -> float:
        """Of rounding errors, in rms; 1 for a single tap."""
        a, g, b = (np.square(s.matrix) for s in (self.outputs, self.filters, self.inputs))
        return float(np.sqrt((a @ (g.sum(axis=1) * b.sum(axis=1))).max()) / self.r)

    @property
    def rounding(self) -> float:
        """Of errors that come from rounding both factors, in rms; 1 for a single tap."""
        return self.amplification * self.r**0.5

    @cached_property
    def worst(self) -> float:
        """Of rounding errors, at the most."""
        a, g, b = (np.abs(s.matrix) for s in (self.outputs, self.filters, self.inputs))
        return float((a @ (g.sum(axis=1) * b.sum(axis=1))).max())
