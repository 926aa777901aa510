"""What machine code for a CPU and the runtime that calls it agree upon: numbers, nothing else.

Code enters a call through a table of pointers, shares its steps out over counters, and finds
other calls on a board. A target with another way to run programs has an agreement of its own.
"""

from __future__ import annotations

YIELD, TEAM_SIZE, WEIGHTS, ARENA, COUNTERS, TIMES, BOARD, TICKET, PORTS = range(9)
"""Slots of the context table that compiled code receives: how to let another thread run, the size
of the team (a number), weights, arena, zeroed counters, where timed code writes its clock, the
board (or null) and the call's ticket for it (a number; afterwards, how many helpers may still look
at the call), then inputs, outputs and states."""

BOARD_TICKET, BOARD_CONTEXT, BOARD_ENTRY, BOARD_SEATS, BOARD_REST = 0, 1, 2, 3, 4
BOARD_INSIDE, BOARD_AWAKE = 8, 16
"""64-bit words of the board, where one caller at a time pins its call for helpers that are awake: a
number that changes with every call, its context (null when it is over), its function, how many
may come, how to sleep for so many microseconds (or null), and, on cache lines of their own, how
many are looking at what is pinned, how many are awake and wait for a call."""

BOARD_WORDS = 24

COUNTERS_PER_STEP = 16
"""64-bit words that a step's two counters take, each on a cache line of its own."""

SEATS = 3
"""The word among the counters where helpers count themselves, if threads have private memory."""

MOST_SEATS = 256
"""Threads of a team that may take part in a program with private memory: the caller, and no more
helpers than a process has."""

SHARES = 4
"""Shares of a step for each thread: enough to even out unequal ones, few enough to stay large."""

ENTRY = "convdsl_run"
"""The function that compiled code exports: entry(context, stay), entered by every thread of a team.
The caller's says 0. A helper, when all is done, stays awake for so many pauses, and takes part in
what is pinned to the board meanwhile."""


def scratch_bytes(arena_bytes: int, private_bytes: int, threads: int) -> int:
    """What a call lends to code at `ARENA`: the arena, and behind it the private memory of each
    thread of the team."""
    return arena_bytes + private_bytes * min(threads, MOST_SEATS)
