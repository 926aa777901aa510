"""Whether something like mpiexec has started this process, as one of several."""

from __future__ import annotations

import os

_COUNTS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "MPI_WORLD_SIZE")
"""Where launchers say how many processes they have started: Hydra (MPICH, Intel) and Slurm's PMI-1
and PMI-2, Open MPI, MVAPICH, others."""

_RANKED = ("PMIX_RANK", "PMI_RANK")
"""What says that there is a rank, where nothing says of how many."""


def started() -> int:
    """How many processes the launcher says that it has started; 0 where there is none, 1 where it
    does not say."""
    for name in _COUNTS:
        text = os.environ.get(name, "")
        if text.isdecimal():
            return int(text)
    return int(any(name in os.environ for name in _RANKED))
