"""What went wrong on a card, so that somebody can do something about it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from convdsl.diagnostics import DeviceError
from convdsl.kernel.cuda_module import Launch
from convdsl.kernel.program import Port
from convdsl.runtime.code import Code
from convdsl.runtime.cuda.card import card_errors
from convdsl.runtime.cuda.device import CudaDevice
from convdsl.runtime.cuda.rerun import Failure


def failed(
    device: CudaDevice, launches: Sequence[Launch], failure: Failure, *, again: bool = False
) -> DeviceError:
    """A launch that the card refused, or did not survive. `again`: found by running the call
    again."""
    launch = launches[failure.number]
    layers = ", ".join(launch.nodes) or launch.function
    note = "\nnote: found by running the call again, step by step" if again else ""
    shared = f"{launch.shared_bytes} bytes of shared memory"
    return DeviceError(
        f"{device.name} has failed at {layers} (kernel {launch.function}, launch"
        f" {failure.number + 1} of {len(launches)}, grid {_by(launch.grid)}, block"
        f" {_by(launch.block)}, {shared}): {failure.error}{note}"
    )


def needs(found: Any, code: Code, device: CudaDevice, error: Exception) -> DeviceError:
    """Too little memory: what the plan has, and what there is."""
    planned = {
        "weights": code.weight_bytes,
        "scratch memory": code.arena_bytes,
        "inputs": _bytes(code.inputs),
        "outputs": _bytes(code.outputs),
        "states": _bytes(code.states),
    }
    parts = ", ".join(f"{name} {_mb(size)}" for name, size in planned.items() if size)
    total = sum(planned.values())
    try:
        free, whole = found.cuda.Device(device.number).mem_info
        left = f", and {_mb(free)} of {_mb(whole)} are free"
    except card_errors(found):  # a card that does not even say this
        left = ""
    return DeviceError(
        f"{device.name} has too little memory: the network takes {_mb(total)} ({parts}; inputs,"
        f" outputs and scratch memory once for every stream){left} ({error})\n"
        "help: a smaller batch takes less, all but weights and states"
    )


def _bytes(ports: Sequence[Port]) -> int:
    return sum(prod(port.type.sizes) * port.type.dtype.bytes for port in ports)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _by(extents: Sequence[int]) -> str:
    return " x ".join(map(str, extents))
