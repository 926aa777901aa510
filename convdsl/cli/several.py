"""Training by several processes: started here, or by somebody's mpiexec."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from pathlib import Path

from convdsl.children import running
from convdsl.cli import console
from convdsl.diagnostics import InputError
from convdsl.ranks import ALONE, Ranks
from convdsl.ranks.job import FAILED, INTERRUPTED, take_part
from convdsl.ranks.launching import Ended, launch
from convdsl.ranks.started import started

_OWN = (0, 1, FAILED, INTERRUPTED)
"""Exit codes whose reason a process has said itself."""


def start_several(options: argparse.Namespace, folder: Path) -> int:
    """Run this command as several processes, and say how they ended if they could not."""
    _check(options)
    command = running("convdsl", *options.words)
    return code_of(launch(command, options.nproc), folder)


def one_of_several(
    options: argparse.Namespace, train: Callable[[argparse.Namespace, Ranks], int]
) -> int:
    """This process's part."""
    from convdsl.ranks.mpi import open_ranks

    ranks = ALONE if started() == 1 and options.nproc is None else open_ranks()
    return take_part(ranks, lambda: _part(options, ranks, train))


def _part(
    options: argparse.Namespace,
    ranks: Ranks,
    train: Callable[[argparse.Namespace, Ranks], int],
) -> int:
    if ranks.size > 1:
        _check(options)
    if options.nproc not in (None, ranks.size):
        raise InputError(f"--nproc {options.nproc}, and mpiexec has started {ranks.size} processes")
    return train(options, ranks)


def _check(options: argparse.Namespace) -> None:
    if options.find_lr or options.overfit is not None:
        raise InputError("--find-lr and --overfit look at one process: leave --nproc out")


def code_of(ended: Ended, folder: Path) -> int:
    """The exit code, and a line where nobody was left to say one."""
    if ended.signal is None and ended.code in _OWN:
        return ended.code
    how = "ended"
    if ended.signal is not None:
        how = f"was killed ({signal.strsignal(ended.signal) or f'signal {ended.signal}'})"
    who = f"process {ended.pid}" if ended.pid else "a process"
    kept = folder / "checkpoint" / "state.safetensors"
    rest = f"there was no checkpoint in {folder} yet"
    if kept.exists():
        rest = f"`--resume` goes on from {folder}/checkpoint"
    console.error(f"{who} of the job {how}, and the others were stopped; {rest}")
    return FAILED
