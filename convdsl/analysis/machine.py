"""Machines for the roofline: named ones by their data sheets, this one as somebody measured it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from convdsl.diagnostics import InputError


@dataclass(frozen=True, slots=True)
class Machine:
    """Peak f32 operations per second (a multiply-add is two) and bytes per second of memory."""

    name: str
    operations: float
    bandwidth: float
    source: str
    arch: str = ""  # of a card: the architecture that code for it is made for
    tf32: float | None = None  # operations per second of its tensor units, dense, sums in f32
    bf16: float | None = None

    @property
    def ridge(self) -> float:
        """The intensity, in operations per byte, from which on the peak is within reach."""
        return self.operations / self.bandwidth

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "operations_per_second": self.operations,
            "bytes_per_second": self.bandwidth,
            "source": self.source,
        }


MACHINES: dict[str, Machine] = {
    m.name: m
    for m in (
        Machine("v100", 15.7e12, 900e9, "NVIDIA V100 SXM2 data sheet, FP32"),
        Machine("t4", 8.1e12, 320e9, "NVIDIA T4 data sheet, FP32", "sm_75"),
        Machine(
            *("a100", 19.5e12, 1555e9),
            "NVIDIA A100 40 GB data sheet, FP32 without tensor cores",
            *("sm_80", 156e12, 312e12),
        ),
        Machine(
            *("a10", 31.2e12, 600e9, "NVIDIA A10 data sheet, FP32"),
            *("sm_86", 62.5e12, 125e12),
        ),
        Machine(
            *("rtx3090", 35.6e12, 936e9),
            "NVIDIA Ampere GA102 white paper, RTX 3090, FP32; BF16 with FP32 accumulation",
            *("sm_86", 35.6e12, 71e12),
        ),
        Machine(
            *("l4", 30.3e12, 300e9, "NVIDIA L4 data sheet, FP32; tensor cores without sparsity"),
            *("sm_89", 60e12, 121e12),
        ),
        Machine(
            *("l40s", 91.6e12, 864e9),
            "NVIDIA L40S data sheet, FP32; tensor cores without sparsity",
            *("sm_89", 183e12, 362e12),
        ),
        Machine(
            *("rtx4090", 82.6e12, 1008e9),
            "NVIDIA Ada white paper, RTX 4090, FP32; BF16 with FP32 accumulation",
            *("sm_89", 82.6e12, 165.2e12),
        ),
        Machine(
            *("h100", 67e12, 3.35e12),
            "NVIDIA H100 SXM data sheet, FP32 without tensor cores",
            *("sm_90a", 494e12, 989e12),
        ),
        Machine(
            *("h200", 67e12, 4.8e12),
            "NVIDIA H200 SXM data sheet, FP32 without tensor cores",
            *("sm_90a", 494e12, 989e12),
        ),
        Machine(
            *("b200", 80e12, 8e12),
            "NVIDIA HGX B200 data sheet, FP32; tensor cores without sparsity",
            *("sm_100", 1.1e15, 2.25e15),
        ),
        Machine(
            *("rtx5090", 104.8e12, 1792e9),
            "NVIDIA RTX Blackwell white paper, RTX 5090, FP32; BF16 with FP32 accumulation",
            *("sm_120", 104.8e12, 209.5e12),
        ),
    )
}
"""Machines by name; peaks as their makers state them."""

MEASURED = "measured"


def find_machine(spec: str, this_machine: Callable[[], Machine]) -> Machine:
    """A named machine, `measured` for this one, or `GFLOPS/GBS`, e.g. `140/12`.

    Raises InputError for anything else.
    """
    if spec == MEASURED:
        return this_machine()
    if spec in MACHINES:
        return MACHINES[spec]
    peak, _, speed = spec.partition("/")
    try:
        operations, bandwidth = float(peak) * 1e9, float(speed) * 1e9
    except ValueError:
        raise InputError(_unknown(spec)) from None
    if not (0 < operations < float("inf") and 0 < bandwidth < float("inf")):
        raise InputError(f"no machine {spec}: peak and bandwidth must be positive")
    return Machine(spec, operations, bandwidth, "as given, GFLOP/s / GB/s")


def _unknown(spec: str) -> str:
    if re.fullmatch(r"[0-9.]+", spec):
        return f"{spec} is one figure, and a machine has two: GFLOPS/GBS such as 140/12"
    names = (*MACHINES, MEASURED)
    close = get_close_matches(spec, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)};"
    return f"no machine {spec}: {hint} GFLOPS/GBS such as 140/12 describe another"
