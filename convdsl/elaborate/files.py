"""Which files a source may read: inside its project, or the zoo; regular, small, text.

The project root is the nearest folder upward with a `convdsl.toml`, else the folder of the
file. A path is resolved, links and `..` included, before anything is opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from convdsl.diagnostics import SourceFile
from convdsl.spelling import nearest
from convdsl.syntax import ast
from convdsl.syntax.limits import SOURCE_BYTES
from convdsl.syntax.parser import parse

ZOO = "zoo:"
ROOT_MARK = "convdsl.toml"
LISTED = 1_000  # entries of a folder that are looked at for a suggestion


class FileProblem(Exception):
    """The file may not or cannot be read; `code` as in convdsl.explanations."""

    def __init__(self, code: str, message: str, help: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help


def is_file(path: Path) -> bool:
    """Whether there is such a file; of what cannot be the name of one, that there is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def project_root(path: Path) -> Path:
    """The nearest folder at or above the file's that holds a convdsl.toml, else the file's."""
    folder = Path(os.path.realpath(path)).parent
    for candidate in (folder, *folder.parents):
        if is_file(candidate / ROOT_MARK):
            return candidate
    return folder


class Library:
    """The folders that sources may read from, and how what is there is read: an editor has texts of
    its own for some files."""

    def __init__(self, root: Path | None, zoo: Path | None) -> None:
        self.root = Path(os.path.realpath(root)) if root is not None else None
        self.zoo = Path(os.path.realpath(zoo)) if zoo is not None else None

    def resolve(self, text: str, importer: Path | None) -> Path:
        """The real path that `use "text"` in the file `importer` means."""
        _check_text(text)
        if text.startswith(ZOO):
            if self.zoo is None:
                raise FileProblem("E0702", "the zoo is not available here")
            return self._inside(self.zoo, self.zoo, text[len(ZOO) :], "the zoo")
        if importer is None:
            raise FileProblem("E0702", "source text without a file can use the zoo only")
        folder = Path(os.path.realpath(importer)).parent
        if self.zoo is not None and _within(folder, self.zoo):
            return self._inside(self.zoo, folder, text, "the zoo")
        if self.root is None:
            raise FileProblem("E0702", "source text without a file can use the zoo only")
        return self._inside(self.root, folder, text, "the project")

    def text(self, place: Path, limit: int) -> str:
        """The text of a file that `resolve` has found; raises FileProblem."""
        return read_text(place, limit)

    def source(self, place: Path, shown: str) -> SourceFile:
        """The file as a source, which messages call `shown`."""
        return source_of(shown, self.text(place, SOURCE_BYTES))

    def tree(self, source: SourceFile) -> ast.File:
        """The tree of a source; raises CompileError."""
        return tree_of(source)

    def _inside(self, root: Path, folder: Path, text: str, what: str) -> Path:
        _check_text(text)
        real = Path(os.path.realpath(folder / text))
        if not _within(real, root):
            raise FileProblem("E0702", f'"{text}" leads outside {what}', _rooted(what, root))
        return real


def _rooted(what: str, root: Path) -> tuple[str, ...]:
    """How a project comes to hold more folders."""
    if what != "the project":
        return ()
    if is_file(root / ROOT_MARK):
        return (f"the project is {root.name}/, the folder that holds a {ROOT_MARK}",)
    text = f"the project is the file's own folder, {root.name}/; an empty {ROOT_MARK}"
    return (f"{text} in a folder above makes that the project",)


def _check_text(text: str) -> None:
    if not text or len(text) > 1_000:
        raise FileProblem("E0702", "an empty or endless path")
    if any(not character.isprintable() for character in text):
        raise FileProblem("E0702", "a path with control characters")
    if text.startswith(("/", "\\", "~")) or "\\" in text or text[1:2] == ":":
        raise FileProblem("E0702", f'"{text}" is not a relative path with plain slashes')


def _within(path: Path, root: Path) -> bool:
    return path == root or root in path.parents


def elsewhere(text: str, importer: Path, root: Path) -> tuple[str, ...]:
    """Help for a file that is not there: where a folder above the importer's, within the project,
    has the path."""
    folder = Path(os.path.realpath(importer)).parent
    up = ""
    while folder != root and root in folder.parents:
        folder, up = folder.parent, f"../{up}"
        if is_file(folder / text):
            return (f'paths begin at the importing file: write "{up}{text}"',)
    return ()


def neighbours(path: Path, text: str) -> tuple[str, ...]:
    """Help for a file that is not there, written as `text`: one beside it with nearly its name."""
    try:
        names = [entry.name for entry in islice(os.scandir(path.parent), LISTED)]
    except OSError:
        return ()
    near = nearest(path.name, (name for name in names if name.endswith(path.suffix or ".cnn")))
    return (f"did you mean `{text.removesuffix(path.name)}{near}`?",) if near is not None else ()


def below(name: str, folder: Path) -> tuple[str, ...]:
    """Help for a file that is not there: one of its name in a folder further down."""
    seen = 0
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if name in names:
            path = (Path(top) / name).relative_to(folder).as_posix()
            return (f'did you mean "{path}"?',)
        seen += len(names) + len(folders)
        if seen > LISTED:
            break
    return ()


_Parsed = dict[tuple[str, str], tuple[SourceFile, ast.File | None]]

_parsed: list[_Parsed] = []


@contextmanager
def parsed_once() -> Generator[None]:
    """Meanwhile a text is parsed once, however many of its models are asked for."""
    found: _Parsed = {}
    _parsed.append(found)
    try:
        yield
    finally:
        _parsed[:] = [other for other in _parsed if other is not found]


def source_of(shown: str, text: str) -> SourceFile:
    """A text that was read as a source."""
    made = SourceFile(shown, text)
    return _parsed[-1].setdefault((shown, text), (made, None))[0] if _parsed else made


def tree_of(source: SourceFile) -> ast.File:
    """The tree of a source; raises CompileError."""
    key = (source.path, source.text)
    known, tree = _parsed[-1].get(key, (None, None)) if _parsed else (None, None)
    if known is not source:
        return parse(source)
    if tree is None:
        tree = parse(source)
        _parsed[-1][key] = (source, tree)
    return tree


Stamp = tuple[int, int, int] | None
"""When a file was changed, its size and which it is; None where there is none."""


def stamp(path: Path) -> Stamp:
    """What is otherwise once a file is another one."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


_reads: list[dict[Path, Stamp]] = []


@contextmanager
def recorded_reads() -> Generator[dict[Path, Stamp]]:
    """The paths that are read from here on, or would be if there were such files, as they were
    before they were read."""
    found: dict[Path, Stamp] = {}
    _reads.append(found)
    try:
        yield found
    finally:
        _reads[:] = [other for other in _reads if other is not found]


def read_text(path: Path, limit: int) -> str:
    """The text of a regular file of at most `limit` bytes; links are not followed any more."""
    for found in _reads:
        found.setdefault(path, stamp(path))
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise FileProblem("E0704", f"{path.name} is not a regular file")
        descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        raise FileProblem("E0701", f"there is no {path.name} in {path.parent}") from None
    except OSError as error:
        raise FileProblem("E0701", f"cannot read {path.name}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileProblem("E0704", f"{path.name} is not a regular file")
        data = file.read(limit + 1) if status.st_size <= limit else b"x" * (limit + 1)
    if len(data) > limit:
        raise FileProblem("E0801", f"{path.name} is larger than {limit:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileProblem("E0704", f"{path.name} is not UTF-8 text") from None
