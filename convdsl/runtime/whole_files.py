"""Files that are, at every moment, wholly old or wholly new."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from convdsl.diagnostics import ArtifactError


def write_whole(path: Path, chunks: Iterable[bytes | memoryview], *, durable: bool = True) -> None:
    """Write `chunks` to a temporary file beside `path`, then rename it over `path`.

    With `durable`, file and directory are synced, so that the promise holds across a power
    cut. A file that is replaced hands on its permissions. Raises OSError, and ArtifactError
    where something else than a plain file stands at `path` (a rename would replace a device).
    """
    if path.exists() and not path.is_file():
        raise ArtifactError(f"{path} exists and is not a plain file")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    if durable:
        _sync_directory(path.parent)


def _umask() -> int:
    """The process's mask, read without changing it (setting it would disturb other threads)."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o077


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
