"""What a process of a job does: its part, and when that fails, the end of all, said once."""

from __future__ import annotations

import atexit
from collections.abc import Callable

from convdsl.diagnostics import Error
from convdsl.ranks import Ranks

FAILED, INTERRUPTED = 2, 130


def take_part(ranks: Ranks, work: Callable[[], int]) -> int:
    """The exit code of the work of one rank. What it raises ends the job: on rank 0, and on a rank
    that rank 0 does not hear, it is raised for whoever says it, and the others are ended when this
    process exits; on any other rank 0 says it."""
    try:
        return work()
    except BaseException as error:
        if ranks.fail(_said(error)):
            code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
            atexit.register(ranks.abort, code)
        raise


def _said(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    if isinstance(error, (Error, OSError, MemoryError)):
        return str(error)
    return f"a bug in convdsl: {type(error).__name__}: {error}"
