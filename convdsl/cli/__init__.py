"""The command line: one thin module per subcommand, over the public API."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Without arguments it is the process's own:
    then Ctrl-C ends that, at whatever moment, before anything else is imported, too."""
    if arguments is not None:
        return _run(arguments)
    from convdsl.cli import interruption

    interruption.ends_the_process()
    code = _run(None)
    interruption.comes_too_late()
    return code


def _run(arguments: Sequence[str] | None) -> int:
    from convdsl.cli.app import main as run

    return run(arguments)
