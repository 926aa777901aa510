"""Files that are, at every moment, wholly old or wholly new."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path

from convdsl.diagnostics import ArtifactError, InputError

PART = ".part"
"""How files that are being written end."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_written: set[Path] = set()
_YOUNG = 60  # seconds in which a file without a lock may still be somebody's


def check_place(path: Path) -> None:
    """OSError or ArtifactError where no file can come to be, or to be replaced: for who writes
    several. A disk may be full all the same."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISREG(path.stat().st_mode):  # links in a circle raise: they are not ours
            raise ArtifactError(f"{path} exists and is not a plain file")
    folder = path.parent
    if not folder.is_dir():
        missing = errno.ENOTDIR if folder.exists() else errno.ENOENT
        what = "is no folder" if folder.exists() else "is not there"
        raise OSError(missing, f"the folder {folder} {what}", str(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    _try(folder, path)


def _try(folder: Path, path: Path) -> None:
    """OSError where a folder takes no files, as those of /proc, whatever its permissions say. Of
    most file systems a file without a name is asked for, which nobody sees."""
    with contextlib.suppress(OSError):
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        return
    part = folder / f".{secrets.token_hex(8)}{PART}"
    try:
        os.close(os.open(part, _NEW, 0o600))
        part.unlink()
    except OSError as error:
        why = f"no files can be made in {folder}"
        told = why if error.errno == errno.ENOENT else error.strerror
        raise OSError(error.errno, told, str(path)) from None


def write_whole(
    path: Path,
    chunks: Iterable[bytes | memoryview],
    *,
    durable: bool = True,
    private: bool = False,
) -> None:
    """Write `chunks` to a temporary file beside `path`, then rename it over `path`.

    With `durable`, file and directory are synced, so that the promise holds across a power
    cut. A file that is replaced hands on its permissions; with `private` it is the user's alone,
    whatever the mask. Raises OSError, and ArtifactError
    where something else than a plain file stands at `path` (a rename would replace a device).
    """
    write_all({path: chunks}, durable=durable, private=private)


def write_all(
    files: Mapping[Path, Iterable[bytes | memoryview]],
    *,
    durable: bool = True,
    private: bool = False,
) -> None:
    """Write files that belong together as `write_whole` writes one: all, or none."""
    for path in files:
        check_place(path)
    parts: dict[Path, Path] = {}
    at = None
    try:
        for path, chunks in files.items():
            at = path
            part = path.parent / f".{path.name[:100]}.{secrets.token_hex(8)}{PART}"
            parts[part] = path
            _written.add(part)
            _fill(part, chunks, _mode(path, private=private), durable=durable)
        for part, path in parts.items():
            at = path
            part.replace(path)
    except BaseException as error:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink()
        if isinstance(error, OSError) and error.filename in (None, *map(os.fspath, parts)):
            error.filename = os.fspath(at) if at is not None else None  # as the caller calls it
        raise
    finally:
        _written.difference_update(parts)
    if durable:
        for folder in {path.parent for path in files}:
            _sync_directory(folder)


def _mode(path: Path, *, private: bool) -> int:
    if private:
        return 0o600
    return path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()


def _fill(part: Path, chunks: Iterable[bytes | memoryview], mode: int, *, durable: bool) -> None:
    with os.fdopen(os.open(part, _NEW, 0o600), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel opens it when we die
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fchmod(file.fileno(), mode)
        if durable:
            os.fsync(file.fileno())


@contextlib.contextmanager
def told_of(path: str | Path | None = None) -> Generator[None]:
    """What cannot be written is an InputError, by the name that its user knows."""
    try:
        yield
    except OSError as error:
        where = path if path is not None else error.filename
        raise InputError(f"cannot write {where}: {error.strerror or error}") from None


def give_up() -> None:
    """Remove the parts of all files that are being written, as the process ends."""
    for part in tuple(_written):
        with contextlib.suppress(OSError):
            part.unlink()


def abandoned(path: Path) -> bool:
    """Whether a file is what a writer that is no more has left behind. A living one holds its
    lock, from a moment after the file is made; whoever finds it unlocked then has an old one."""
    if not (path.name.startswith(".") and path.name.endswith(PART)):
        return False
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(handle)
            old = time.time() - status.st_mtime > _YOUNG
            if status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode) and old:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        finally:
            os.close(handle)
    return False


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
