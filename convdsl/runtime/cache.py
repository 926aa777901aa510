"""Compiled programs kept on disk between runs.

An entry is an artifact that holds key and value; the file's name is a hash of the key, and
the whole key is compared. Whatever is damaged is forgotten and made again. The directory
belongs to the user alone, because what it holds is executed; where that cannot be had, nothing
is cached. No method raises for trouble with the disk: a cache is a convenience.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from convdsl.diagnostics import ArtifactError
from convdsl.runtime import artifact

LIMIT_BYTES = 512 << 20
"""Size of all entries together; beyond it the least recently used go."""

_SUFFIX = ".entry"


def default_directory() -> Path:
    """$XDG_CACHE_HOME/convdsl/objects, by default ~/.cache/convdsl/objects."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "convdsl" / "objects"


class ObjectCache:
    """Values by key, in a directory. Processes may share it."""

    def __init__(self, directory: Path | None = None, limit: int = LIMIT_BYTES) -> None:
        self.directory = default_directory() if directory is None else directory
        self.limit = limit

    @property
    def problem(self) -> str | None:
        """Why nothing can be kept, or None."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.stat(follow_symlinks=False)
        except OSError as error:
            return f"{self.directory}: {error.strerror}"
        if not stat.S_ISDIR(status.st_mode):
            return f"{self.directory} is not a directory"
        if status.st_uid != os.geteuid():
            return f"{self.directory} belongs to another user"
        if status.st_mode & 0o022:
            return f"{self.directory} can be written by others"
        if not os.access(self.directory, os.W_OK | os.X_OK):
            return f"{self.directory} cannot be written"
        return None

    def get(self, key: str | bytes) -> bytes | None:
        """The value kept under exactly this key."""
        wanted = _bytes(key)
        path = self._path(wanted)
        if self.problem is not None or not path.exists():
            return None
        try:
            sections = artifact.read(path).sections
        except ArtifactError:
            self._forget(path)
            return None
        if sections.keys() != {"key", "value"} or bytes(sections["key"]) != wanted:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # recently used
        return bytes(sections["value"])

    def put(self, key: str | bytes, value: bytes) -> None:
        """Keep a value. Concurrent writers of one key leave one whole entry."""
        wanted = _bytes(key)
        if self.problem is not None or len(wanted) + len(value) > self.limit:
            return
        with contextlib.suppress(ArtifactError, OSError):
            sections = {"key": wanted, "value": value}
            artifact.write(self._path(wanted), sections, {}, durable=False)
            self._shrink()

    def entries(self) -> list[Path]:
        """The files of all entries."""
        with contextlib.suppress(OSError):
            return sorted(self.directory.glob(f"*{_SUFFIX}"))
        return []

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in self._usage())

    def clear(self) -> None:
        """Forget everything."""
        for path in self.entries():
            self._forget(path)

    def _path(self, key: bytes) -> Path:
        return self.directory / (hashlib.sha256(key).hexdigest() + _SUFFIX)

    def _usage(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, file) of every entry; files that others just removed are left out."""
        usage: list[tuple[float, int, Path]] = []
        for path in self.entries():
            with contextlib.suppress(OSError):
                status = path.stat()
                usage.append((status.st_mtime, status.st_size, path))
        return usage

    def _shrink(self) -> None:
        usage = sorted(self._usage())
        total = sum(size for _, size, _ in usage)
        for _, size, path in usage:
            if total <= self.limit:
                return
            self._forget(path)
            total -= size

    def _forget(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key
