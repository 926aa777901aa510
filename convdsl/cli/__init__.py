"""The command line: one thin module per subcommand, over the public API."""

from __future__ import annotations

import gc

TYPE_CHECKING = False  # `typing` takes longer than all that stands before Ctrl-C is answered
if TYPE_CHECKING:
    from collections.abc import Sequence

_YOUNG = 50_000
"""New objects after which Python looks for cycles among them: what a command makes of a network
lives until it ends, and to look at all of it after every 700 takes a quarter of the time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Without arguments it is the process's own:
    then Ctrl-C ends that, at whatever moment, before anything else is imported, too."""
    if arguments is not None:
        return _run(arguments)
    from convdsl.cli import interruption

    interruption.ends_the_process()
    gc.set_threshold(_YOUNG, 50, 50)
    code = _run(None)
    interruption.comes_too_late()
    return code


def _run(arguments: Sequence[str] | None) -> int:
    from convdsl.cli.app import main as run

    return run(arguments)
