"""Sums over ranks on cards, by NCCL: in a stream of their own, beside the kernels.

kernels of a phase ... | event | kernels of the next ones ...      | wait | kernels that read it
                         wait  | the sum, and those begun after it | event
"""

from __future__ import annotations

from typing import Any

from convdsl.diagnostics import InputError
from convdsl.kernel.program import AllReduce
from convdsl.ranks import LARGEST, Ranks
from convdsl.tensor import DType


class CardSums:
    """The sums of the programs of one process, whose card is current. All processes of the job make
    one at the same time."""

    def __init__(self, found: Any, ranks: Ranks) -> None:
        from cupy.cuda import nccl

        if not all(ranks.gather(bool(nccl.available))):
            raise InputError(
                "cards of several processes need NCCL, which is not there\n"
                "help: pip install nvidia-nccl-cu13"
            )
        self._found, self._nccl = found, nccl
        name = ranks.broadcast(nccl.get_unique_id() if ranks.rank == 0 else b"")
        self._communicator = nccl.NcclCommunicator(ranks.size, name, ranks.rank)
        self._stream = found.cuda.Stream(non_blocking=True)
        self._types = {DType.F32: nccl.NCCL_FLOAT32, DType.F64: nccl.NCCL_FLOAT64}

    def begin(self, sum: AllReduce, address: int, stream: Any) -> Any:
        """Begin a sum in place, of what lies at an address once all is done that is in a stream so
        far. Returns the event after which the sum is there."""
        ready = self._found.cuda.Event(disable_timing=True)
        ready.record(stream)
        self._stream.wait_event(ready)
        step = LARGEST // sum.dtype.bytes
        for first in range(0, sum.elements, step):
            count = min(step, sum.elements - first)
            place = address + first * sum.dtype.bytes
            kind = self._types[sum.dtype]
            self._communicator.allReduce(
                place, place, count, kind, self._nccl.NCCL_SUM, self._stream.ptr
            )
        there = self._found.cuda.Event(disable_timing=True)
        there.record(self._stream)
        return there
