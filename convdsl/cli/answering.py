"""What a command's failures are answered with: a line, or findings, and an exit code."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from convdsl.cli import console
from convdsl.diagnostics import CompileError, Error

FINDINGS, FAILURE, READER_GONE = 1, 2, 141


def answered(work: Callable[[], int], *, verbose: bool) -> int:
    """The exit code of a command, whatever it raises but that its reader is gone."""
    try:
        return work()
    except BrokenPipeError:
        raise
    except CompileError as error:
        console.findings(error.diagnostics)
    except (Error, OSError, MemoryError) as error:
        console.error(_describe(error))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "convdsl"):
            _confess(error, verbose=verbose)
        else:
            console.error(lacks(missing))
    except Exception as error:  # noqa: BLE001  the last resort: whatever gets here is a bug
        _confess(error, verbose=verbose)
    return FAILURE


def lacks(package: str) -> str:
    """What to do where a package is not there that convdsl brings along."""
    return (
        f"the Python package {package} is missing, which convdsl needs\n"
        "help: install convdsl again: pip install --force-reinstall convdsl"
    )


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}" if str(error) else "not enough memory"
    return str(error)


def _confess(error: Exception, *, verbose: bool) -> None:
    """Whatever is not an Error is our mistake; say so, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    console.error(f"a bug in convdsl: {type(error).__name__}: {error}{where}")
    if verbose:
        traceback.print_exception(error)
    else:
        console.note("please report it; --verbose shows the traceback", always=True)
