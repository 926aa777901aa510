"""Which steps are launched together: neighbours that are maps, and do not wait for each other.

A launch costs about two microseconds, whatever it does. Updates of sixty weights by the norm of
their gradients, packings, copies: each is a map of its own, small, and knows nothing of the next.
Only maps go together: what needs registers or shared memory of its own would take it from all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from convdsl.kernel.nodes import (
    Barrier,
    Blocks,
    Exchange,
    For,
    GroupMma,
    Kernel,
    Mma,
    Threads,
    walk_statements,
)
from convdsl.kernel.program import Access, Place, Program, Step

_POINTERS = 4096 // 8
"""Arguments of a launch are 4 KB at most (CUDA programming guide, "Function Parameters")."""

_BLOCKS = (1 << 31) - 1
"""Of a launch, along x."""

Span = tuple[Place, int, int, int, bool]
"""Memory, its slot, first byte, last byte + 1, and whether it is written."""


def together(program: Program) -> Iterator[tuple[Step, ...]]:
    """All steps, in order, those that are launched together as one; none across the end of a phase,
    where other ranks are waited for."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    begins = {phase.first for phase in program.phases}
    group: list[Step] = []
    for number, step in enumerate(program.steps):
        if group and (number in begins or not _fits(step, group, kernels)):
            yield tuple(group)
            group = []
        group.append(step)
    if group:
        yield tuple(group)


def _fits(step: Step, group: Sequence[Step], kernels: Mapping[str, Kernel]) -> bool:
    if not all(_is_map(kernels[one.kernel]) for one in (group[-1], step)):
        return False
    steps = (*group, step)
    grids = (grid for one in steps for grid in kernels[one.kernel].body)
    blocks = sum(grid.extents[0] for grid in grids if isinstance(grid, Blocks))
    if sum(len(one.arguments) for one in steps) > _POINTERS or blocks > _BLOCKS:
        return False
    own = _spans(step, kernels[step.kernel])
    return not any(
        _meet(a, b) for one in group for a in _spans(one, kernels[one.kernel]) for b in own
    )


def _is_map(kernel: Kernel) -> bool:
    """One grid along one axis, whose threads run through without loops and arrays."""
    if len(kernel.body) != 1 or kernel.registers:
        return False
    (grid,) = kernel.body
    if not isinstance(grid, Blocks) or len(grid.extents) != 1 or grid.shared:
        return False
    (threads,) = grid.body
    if not isinstance(threads, Threads) or len(threads.extents) != 1:
        return False
    apart = For | Barrier | Exchange | Mma | GroupMma
    return not any(isinstance(statement, apart) for statement in walk_statements(grid.body))


def _spans(step: Step, kernel: Kernel) -> list[Span]:
    return [
        (
            argument.place,
            argument.slot,
            argument.offset,
            argument.offset + buffer.size * buffer.dtype.bytes,
            argument.access is not Access.READ,
        )
        for argument, buffer in zip(step.arguments, kernel.buffers, strict=True)
    ]


def _meet(a: Span, b: Span) -> bool:
    """Whether two steps touch the same bytes, and one of them writes there."""
    return a[:2] == b[:2] and a[2] < b[3] and b[2] < a[3] and (a[4] or b[4])
