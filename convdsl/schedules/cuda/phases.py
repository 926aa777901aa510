"""Strided data gradients and transposed convolutions on cards."""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.schedules.cuda.generic import generic
from convdsl.schedules.cuda.implicit_gemm import implicit_gemm
from convdsl.schedules.cuda.matrix_pack import MatrixPack
from convdsl.schedules.phased import Phased
from convdsl.schedules.phases import Part
from convdsl.schedules.task import Pack, Schedule


def phases(target: CudaTarget) -> Schedule:
    """The schedule for a card."""
    ways = (implicit_gemm(target, packing=True),)
    phased = Phased(ways, generic(target), _taken)
    return Schedule("phases", phased.cost, phased.emit)


def _taken(pack: Pack, parts: tuple[Part, ...], _: Sequence[int]) -> Pack:
    assert isinstance(pack, MatrixPack)
    (part,) = parts
    return pack.of_part(part)
