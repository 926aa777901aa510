"""Whether there is a card, which, and what keeps it from being used. CuPy is loaded when asked."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from convdsl.diagnostics import DeviceError, InputError

PIP = "pip install 'convdsl[cuda]'"


@dataclass(frozen=True, slots=True)
class Card:
    """A card: its number among those here, its name, its architecture, e.g. sm_90, bytes."""

    number: int
    name: str
    arch: str
    memory_bytes: int


def cupy() -> ModuleType:
    """CuPy, with a driver and a card below it. InputError, which says what to do, without."""
    try:
        import cupy as found  # pyright: ignore[reportMissingModuleSource]
    except ImportError as error:
        hint = f" ({error})" if find_spec("cupy") else ""
        raise InputError(f"running on a card needs CuPy: {PIP}{hint}") from None
    problem = _problem(found)
    if problem is not None:
        raise InputError(problem)
    return found


def _problem(found: ModuleType) -> str | None:
    """What keeps CuPy from a card, and what to do."""
    runtime = found.cuda.runtime
    try:
        driver = runtime.driverGetVersion()
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        driver, count, said = _driver(runtime), 0, f" ({error})"
    else:
        said = ""
    if not driver:
        return (
            "there is no NVIDIA driver on this machine: install it, or run on the processor: "
            "without --device cuda, and artifacts that are compiled without --target cuda (which "
            "itself needs no driver)"
        )
    if count == 0:
        return f"the NVIDIA driver finds no card (nvidia-smi lists them){said}{_why(said, driver)}"
    return None


def _why(said: str, driver: int) -> str:
    """What to do about what the driver said, where that is known."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if "InsufficientDriver" in said:
        served = f"CUDA {driver // 1000}.{driver % 1000 // 10}"
        return f"\nhelp: the driver serves {served}, CuPy here asks for more: update the driver"
    if "InitializationError" in said:
        return (
            "\nhelp: a process that was forked from one that had used a card cannot: begin it by"
            ' multiprocessing.get_context("spawn")'
        )
    return "" if visible is None else f"\nhelp: CUDA_VISIBLE_DEVICES is `{visible}`"


def _driver(runtime: ModuleType) -> int:
    try:
        return int(runtime.driverGetVersion())
    except runtime.CUDARuntimeError:
        return 0


def find_card(number: int = 0) -> Card:
    """A card by its number. InputError where there is none."""
    found = cupy()
    runtime = found.cuda.runtime
    count = int(runtime.getDeviceCount())
    if number >= count:
        raise InputError(f"there is no cuda:{number}; cards here are numbered 0 to {count - 1}")
    facts = runtime.getDeviceProperties(number)
    name = facts["name"]
    return Card(
        number,
        name.decode() if isinstance(name, bytes) else str(name),
        f"sm_{facts['major']}{facts['minor']}",
        int(facts["totalGlobalMem"]),
    )


def find_cards() -> range:
    """The numbers of the cards that are here. InputError where there is none."""
    return range(int(cupy().cuda.runtime.getDeviceCount()))


def card_errors(found: Any) -> tuple[type[Exception], ...]:
    """What CuPy raises of a card."""
    return (found.cuda.driver.CUDADriverError, found.cuda.runtime.CUDARuntimeError)


def of_memory(found: Any, error: Exception) -> bool:
    """Whether there was too little memory: for CuPy's pool, or for the driver itself, which takes
    some for code, graphs and streams."""
    said = str(error)
    by_driver = "CUDA_ERROR_OUT_OF_MEMORY" in said or "cudaErrorMemoryAllocation" in said
    return by_driver or isinstance(error, found.cuda.memory.OutOfMemoryError)


@contextmanager
def on_card(found: Any, number: int) -> Generator[None]:
    """A card is current; what CuPy raises of it is a DeviceError."""
    try:
        with found.cuda.Device(number):
            yield
    except (found.cuda.memory.OutOfMemoryError, *card_errors(found)) as error:
        what = "has too little memory" if of_memory(found, error) else "has failed"
        raise DeviceError(f"cuda:{number} {what}: {error}") from None
