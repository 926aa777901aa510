"""Whether there is a card, which, and what keeps it from being used. CuPy is loaded when asked."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

from convdsl.diagnostics import InputError

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
        return f"the NVIDIA driver finds no card (nvidia-smi lists them){said}"
    return None


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
