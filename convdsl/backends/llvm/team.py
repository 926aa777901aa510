"""How threads enter a module, wait for each other, and wait for a next call: LLVM IR.

The caller pins its call to the board of its process (kernel.cpu_abi), where helpers that are
still awake after an earlier call find it. Such a helper says that it is inside before it looks
whose call is pinned, and the caller takes its call down before it looks whether anyone is inside:
so either the helper sees that the call is over, or the caller sees the helper and keeps for it
what it may still read.
"""

from __future__ import annotations

from convdsl.kernel.cpu_abi import (
    BOARD,
    BOARD_AWAKE,
    BOARD_CONTEXT,
    BOARD_ENTRY,
    BOARD_INSIDE,
    BOARD_REST,
    BOARD_SEATS,
    BOARD_TICKET,
    ENTRY,
    TICKET,
    YIELD,
)
from convdsl.kernel.target import Target

STEPS = "steps"
"""The module's own function steps(context, helper): all steps; helper is 0 for the caller."""

_SPINS = 10_000  # pauses, 0.1 to 0.5 milliseconds, before a waiting thread gives its processor away
_REST = 20  # microseconds that it sleeps then at a time

# Wait until `counter` has reached `all`. A share takes less than the pauses do, so who waits longer
# waits for a thread that was put aside. The system does not bring that one here while this one
# keeps the processor, and letting others run for a moment keeps it: so it sleeps.
_AWAIT = f"""define internal void @await(ptr %counter, i64 %all, ptr %context) #0 {{
entry:
  br label %look
look:
  %spins = phi i64 [ 0, %entry ], [ %more, %again ]
  %now = load atomic i64, ptr %counter acquire, align 8
  %there = icmp uge i64 %now, %all
  br i1 %there, label %done, label %again_or_let
again_or_let:
  %more = add i64 %spins, 1
  %long = icmp ugt i64 %more, {_SPINS}
  br i1 %long, label %let, label %pause
let:
  %shown = getelementptr ptr, ptr %context, i64 {BOARD}
  %board = load ptr, ptr %shown
  %alone = icmp eq ptr %board, null
  br i1 %alone, label %yield, label %ask
ask:
  %way = getelementptr ptr, ptr %board, i64 {BOARD_REST}
  %rest = load ptr, ptr %way
  %restless = icmp eq ptr %rest, null
  br i1 %restless, label %yield, label %sleep
sleep:
  call i32 %rest(i32 {_REST})
  br label %again
yield:
  %other = getelementptr ptr, ptr %context, i64 {YIELD}
  %let_run = load ptr, ptr %other
  call i32 %let_run()
  br label %again
pause:
  PAUSE
  br label %again
again:
  br label %look
done:
  ret void
}}"""

_ENTER = f"""define void @{ENTRY}(ptr %context, i64 %stay) #0 {{
entry:
  %slot = getelementptr ptr, ptr %context, i64 {BOARD}
  %board = load ptr, ptr %slot
  %where = getelementptr i64, ptr %context, i64 {TICKET}
  %ticket = load i64, ptr %where
  %none = icmp eq ptr %board, null
  %shown = getelementptr i64, ptr %board, i64 {BOARD_TICKET}
  %pinned = getelementptr i64, ptr %board, i64 {BOARD_CONTEXT}
  %code = getelementptr i64, ptr %board, i64 {BOARD_ENTRY}
  %seats = getelementptr i64, ptr %board, i64 {BOARD_SEATS}
  %inside = getelementptr i64, ptr %board, i64 {BOARD_INSIDE}
  %awake = getelementptr i64, ptr %board, i64 {BOARD_AWAKE}
  %caller = icmp eq i64 %stay, 0
  br i1 %caller, label %lead, label %help

lead:
  br i1 %none, label %alone, label %pin
alone:
  call void @{STEPS}(ptr %context, i64 0)
  br label %done
pin:
  store atomic ptr @{STEPS}, ptr %code monotonic, align 8
  store atomic ptr %context, ptr %pinned release, align 8
  store atomic i64 %ticket, ptr %shown release, align 8
  call void @{STEPS}(ptr %context, i64 0)
  store atomic ptr null, ptr %pinned seq_cst, align 8
  %visitors = load atomic i64, ptr %inside seq_cst, align 8
  store i64 %visitors, ptr %where
  br label %done

help:
  call void @{STEPS}(ptr %context, i64 1)
  br i1 %none, label %done, label %stay_awake
stay_awake:
  %others = atomicrmw add ptr %awake, i64 1 monotonic
  br label %look
look:
  %seen = phi i64 [ %ticket, %stay_awake ], [ %seen, %pause ], [ %now, %leave ]
  %spins = phi i64 [ 0, %stay_awake ], [ %more, %pause ], [ 0, %leave ]
  %now = load atomic i64, ptr %shown acquire, align 8
  %new = icmp ne i64 %now, %seen
  br i1 %new, label %join, label %wait
wait:
  %enough = icmp uge i64 %spins, %stay
  br i1 %enough, label %sleep, label %pause
pause:
  PAUSE
  %more = add i64 %spins, 1
  br label %look
join:
  %before = atomicrmw add ptr %inside, i64 1 seq_cst
  %call = load atomic ptr, ptr %pinned seq_cst, align 8
  %open = icmp ne ptr %call, null
  br i1 %open, label %sit, label %leave
sit:
  %left = atomicrmw sub ptr %seats, i64 1 monotonic
  %seat = icmp sgt i64 %left, 0
  br i1 %seat, label %work, label %leave
work:
  %function = load atomic ptr, ptr %code monotonic, align 8
  call void %function(ptr %call, i64 1)
  br label %leave
leave:
  %after = atomicrmw sub ptr %inside, i64 1 release
  br label %look
sleep:
  %fewer = atomicrmw sub ptr %awake, i64 1 monotonic
  br label %done
done:
  ret void
}}"""

# Which share a claim is good for. The caller takes them from the first on, helpers from the last:
# so that each finds in its own cache what it wrote in the step before.
_PICK = """define internal i64 @pick(ptr %claimed, i64 %shares, i64 %tid) #0 {
entry:
  %caller = icmp eq i64 %tid, 0
  br i1 %caller, label %first, label %last
first:
  %where = getelementptr i64, ptr %claimed, i64 1
  %taken = load i64, ptr %where
  %more = add i64 %taken, 1
  store i64 %more, ptr %where
  ret i64 %taken
last:
  %there = getelementptr i64, ptr %claimed, i64 2
  %others = atomicrmw add ptr %there, i64 1 monotonic
  %from = sub i64 %shares, 1
  %share = sub i64 %from, %others
  ret i64 %share
}"""

_PAUSE = {
    "x86_64": ("call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"),
    "aarch64": (
        "call void @llvm.aarch64.hint(i32 1)",
        "declare void @llvm.aarch64.hint(i32)",
    ),
}


def team_functions(target: Target) -> str:
    """`convdsl_run`, and `await` and `pick` for the steps."""
    pause, declaration = _PAUSE.get(target.architecture, ("", ""))
    functions = [text.replace("PAUSE", pause) for text in (_AWAIT, _PICK, _ENTER)]
    return "\n\n".join([*functions, declaration])
