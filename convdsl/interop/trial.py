"""A file from strangers is parsed in a child process first, while this one loads what reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from convdsl.children import running
from convdsl.diagnostics import InputError, reason
from convdsl.places import kind_of, nothing_at

MAX_FILE = 2**31 - 1
"""Bytes; protobuf reads no more."""

SECONDS = 120
"""Processor time after which a file is given up."""


class NoModel(InputError):
    """A file that holds no ONNX model at all."""


class Trial:
    """`with Trial(path) as trial:` a child process parses and checks the file, where a crash, a
    hang or endless memory hurts nobody. Raises InputError for what is no plain file of sane
    size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not path.exists():
                raise InputError(nothing_at(path, ".onnx"))
            if not path.is_file():
                raise InputError(f"{path} is {kind_of(path)}: an ONNX file is wanted")
            size = path.stat().st_size
            if size > MAX_FILE:
                raise InputError(f"{path} is larger than the 2 GiB that an ONNX file can hold")
            with path.open("rb"):
                pass  # readable
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {reason(error)}") from None
        command = running("convdsl.interop.onnx_file", str(path), str(size))
        self._child = subprocess.Popen(  # noqa: S603  our own module, no shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate()

    def wait(self) -> None:
        """Until the child is done. Raises InputError where the file is not what it should be."""
        path = self.path
        try:
            said, _ = self._child.communicate(timeout=4 * SECONDS)
        except subprocess.TimeoutExpired:
            raise InputError(f"{path}: checking it took too long") from None
        code = self._child.returncode
        if code == 1:
            text = said.decode(errors="replace").removeprefix(f"{path.name} is no ONNX model: ")
            ours = {".cnn": "a text of convdsl", ".cdsl": "an artifact"}.get(path.suffix.lower())
            help = f"\nhelp: it is called like {ours}, which needs no import" if ours else ""
            raise NoModel(f"{path} is no {_why(path, text.rstrip())}{help}")
        if code:
            raise InputError(f"{path} breaks the ONNX parser (exit {code}); it is damaged")


def _why(path: Path, said: str) -> str:
    """Why a file is not taken: what it is instead, where it does not begin as ONNX files do; that
    it is damaged, where it does and protobuf breaks off; else what the checker said."""
    kind = kind_of(path)
    if kind != "an ONNX model":
        return f"ONNX model: it is {kind}"
    if "parsing message" in said:
        size = path.stat().st_size
        return f"sound ONNX model: its {size:,} bytes break off, or some of them were changed"
    return f"valid ONNX model: {said}"
