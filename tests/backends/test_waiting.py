"""What a thread does that waits for another's share, in machine code."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import llvmlite.binding as llvm
import pytest

from convdsl.backends.llvm.objects import find_target
from convdsl.backends.llvm.team import STEPS, team_functions
from convdsl.kernel.cpu_abi import BOARD, BOARD_REST, BOARD_WORDS, PORTS, YIELD

AROUND = f"""
define internal void @{STEPS}(ptr %context, i64 %helper) #0 {{
  ret void
}}
define void @wait(ptr %counter, i64 %all, ptr %context) {{
  call void @await(ptr %counter, i64 %all, ptr %context)
  ret void
}}
attributes #0 = {{ nounwind }}
"""

_wait = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
_let = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64)


@pytest.fixture(scope="module")
def wait() -> Iterator[ctypes._FuncPointer]:
    find_target()  # LLVM knows this processor now
    machine = llvm.Target.from_default_triple().create_target_machine()
    module = llvm.parse_assembly(team_functions(find_target()) + AROUND)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    yield _wait(engine.get_function_address("wait"))
    del engine


class Waiting:
    """A team's context, and what was done while its counter stood short of three."""

    def __init__(self, at: int, board: bool, rests: bool) -> None:
        self.counter = ctypes.c_int64(at)
        self.done: list[tuple[str, int]] = []
        self.context = (ctypes.c_void_p * PORTS)()
        self._board = (ctypes.c_void_p * BOARD_WORDS)()
        self._let = _let(lambda _: self._share("yield", 0))
        self._rest = _let(lambda amount: self._share("rest", amount & 0xFFFFFFFF))
        self.context[YIELD] = ctypes.cast(self._let, ctypes.c_void_p)
        if rests:
            self._board[BOARD_REST] = ctypes.cast(self._rest, ctypes.c_void_p)
        if board:
            self.context[BOARD] = ctypes.addressof(self._board)

    def _share(self, how: str, amount: int) -> int:
        self.done.append((how, amount))
        self.counter.value += 1
        return 0


def test_who_waits_long_sleeps(wait: ctypes._FuncPointer) -> None:
    """So the system may bring the thread that is waited for to this one's processor."""
    team = Waiting(0, board=True, rests=True)
    wait(ctypes.addressof(team.counter), 3, team.context)
    assert [how for how, _ in team.done] == ["rest"] * 3
    assert {amount for _, amount in team.done} == {20}  # microseconds


@pytest.mark.parametrize("board", [True, False])
def test_without_a_way_to_sleep_others_run(wait: ctypes._FuncPointer, board: bool) -> None:
    """The board of an earlier convdsl, or none: a team of several processes."""
    team = Waiting(1, board=board, rests=not board)
    wait(ctypes.addressof(team.counter), 3, team.context)
    assert [how for how, _ in team.done] == ["yield"] * 2


@pytest.mark.parametrize("at", [3, 4])
def test_what_is_done_is_not_waited_for(wait: ctypes._FuncPointer, at: int) -> None:
    team = Waiting(at, board=True, rests=True)
    wait(ctypes.addressof(team.counter), 3, team.context)
    assert team.done == []
