"""Machine code of cards as text, by NVIDIA's nvdisasm."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from convdsl.diagnostics import InputError

_TOOL = "nvdisasm"
_WHEEL = "nvidia-cuda-nvdisasm"
_SECTION = re.compile(r"^\.text\.(\w+):$", re.MULTILINE)
_LABEL = re.compile(r"^\s*(\.L_\w+):", re.MULTILINE)
_BRANCH = re.compile(r"\bBRA(?:\.\w+)*\s+.*`\((\.L_\w+)\)")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(.+?)\s*;")


@lru_cache(maxsize=1)
def find_disassembler() -> Path:
    """nvdisasm: the wheel's, or what is on the path. InputError where there is none."""
    try:
        inside = [file for file in files(_WHEEL) or () if file.name == _TOOL]
        found = [Path(str(file.locate())) for file in inside]
    except PackageNotFoundError:
        found = []
    on_path = shutil.which(_TOOL)
    found += [Path(on_path)] if on_path else []
    for tool in found:
        if tool.is_file():
            return tool
    raise InputError(
        f"machine code of cards is shown by nvdisasm, which is not here: pip install {_WHEEL}"
    )


def disassemble(cubin: bytes) -> str:
    """The text of all functions. InputError where nvdisasm is missing or cannot read the code."""
    tool = find_disassembler()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "program.cubin").write_bytes(cubin)  # its name is part of the text
        done = subprocess.run(  # noqa: S603 (a tool of the user's own, on a file of ours)
            [tool, "--print-code", "--no-dataflow", "program.cubin"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise InputError(f"{tool} cannot read the machine code: {done.stderr.strip()}")
    return done.stdout


def instructions(text: str) -> Mapping[str, tuple[str, ...]]:
    """Instructions by function, in their order, of a text of `disassemble`."""
    _, *parts = _SECTION.split(text)
    return {
        name: tuple(_INSTRUCTION.findall(body))
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def main_loop(text: str, function: str, useful: tuple[str, ...]) -> tuple[str, ...]:
    """The instructions, without predicates, of the innermost loop in which most of those stand that
    begin with one of `useful`; without such a loop, all of the function's. A loop is what lies
    between a label and a branch back to it."""
    _, *parts = _SECTION.split(text)
    body = dict(zip(parts[::2], parts[1::2], strict=True))[function]
    lines: list[str] = []
    labels: dict[str, int] = {}
    loops: list[tuple[str, ...]] = []
    for line in body.splitlines():
        label, instruction = _LABEL.match(line), _INSTRUCTION.search(line)
        if label:
            labels[label[1]] = len(lines)
        if instruction:
            lines.append(_unconditional(instruction[1]))
            back = _BRANCH.search(instruction[1])
            if back and back[1] in labels:
                loops.append(tuple(lines[labels[back[1]] :]))

    def count(loop: tuple[str, ...]) -> int:
        return sum(line.startswith(useful) for line in loop)

    innermost = [loop for loop in loops if not any(_within(other, loop) for other in loops)]
    return max(innermost, key=count) if any(map(count, innermost)) else tuple(lines)


def _within(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    size = len(inner)
    return size < len(outer) and any(
        outer[at : at + size] == inner for at in range(len(outer) - size + 1)
    )


def _unconditional(instruction: str) -> str:
    """Without the predicate before it."""
    return re.sub(r"^@!?U?P\w+\s+", "", instruction)
