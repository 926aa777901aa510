"""Begin a project: a network with a `train` block, a budget, data to begin with, a test, CI.

In DIR (made where there is none, by default the current folder) are written NAME.cnn, convdsl.toml,
data.py, test_NAME.py, README.md, .gitignore, .pre-commit-config.yaml and
.github/workflows/convdsl.yml. Nothing that is there is written over. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from convdsl.cli import console
from convdsl.cli.files import plain_path
from convdsl.cli.interruption import Waiting
from convdsl.cli.options import completes
from convdsl.diagnostics import CompileError, InputError
from convdsl.runtime.whole_files import told_of

_FOLDER = Path(__file__).resolve().parents[1] / "templates"
_WORD = "template"  # what files and networks are called in the templates
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_LONGEST = 60

_FILES = {
    "template.cnn": None,
    "convdsl.toml": "convdsl.toml",
    "data.py": "data.py",
    "test_template.py": "test_template.py",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    ".pre-commit-config.yaml": "pre-commit-config.yaml",
    ".github/workflows/convdsl.yml": "workflow.yml",
}
"""What is written, and which file of `common` it is made of; None: of the template's own."""


@dataclass(frozen=True, slots=True)
class Template:
    """A network to begin with, and what the files around it have to say of it."""

    title: str
    arrays: tuple[str, ...]  # of data.py
    outputs: tuple[str, ...]
    params: str
    macs: str
    memory: str
    field: int

    def words(self, name: str) -> Mapping[str, str]:
        """What takes the place of what in a file."""
        return {
            "@TITLE@": self.title,
            "@ARRAYS@": f"({_quoted(self.arrays)})",
            "@OUTPUTS@": _quoted(self.outputs),
            "@PARAMS@": self.params,
            "@MACS@": self.macs,
            "@MEMORY@": self.memory,
            "@FIELD@": str(self.field),
            _WORD: name,
        }


TEMPLATES = {
    "classifier": Template(
        "A classifier: which shape an image shows.",
        ("x", "y"), ("logits",), params="30K", macs="3M", memory="1MiB", field=16,
    ),
    "segmentation": Template(
        "Segmentation: which pixels belong to which shape.",
        ("x", "mask"), ("map",), params="10K", macs="4M", memory="1MiB", field=16,
    ),
    "detection": Template(
        "Detection: which shape an image shows, and where.",
        ("x", "y", "boxes"), ("scores", "box"), params="60K", macs="3M", memory="1MiB", field=16,
    ),
}  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    completes(parser.add_argument("folder", nargs="?", default=".", metavar="DIR", help="where"))
    parser.add_argument("--name", help="of the network (default: as the folder is called)")
    parser.add_argument(
        "--template",
        choices=tuple(TEMPLATES),
        default="classifier",
        help=f"one of {', '.join(TEMPLATES)} (default classifier)",
    )


def run(options: argparse.Namespace) -> int:
    folder = plain_path(options.folder)
    name = _checked(options.name) if options.name is not None else _named_as(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a project is begun in a folder")
    made = dict(_texts(name, options.template))
    _try(name, made[f"{name}.cnn"])
    there = [path for path in made if (folder / path).exists() or (folder / path).is_symlink()]
    if there:
        some = ", ".join(there)
        raise InputError(f"{folder} has {some} already; nothing was written")
    with Waiting(), told_of():
        _write(folder, made)
    for path in made:
        console.result(str(folder / path))
    inside = "" if options.folder == "." else f"cd {shlex.quote(options.folder)} && "
    console.note(f"next: {inside}python data.py && convdsl train {name}.cnn --data data.npz")
    return 0


def _texts(name: str, template: str) -> Iterator[tuple[str, str]]:
    """The files by their paths."""
    words = TEMPLATES[template].words(name)
    for path, common in _FILES.items():
        source = f"common/{common}" if common is not None else f"{template}/{path}"
        text = (_FOLDER / f"{source}.in").read_text(encoding="utf-8")
        for word, said in words.items():
            text = text.replace(word, said)
        yield path.replace(_WORD, name), text


def _write(folder: Path, made: Mapping[str, str]) -> None:
    """All files, or nothing where one cannot be; what stands there meanwhile is left alone."""
    written: list[Path] = []
    try:
        for path, text in made.items():
            place = folder / path
            missing = [each for each in place.parents if not each.exists()]
            for parent in reversed(missing):
                parent.mkdir(exist_ok=True)
                written.append(parent)
            _put(place, text)
            written.append(place)
    except BaseException:
        for each in reversed(written):
            with contextlib.suppress(OSError):
                each.rmdir() if each.is_dir() else each.unlink()
        raise


def _put(place: Path, text: str) -> None:
    """A new file, whole or not there."""
    file = place.open("x", encoding="utf-8")
    try:
        with file:
            file.write(text)
    except BaseException as error:
        place.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(place)  # a full disk is told without it
        raise


def _checked(name: str) -> str:
    """A name that a network, a file and a module of Python can have."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise InputError(f"--name {name}: a network is called by letters, digits and `_`")
    return name


def _try(name: str, text: str) -> None:
    """Elaborate the network: words of the language, and what it says itself, name no network."""
    from convdsl.loading import parse

    try:
        sound = not parse(text).warnings
    except CompileError:
        sound = False
    if not sound:
        raise InputError(f"{name} means something else in the language; say another --name")


def _named_as(folder: Path) -> str:
    """The folder's name as one of a network."""
    place = Path(os.path.realpath(folder))
    words = re.findall(r"[a-z0-9]+", place.name.lower())
    name = "_".join(words)
    if not words or not name[0].isalpha():
        raise InputError(f"no network can be called as {place}; say --name NAME")
    return _checked(name[:_LONGEST])


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)
