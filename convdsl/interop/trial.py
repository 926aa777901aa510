"""A file from strangers is parsed in a child process first, while this one loads what reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from convdsl.children import running
from convdsl.diagnostics import InputError, reason

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
            if not path.is_file():
                raise InputError(f"{path} is no plain file")
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
            raise NoModel(f"{path} is no valid ONNX model: {text.rstrip()}{help}")
        if code:
            raise InputError(f"{path} breaks the ONNX parser (exit {code}); it is damaged")
