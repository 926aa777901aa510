"""Functions of a module, and what they are given where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convdsl.diagnostics import ArtifactError, DeviceError, InputError
from convdsl.kernel.cuda_binary import CudaBinary
from convdsl.kernel.cuda_module import Launch
from convdsl.kernel.cuda_target import ARCHITECTURES
from convdsl.kernel.program import Argument, Place
from convdsl.runtime.cuda.card import Card, of_memory

_MAX_DYNAMIC_SHARED = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES of CUfunction_attribute, in cuda.h: more than
48 KB of a block must be asked for."""

_SLOTTED = (Place.INPUT, Place.OUTPUT, Place.STATE)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything lies that a program works on."""

    weights: int
    arena: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    states: tuple[int, ...]

    def of(self, argument: Argument) -> int:
        """Where an argument begins."""
        match argument.place:
            case Place.INPUT:
                return self.inputs[argument.slot]
            case Place.OUTPUT:
                return self.outputs[argument.slot]
            case Place.STATE:
                return self.states[argument.slot]
            case Place.WEIGHTS:
                return self.weights + argument.offset
            case Place.ARENA:
                return self.arena + argument.offset
            case Place.PRIVATE:
                raise AssertionError("threads of a card have registers, and nothing else")


class Functions:
    """A binary loaded onto a card, which is current."""

    def __init__(self, found: Any, binary: CudaBinary, card: Card) -> None:
        self._module = found.cuda.function.Module()
        _load(found, self._module, binary, card)
        self.launches = binary.launches
        self._functions: dict[str, Any] = {}
        for launch in binary.launches:
            if launch.function not in self._functions:
                self._functions[launch.function] = self._module.get_function(launch.function)
            if launch.shared_bytes:
                function = self._functions[launch.function]
                found.cuda.driver.funcSetAttribute(
                    function.ptr, _MAX_DYNAMIC_SHARED, launch.shared_bytes
                )

    def launch(self, launch: Launch, addresses: Addresses, stream: Any) -> None:
        """Put one launch on a stream."""
        arguments = tuple(addresses.of(argument) for argument in launch.arguments)
        self._functions[launch.function](
            launch.grid, launch.block, arguments, launch.shared_bytes, stream
        )

    def launch_all(self, launches: Sequence[Launch], addresses: Addresses, stream: Any) -> None:
        """Several of them, in order."""
        for launch in launches:
            self.launch(launch, addresses, stream)


def runs_on(made_for: str, card: Card) -> bool:
    """Whether code for an architecture runs on a card."""
    return ARCHITECTURES[made_for].runs_on(_capability(card))


def only_there(made_for: str) -> str:
    """What to add where code for an architecture does not run: why it does not on a later card."""
    facts = ARCHITECTURES[made_for]
    return f", and runs on cards of sm_{facts.capability} alone" if facts.only else ""


def nearest_architecture(card: Card) -> str:
    """The latest architecture that code is made for and the card runs, that of its own capability
    alone before others. InputError for a card that is older than all."""
    runs = [arch for arch in ARCHITECTURES if runs_on(arch, card)]
    if not runs:
        oldest = min(ARCHITECTURES, key=_order)
        raise InputError(f"{card.name} is {card.arch}; cards from {oldest} on are served")
    return max(runs, key=_order)


def _load(found: Any, module: Any, binary: CudaBinary, card: Card) -> None:
    """Code onto the card. DeviceError for what its driver does not take."""
    try:
        module.load(_image(binary, card))
    except found.cuda.driver.CUDADriverError as error:
        if of_memory(found, error):
            raise
        remedy = (
            "update the driver"
            if _same_generation(binary, card)
            else "the driver translates PTX of its own version of CUDA and older: update it, or"
            f" compile with --arch {nearest_architecture(card)} (arch= in Python)"
        )
        raise DeviceError(
            f"cuda:{card.number}, {card.name}, does not load the code for {binary.arch}: {error}\n"
            f"help: {remedy}"
        ) from None


def _same_generation(binary: CudaBinary, card: Card) -> bool:
    """Whether machine code for the one runs on the other; else the PTX is translated."""
    return ARCHITECTURES[binary.arch].capability // 10 == _capability(card) // 10


def _image(binary: CudaBinary, card: Card) -> bytes:
    """Machine code where it is that of the card's generation, else PTX."""
    if binary.arch not in ARCHITECTURES or not runs_on(binary.arch, card):
        known = only_there(binary.arch) if binary.arch in ARCHITECTURES else ""
        raise ArtifactError(
            f"the code is made for {binary.arch}{known}; this card, {card.name}, is {card.arch}"
        )
    return binary.cubin if _same_generation(binary, card) else binary.ptx.encode() + b"\0"


def _capability(card: Card) -> int:
    return int(card.arch.removeprefix("sm_"))


def _order(arch: str) -> tuple[int, bool]:
    facts = ARCHITECTURES[arch]
    return facts.capability, facts.only


def check_arguments(
    launches: Sequence[Launch], slots: dict[Place, int], sizes: dict[Place, int]
) -> None:
    """ArtifactError for an argument that is outside of what a program has."""
    for launch in launches:
        for argument in launch.arguments:
            if argument.place in _SLOTTED:
                fits = argument.slot < slots[argument.place]
            else:
                fits = argument.offset <= sizes.get(argument.place, -1)
            if not fits:
                raise ArtifactError(f"{launch.function} is given {argument}, which there is not")
