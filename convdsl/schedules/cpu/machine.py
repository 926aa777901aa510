"""The machine record of a processor: channel-blocked layouts, schedules in registers and caches."""

from __future__ import annotations

from functools import lru_cache

from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.batches import samples_at_once
from convdsl.schedules.cpu.columns import columns
from convdsl.schedules.cpu.correlation import correlation
from convdsl.schedules.cpu.depthwise import depthwise
from convdsl.schedules.cpu.direct import direct
from convdsl.schedules.cpu.filters import FilterPack
from convdsl.schedules.cpu.flat import flat
from convdsl.schedules.cpu.gemm import gemm
from convdsl.schedules.cpu.generic import generic
from convdsl.schedules.cpu.grouped import grouped
from convdsl.schedules.cpu.interlaced import interlaced
from convdsl.schedules.cpu.lanes import lanes
from convdsl.schedules.cpu.layouts import is_handed_out_plain, layout_of
from convdsl.schedules.cpu.phases import phases
from convdsl.schedules.cpu.planar import planar
from convdsl.schedules.cpu.putting import putting
from convdsl.schedules.cpu.ranks import ranks
from convdsl.schedules.cpu.reduction import reduction
from convdsl.schedules.cpu.rows import rows
from convdsl.schedules.cpu.running import running
from convdsl.schedules.cpu.scatter import scatter
from convdsl.schedules.cpu.separable import separable
from convdsl.schedules.cpu.spectral import spectral
from convdsl.schedules.cpu.straddling import straddling
from convdsl.schedules.cpu.transpose import transpose
from convdsl.schedules.cpu.unfolded import unfolding
from convdsl.schedules.cpu.weaving import weaving
from convdsl.schedules.cpu.winograd import winograd
from convdsl.schedules.cpu.winograd_filters import WinogradPack
from convdsl.schedules.cpu.winograd_sums import winograd_sums
from convdsl.schedules.machine import Machine, pack_forms

_CACHE_LINE = 64


@lru_cache(maxsize=64)
def cpu_machine(target: Target) -> Machine:
    """All that lowering must know of a processor."""

    made = (
        winograd,
        spectral,
        direct,
        unfolding,
        depthwise,
        grouped,
        straddling,
        phases,
        planar,
        gemm,
        winograd_sums,
        correlation,
        ranks,
        putting,
        rows,
        reduction,
        columns,
        scatter,
        running,
        weaving,
        transpose,
        lanes,
        separable,
        interlaced,
        flat,
        generic,
    )
    return Machine(
        name="cpu",
        facts=repr(target),
        layout=lambda stage, operands, known: layout_of(stage, operands, known, target),
        handed_out=lambda stage, operands, known: is_handed_out_plain(
            stage, operands, known, target
        ),
        schedules=tuple(schedule(target) for schedule in made),
        packs=pack_forms(FilterPack, WinogradPack, Layout),
        alignment=_CACHE_LINE,
        at_once=lambda one, batch: samples_at_once(one, batch, target),
    )
