"""Compiled programs kept on disk between runs.

An entry is an artifact that holds key and value; the file's name is a hash of the key, and
the whole key is compared. Whatever is damaged is forgotten and made again. The directory
belongs to the user alone, because what it holds is executed; where that cannot be had, nothing
is cached. No method raises for trouble with the disk: a cache is a convenience.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from convdsl.diagnostics import ArtifactError
from convdsl.runtime import artifact
from convdsl.runtime.whole_files import PART, abandoned

LIMIT_BYTES = 512 << 20
"""Size of all entries together; beyond it the least recently used go."""

_SUFFIX = ".entry"


def default_directory() -> Path:
    """$XDG_CACHE_HOME/convdsl/objects, by default ~/.cache/convdsl/objects."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "convdsl" / "objects"


def sources(rooms: Sequence[str], files: Sequence[str]) -> str:
    """SHA-256 of the package's version and of the sources of some rooms and files of it: a part of
    keys, so that a convdsl that was changed finds nothing that the old one made."""
    digest = hashlib.sha256()
    here = Path(__file__).resolve().parents[1]
    found = [path for room in rooms for path in (here / room).rglob("*.py*")]
    for path in (*(here / name for name in files), *sorted(found)):
        if path.suffix in (".py", ".pyc") and path.parent.name != "__pycache__":
            text = path.read_bytes() if path.exists() else b""
            digest.update(f"{path.relative_to(here)} {len(text)}\n".encode())
            digest.update(text)
    return digest.hexdigest()


class ObjectCache:
    """Values by key, in a directory. Processes may share it."""

    def __init__(self, directory: Path | None = None, limit: int = LIMIT_BYTES) -> None:
        self.directory = default_directory() if directory is None else directory
        self.limit = limit

    @property
    def problem(self) -> str | None:
        """Why nothing can be kept, or None."""
        handle, problem = self._open()
        if handle is not None:
            os.close(handle)
        return problem

    def _open(self) -> tuple[int | None, str | None]:
        """(descriptor of the directory, None), or why there is none. What is checked is what
        will be read: a directory put in its place afterwards is never looked at."""
        handle = None
        try:
            _make(self.directory)
            handle = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            problem = self._objection(os.fstat(handle))
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None, f"{self.directory} is not a directory, but a link"
            problem = f"{self.directory}: {error.strerror}"
        if problem is not None and handle is not None:
            os.close(handle)
            handle = None
        return handle, problem

    def _objection(self, status: os.stat_result) -> str | None:
        if not stat.S_ISDIR(status.st_mode):
            return f"{self.directory} is not a directory"
        if status.st_uid != os.geteuid():
            return f"{self.directory} belongs to another user"
        if status.st_mode & 0o022:
            return f"{self.directory} can be written by others"
        if not os.access(self.directory, os.W_OK | os.X_OK):
            return f"{self.directory} cannot be written"
        for ancestor in self.directory.absolute().parents:
            above = ancestor.stat()
            if above.st_uid not in (0, os.geteuid()):
                return f"{ancestor}, where the cache lies, belongs to another user"
            if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
                return f"{ancestor}, where the cache lies, can be written by others"
        return None

    def get(self, key: str | bytes) -> bytes | None:
        """The value kept under exactly this key."""
        wanted = _bytes(key)
        path = self._path(wanted)
        folder, _ = self._open()
        if folder is None:
            return None
        try:
            sections = artifact.read(path, folder).sections
        except ArtifactError:
            with contextlib.suppress(OSError):
                os.unlink(path.name, dir_fd=folder)
            return None
        finally:
            os.close(folder)
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
            artifact.write(self._path(wanted), sections, {}, durable=False, private=True)
            self._shrink()

    def entries(self) -> list[Path]:
        """The files of all entries."""
        with contextlib.suppress(OSError):
            return sorted(self.directory.glob(f"*{_SUFFIX}"))
        return []

    def size(self) -> int:
        """Bytes of all entries, and of what is being written or was left half written."""
        return sum(size for _, size, _ in self._usage())

    def clear(self) -> None:
        """Forget everything, but what others are writing."""
        self._sweep()
        for path in self.entries():
            self._forget(path)

    def _parts(self) -> list[Path]:
        """Files that are being written, or that a killed process has left."""
        with contextlib.suppress(OSError):
            return sorted(self.directory.glob(f".*{_SUFFIX}.*{PART}"))
        return []

    def _sweep(self) -> None:
        """Remove what killed processes have left."""
        for path in self._parts():
            if abandoned(path):
                self._forget(path)

    def _path(self, key: bytes) -> Path:
        return self.directory / (hashlib.sha256(key).hexdigest() + _SUFFIX)

    def _usage(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, file) of every entry and file being written; files that others just
        removed are left out."""
        usage: list[tuple[float, int, Path]] = []
        for path in (*self.entries(), *self._parts()):
            with contextlib.suppress(OSError):
                status = path.stat()
                usage.append((status.st_mtime, status.st_size, path))
        return usage

    def _shrink(self) -> None:
        self._sweep()
        usage = sorted(self._usage())
        total = sum(size for _, size, _ in usage)
        for _, size, path in usage:
            if total <= self.limit:
                return
            if path.name.endswith(PART):
                continue  # its writer is alive
            self._forget(path)
            total -= size

    def _forget(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()


def _make(directory: Path) -> None:
    """A directory that only the user can write, and those above it, whatever the mask."""
    for path in (*reversed(directory.parents), directory):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key
