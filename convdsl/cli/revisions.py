"""Models as they were at a revision of git: their sources, written where they can be read.

Nothing of the checkout is touched, and nothing of the revision is run: trees are listed and blobs
are printed.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from convdsl.diagnostics import CompileError, Diagnostic, InputError, Label, SourceFile, Span
from convdsl.elaborate.files import project_root
from convdsl.elaborate.limits import LABELS_BYTES

_SECONDS = 60
_FILES, _BYTES = 10_000, 1 << 28  # of sources; a project of more is no project of networks


class _Blob(NamedTuple):
    """A file of a revision."""

    path: PurePosixPath  # from the top of the checkout
    id: str
    size: int


@contextmanager
def at_revision(file: str, revision: str) -> Generator[str]:
    """Where a file of a checkout can be loaded as it was. What is wrong in it is told with its
    place in the checkout. Raises InputError where git does not have it."""
    real = Path(os.path.realpath(file))
    top = Path(os.path.realpath(_git(real.parent, "rev-parse", "--show-toplevel").strip()))
    commit = _commit(top, revision)
    root = project_root(real)
    root = root if root == top or top in root.parents else top
    blobs = [b for b in _listed(top, commit, root) if _is_source(b, real.relative_to(top))]
    if PurePosixPath(real.relative_to(top).as_posix()) not in {blob.path for blob in blobs}:
        raise InputError(f"{revision} has no {file}")
    if len(blobs) > _FILES or sum(blob.size for blob in blobs) > _BYTES:
        raise InputError(f"{revision} has more sources than {_FILES:,} or {_BYTES:,} bytes")
    with tempfile.TemporaryDirectory(prefix="convdsl-") as temporary:
        folder = Path(os.path.realpath(temporary))
        _write(top, blobs, folder)
        try:
            yield str(folder / real.relative_to(top))
        except CompileError as error:
            moved = (_moved(d, folder, revision) for d in error.diagnostics)
            raise CompileError(moved) from None


def file_and_name(model: str) -> tuple[str, str | None]:
    """The file, and the name where `FILE:NAME` is said."""
    head, colon, name = model.rpartition(":")
    if Path(model).is_file():
        return model, None
    if colon and Path(head).is_file():
        return head, name
    raise InputError(f"--against compares a file; {model} is none")


def _git(folder: Path, *arguments: str, sent: bytes | None = None) -> str:
    return _git_bytes(folder, *arguments, sent=sent).decode(errors="surrogateescape")


def _git_bytes(folder: Path, *arguments: str, sent: bytes | None = None) -> bytes:
    """What git prints. Raises InputError with the first line of its complaint."""
    settings = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(  # noqa: S603  the user's own git, on what follows its options
            command,
            input=sent if sent is not None else b"",
            capture_output=True,
            check=False,
            timeout=_SECONDS,
            env=os.environ | settings,
        )
    except FileNotFoundError:
        raise InputError("--against needs git, which is not installed") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"git takes longer than {_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
        raise InputError(f"git: {said[0].removeprefix('fatal: ')}")
    return done.stdout


def _commit(top: Path, revision: str) -> str:
    wanted = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    try:
        return _git(top, *wanted).strip()
    except InputError:
        shallow = _git(top, "rev-parse", "--is-shallow-repository").strip() == "true"
        hint = "; the clone is shallow, fetch it: git fetch origin REV" if shallow else ""
        raise InputError(f"git knows no revision {revision}{hint}") from None


def _listed(top: Path, commit: str, root: Path) -> Iterator[_Blob]:
    """The plain files of a folder as a commit has them."""
    inside = root.relative_to(top).as_posix()
    listed = _git(top, "--literal-pathspecs", "ls-tree", "-r", "-l", "-z", "--full-tree",
                  commit, "--", *([] if inside == "." else [inside]))  # fmt: skip
    for entry in listed.split("\0"):
        facts, tab, path = entry.partition("\t")
        if not tab:
            continue
        mode, kind, id, size = facts.split()
        parts = PurePosixPath(path).parts
        if kind == "blob" and mode != "120000" and not {"..", ".git", "/"} & set(parts):
            yield _Blob(PurePosixPath(path), id, int(size))


def _is_source(blob: _Blob, model: Path) -> bool:
    """Whether a model may be made of it: sources, and files as small as lists of labels."""
    named = blob.path == PurePosixPath(model.as_posix())
    return named or blob.path.suffix == ".cnn" or blob.size <= LABELS_BYTES


def _write(top: Path, blobs: Sequence[_Blob], folder: Path) -> None:
    """The blobs under their paths."""
    asked = "".join(f"{blob.id}\n" for blob in blobs).encode()
    printed = memoryview(_git_bytes(top, "cat-file", "--batch", sent=asked))
    at = 0
    for blob in blobs:
        heading = bytes(printed[at : at + 200]).partition(b"\n")[0]
        at += len(heading) + 1
        place = folder / blob.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(printed[at : at + blob.size])
        at += blob.size + 1


def _moved(diagnostic: Diagnostic, folder: Path, revision: str) -> Diagnostic:
    """With the places of the checkout: `REV:nets/net.cnn`, as git writes them."""

    def span(found: Span) -> Span:
        path = Path(os.path.realpath(found.source.path))
        if folder not in path.parents:
            return found
        source = SourceFile(f"{revision}:{path.relative_to(folder).as_posix()}", found.source.text)
        return source.span(found.start, found.end)

    labels = tuple(Label(span(label.span), label.text) for label in diagnostic.labels)
    frames = tuple(replace(f, span=f.span and span(f.span)) for f in diagnostic.frames)
    return replace(diagnostic, labels=labels, frames=frames)
