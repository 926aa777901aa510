"""Which samples of a batch are whose, where several ranks share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError


@dataclass(frozen=True, slots=True)
class Part:
    """What a rank has of a batch: so many samples from one on, of `whole`."""

    first: int
    count: int
    whole: int

    @staticmethod
    def of(whole: int, rank: int, ranks: int) -> Part:
        """Parts follow each other and differ by one sample at most, the first ones being larger."""
        each, more = divmod(whole, ranks)
        return Part(rank * each + min(rank, more), each + (rank < more), whole)

    def samples(self, chosen: npt.NDArray[np.int64], before: int) -> npt.NDArray[np.int64]:
        """Its samples of those chosen for a batch, and so many that stand before them there; before
        the first stands the last."""
        places = np.arange(self.first - before, self.first + self.count)
        return chosen[places % self.whole]


def check_parts(batch: int, ranks: int) -> None:
    """InputError where some rank would have no sample of a batch."""
    if batch < ranks:
        raise InputError(
            f"a batch of {batch} has no sample for each of {ranks} processes\n"
            "help: take a larger --batch, or fewer processes"
        )
