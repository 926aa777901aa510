"""Where commands read and write: paths as they are given, and names that promise another kind."""

from __future__ import annotations

from pathlib import Path

from convdsl.diagnostics import InputError
from convdsl.places import check_name


def plain_path(text: str) -> Path:
    """A path from the command line; a NUL byte cannot be part of one."""
    if not text:
        raise InputError("a path is empty: name a file or a folder")
    if "\0" in text:
        raise InputError("a path cannot hold a NUL byte")
    return Path(text)


def path_of(what: str, text: str, *ends: str, is_said: bool = False) -> Path:
    """Where something is written. InputError for what names no file, or one of another kind
    (`places.check_name`)."""
    path = plain_path(text)
    if text == "-":
        raise InputError(f"{what} is not for the standard output: name a file, ./- is one")
    if text.endswith("/"):
        raise InputError(f"{text} is a folder: name the file in it")
    check_name(what, path, *ends, is_said=is_said)
    return path


def place_of(what: str, text: str, *ends: str, is_said: bool = False) -> Path:
    """The same, and InputError where no file can come to be: before the work that it is for."""
    from convdsl.runtime.whole_files import check_place, told_of

    path = path_of(what, text, *ends, is_said=is_said)
    with told_of(path):
        check_place(path)
    return path
