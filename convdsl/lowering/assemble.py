"""Calls over keys -> Program: where everything lies, and what each step does with it."""

from __future__ import annotations

from dataclasses import replace

from convdsl.ir.liveness import live_ranges
from convdsl.kernel.joint import joint_steps
from convdsl.kernel.program import Access, AllReduce, Argument, Place, Port, Program, Step
from convdsl.lowering.buffers import Buffers
from convdsl.lowering.calls import Call, Key, PackedWeight, Private
from convdsl.lowering.memory import plan_arena, round_up
from convdsl.lowering.packing import Packing, Shelf
from convdsl.lowering.sharing import Sharing


def assemble(
    name: str, buffers: Buffers, sharing: Sharing, alignment: int, shelf: Shelf | None = None
) -> tuple[Program, tuple[Packing, ...], Sharing]:
    """The program, the packings at their places in the weight memory, and the calls as they came
    to be: results lie over operands where that makes the arena smaller."""
    tried = sharing.copy()
    tried.write_over_operands(buffers.bytes_of)
    arena = choose(Arena(buffers, sharing, alignment), Arena(buffers, tried, alignment))
    sharing = arena.sharing
    packings, weight_bytes = buffers.packings(shelf)

    def argument(key: Key, call: Call) -> Argument:
        if isinstance(key, PackedWeight):
            return Argument(Place.WEIGHTS, 0, packings[key.index].offset)
        if isinstance(key, Private):
            return Argument(Place.PRIVATE, 0, key.first, Access.WRITE)
        access = Access.WRITE if key in call.written else Access.READ
        if key in call.updated:
            access = Access.UPDATE
        return replace(arena.place(key), access=access)

    private = max((_private_bytes(call) for call in sharing.calls), default=0)
    program = Program(
        name,
        sharing.kernels,
        tuple(
            Step(c.kernel, tuple(argument(key, c) for key in c.arguments), c.nodes, c.schedule)
            for c in sharing.calls
            if not c.exchanges
        ),
        tuple(Port(name, value.type) for name, value in buffers.inputs),
        tuple(Port(name, value.type) for name, value in buffers.outputs),
        weight_bytes,
        arena.bytes,
        tuple(Port(key, value.type) for key, value in buffers.states),
        round_up(private, alignment),
        _sums(arena, buffers),
    )
    if program.sums:
        program = replace(program, joint=joint_steps(program))
    return program, packings, sharing


def _sums(arena: Arena, buffers: Buffers) -> tuple[AllReduce, ...]:
    """The sums over ranks in their order, each from after its last operand is made to before it is
    first read."""
    begun: dict[Key, int] = {}
    ended: dict[Key, int] = {}
    steps = 0
    for call in arena.sharing.calls:
        if call.exchanges:
            begun[call.arguments[0]] = steps
            continue
        for key in call.arguments:
            root, _ = arena.sharing.root(key)
            if root in begun:
                ended.setdefault(root, steps)
        steps += 1
    return tuple(
        AllReduce(begin, ended.get(key, steps), arena.place(key).offset, *buffers.elements_of(key))
        for key, begin in begun.items()
    )


def _private_bytes(call: Call) -> int:
    pieces = (key for key in call.arguments if isinstance(key, Private))
    return max((piece.first + piece.bytes for piece in pieces), default=0)


class Arena:
    """The memory plan of some calls."""

    def __init__(self, buffers: Buffers, sharing: Sharing, alignment: int) -> None:
        self._fixed = buffers.fixed_places()
        self.sharing = sharing
        ranges = live_ranges([(self._roots(c, False), self._roots(c, True)) for c in sharing.calls])
        sizes = {key: buffers.bytes_of(key) for key in ranges}
        self._offsets, self.bytes = plan_arena(ranges, sizes, alignment)

    def _roots(self, call: Call, written: bool) -> list[Key]:
        """The keys whose memory in the arena a call reads, or writes."""
        keys = (key for key in call.arguments if (key in call.written) == written)
        apart = PackedWeight | Private
        roots = (self.sharing.root(key)[0] for key in keys if not isinstance(key, apart))
        return [root for root in roots if root not in self._fixed]

    def place(self, key: Key) -> Argument:
        """Where a key lies."""
        root, offset = self.sharing.root(key)
        if root in self._fixed:
            assert not offset, "parts lie in the arena"
            return self._fixed[root]
        return Argument(Place.ARENA, 0, self._offsets[root] + offset)


def choose(apart: Arena, over: Arena) -> Arena:
    """Results over operands, or apart from them: kernels stay as they are where nothing is won."""
    return over if over.bytes < apart.bytes else apart
