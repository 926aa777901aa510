"""A program as CUDA C: its source, and what is launched in which order."""

from __future__ import annotations

from typing import TypeAlias

from convdsl.kernel.program import Argument
from convdsl.tensor.records import record

Three: TypeAlias = tuple[int, int, int]


@record
class Launch:
    """One grid of one step, or the grids of several that are launched together.

    function: its name in the source.
    grid, block: blocks, and threads of a block, along x, y and z.
    shared_bytes: of dynamic shared memory, beyond what the function declares.
    arguments: what its pointers point to, in order.
    nodes: names of the graph nodes that it computes.
    steps: how many steps it is of; their arguments follow each other.
    first: the number of the first of these.
    """

    function: str
    grid: Three
    block: Three
    shared_bytes: int
    arguments: tuple[Argument, ...]
    nodes: tuple[str, ...]
    steps: int = 1
    first: int = 0


@record
class CudaModule:
    """Launches follow each other on one stream; each sees what those before it have stored."""

    source: str
    launches: tuple[Launch, ...]
