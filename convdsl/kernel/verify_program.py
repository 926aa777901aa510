"""Checks a program before anything is printed from it: who may write where, and who reads what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from convdsl.kernel.in_place import updates_in_place
from convdsl.kernel.nodes import Buffer, Kernel, Space
from convdsl.kernel.program import Access, Argument, Place, Port, Program, Step
from convdsl.tensor.records import record


class ProgramError(AssertionError):
    """A malformed program: a bug in lowering, never a user's mistake."""


def verify_program(program: Program) -> None:
    """Raise ProgramError unless the steps fit their kernels and their memory.

    Every argument is a buffer of the kernel's, inside of its memory, and of its element type where
    that is a port's; what a kernel writes is declared to be written, and is neither an input nor a
    weight; private buffers lie in private memory, and no others; nothing is read before it is
    written, and all outputs are; within a step no memory that is written is handed over twice, and
    what is updated is read where it is written. Of a program in rounds all this holds for one of
    them; it keeps nothing, and inputs and outputs are cut along their first axis.
    """
    kernels = {kernel.name: kernel for kernel in program.kernels}
    if len(kernels) < len(program.kernels):
        raise ProgramError(f"{program.name}: two kernels of one name")
    written = _Written()
    for port in (*program.inputs, *program.outputs) if program.rounds > 1 else ():
        if program.sums or program.states or port.type.sizes[0] % program.rounds:
            raise ProgramError(f"{program.name}: {program.rounds} rounds of {port.name}")
    sizes = {place: _sizes(program, place) for place in Place}
    for place in (Place.INPUT, Place.WEIGHTS, Place.STATE):
        for slot, size in enumerate(sizes[place]):
            written.add(place, slot, 0, size)
    for number, step in enumerate(program.steps):
        if step.kernel not in kernels:
            raise ProgramError(f"step {number}: there is no kernel {step.kernel}")
        _Check(program, sizes, number, step, kernels[step.kernel]).run(written)
    for each in program.sums:
        inside = each.offset >= 0 and each.offset + each.bytes <= program.arena_bytes
        if not inside or not 0 < each.begin <= each.end <= len(program.steps):
            raise ProgramError(f"{program.name}: {each} is not of this program")
    for slot, size in enumerate(sizes[Place.OUTPUT]):
        if not written.covers(Place.OUTPUT, slot, 0, size):
            raise ProgramError(f"the output {program.outputs[slot].name} is not written")


def _ports(program: Program, place: Place) -> tuple[Port, ...]:
    match place:
        case Place.INPUT:
            return program.inputs
        case Place.OUTPUT:
            return program.outputs
        case Place.STATE:
            return program.states
        case Place.WEIGHTS | Place.ARENA | Place.PRIVATE:
            return ()


def _sizes(program: Program, place: Place) -> list[int]:
    """Bytes of each memory of a place."""
    match place:
        case Place.WEIGHTS:
            return [program.weight_bytes]
        case Place.ARENA:
            return [program.arena_bytes]
        case Place.PRIVATE:
            return [program.private_bytes]
        case _:
            return [part_bytes(port, program.rounds) for port in _ports(program, place)]


def part_bytes(port: Port, rounds: int) -> int:
    """Of the part of a port that a round is for."""
    size = port.type.bytes
    assert isinstance(size, int), "a program has no open sizes"
    return size // rounds


class _Written:
    """Which bytes hold something: for each memory, ranges that neither meet nor touch."""

    def __init__(self) -> None:
        self._ranges: dict[tuple[Place, int], list[tuple[int, int]]] = {}

    def add(self, place: Place, slot: int, start: int, end: int) -> None:
        kept: list[tuple[int, int]] = []
        for first, last in self._ranges.get((place, slot), []):
            if last < start or end < first:
                kept.append((first, last))
            else:
                start, end = min(start, first), max(end, last)
        self._ranges[place, slot] = sorted([*kept, (start, end)])

    def covers(self, place: Place, slot: int, start: int, end: int) -> bool:
        ranges = self._ranges.get((place, slot), [])
        return start == end or any(first <= start and end <= last for first, last in ranges)


@record
class _Check:
    """One step against its kernel and the memory as the steps before have left it."""

    program: Program
    sizes: Mapping[Place, Sequence[int]]
    number: int
    step: Step
    kernel: Kernel

    def run(self, written: _Written) -> None:
        given, wanted = len(self.step.arguments), len(self.kernel.buffers)
        self.require(given == wanted, f"{given} arguments for {wanted} buffers")
        for buffer, argument in self.pairs():
            self.access(buffer, argument)
            self.extent(buffer, argument)
        self.apart()
        for buffer, argument in self.pairs():
            held = written.covers(argument.place, argument.slot, *_span(buffer, argument))
            ready = held or argument.access is Access.WRITE
            self.require(ready, f"{buffer.name} reads {argument} before it is written")
        for buffer, argument in self.pairs():
            if argument.access is not Access.READ:
                written.add(argument.place, argument.slot, *_span(buffer, argument))

    def require(self, condition: bool, message: str) -> None:
        if not condition:
            raise ProgramError(f"step {self.number}, {self.step.kernel}: {message}")

    def pairs(self) -> Iterator[tuple[Buffer, Argument]]:
        return zip(self.kernel.buffers, self.step.arguments, strict=True)

    def access(self, buffer: Buffer, argument: Argument) -> None:
        """What is declared is what the kernel does, and the place allows it."""
        writes = argument.access is not Access.READ
        word = "writes" if buffer.written else "only reads"
        self.require(writes == buffer.written, f"it {word} {argument}, its {buffer.name}")
        fixed = argument.place in (Place.INPUT, Place.WEIGHTS)
        self.require(not (writes and fixed), f"{buffer.name} writes to {argument}")
        own = buffer.space is Space.PRIVATE
        self.require(own == (argument.place is Place.PRIVATE), f"{buffer.name} lies in {argument}")
        if argument.access is Access.UPDATE:
            in_place = updates_in_place(self.kernel, buffer)
            self.require(in_place, f"{buffer.name} is not read where it is written")

    def extent(self, buffer: Buffer, argument: Argument) -> None:
        """The buffer lies inside of its memory and has its elements."""
        sizes, ports = self.sizes[argument.place], _ports(self.program, argument.place)
        self.require(argument.slot < len(sizes), f"there is no {argument}")
        start, end = _span(buffer, argument)
        inside = start >= 0 and end <= sizes[argument.slot] and start % buffer.dtype.bytes == 0
        self.require(inside, f"{buffer.name} does not lie in {argument}")
        if ports:
            dtype = ports[argument.slot].type.dtype
            self.require(dtype is buffer.dtype, f"{argument} holds {dtype}, not {buffer.dtype}")

    def apart(self) -> None:
        """What is written lies apart from every other argument."""
        spans = [(a, _span(b, a)) for b, a in self.pairs()]
        for position, (argument, (start, end)) in enumerate(spans):
            for other, (first, last) in spans[:position]:
                same = (argument.place, argument.slot) == (other.place, other.slot)
                meet = same and start < last and first < end
                harmless = argument.access is other.access is Access.READ
                self.require(harmless or not meet, f"{other} and {argument} are the same memory")


def _span(buffer: Buffer, argument: Argument) -> tuple[int, int]:
    """First byte and last byte + 1 in the argument's memory."""
    return argument.offset, argument.offset + buffer.size * buffer.dtype.bytes
