"""Machine code of cards, read with nvdisasm: resources of functions, and what their loops issue."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nvidia
from cupy.cuda import nvrtc

_BIN = Path(next(iter(nvidia.__path__))) / "cu13" / "bin" / "nvdisasm"


@dataclass(frozen=True)
class Resources:
    """Of a function: registers of a thread, bytes of local memory, and of what was spilled."""

    registers: int
    stack: int
    spilled: int


@dataclass(frozen=True)
class Loop:
    """The instructions of a loop, without their operands: `LDS.128`."""

    codes: tuple[str, ...]

    def count(self, name: str) -> int:
        """How often a kind is issued, with whatever modifiers."""
        return sum(code.split(".")[0] == name for code in self.codes)

    def of(self, name: str) -> set[str]:
        return {code for code in self.codes if code.split(".")[0] == name}


@dataclass(frozen=True)
class Function:
    name: str
    resources: Resources
    codes: tuple[str, ...]
    loops: tuple[Loop, ...]

    def main_loop(self) -> Loop | None:
        """The innermost loop with most multiply-adds."""
        found = max(
            self.loops, key=lambda loop: loop.count("FFMA") + loop.count("HMMA"), default=None
        )
        return found if found and found.count("FFMA") + found.count("HMMA") else None


def compiled(source: str, arch: str) -> dict[str, Function]:
    """The functions of a source by name, for a card."""
    made = nvrtc.createProgram(source, "module.cu", [], [])
    try:
        nvrtc.compileProgram(made, [f"--gpu-architecture={arch}", "--ptxas-options=-v"])
    except nvrtc.NVRTCError as error:
        raise AssertionError(nvrtc.getProgramLog(made)) from error
    resources = _resources(str(nvrtc.getProgramLog(made)))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(nvrtc.getCUBIN(made) + b"\0")  # CuPy drops the last byte
        file.flush()
        text = subprocess.run(
            [str(_BIN), "-c", file.name], capture_output=True, text=True, check=True
        ).stdout
    return {f.name: f for f in _functions(text, resources)}


_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


def _resources(log: str) -> dict[str, Resources]:
    found: dict[str, Resources] = {}
    name, stack, spilled = "", 0, 0
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            name = entry.group(1)
        elif frame := _STACK.search(line):
            stack, spilled = int(frame.group(1)), int(frame.group(2)) + int(frame.group(3))
        elif used := _REGISTERS.search(line):
            found[name] = Resources(int(used.group(1)), stack, spilled)
    return found


_SECTION = re.compile(r"(?=\.section\s+\.text\.)")
_NAME = re.compile(r"\.section\s+\.text\.(\w+)")
_LABEL = re.compile(r"\s*\.(L_x_\d+):")
_CODE = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\S+)(.*?);")
_JUMP = re.compile(r"\(\.(L_x_\d+)\)")
_IDLE = re.compile(
    r"/\*[0-9a-f]{4,}\*/\s+@!U?PT\s"
)  # never happens: a workaround of the compiler's


def _functions(text: str, resources: Mapping[str, Resources]) -> Iterator[Function]:
    for section in _SECTION.split(text)[1:]:
        named = _NAME.match(section)
        assert named is not None
        codes: list[str] = []
        labels: dict[str, int] = {}
        spans: list[tuple[int, int]] = []
        for line in section.splitlines():
            if label := _LABEL.match(line):
                labels[label.group(1)] = len(codes)
            code = _CODE.match(line)
            if code is None or _IDLE.search(line):
                continue
            codes.append(code.group(1))
            jump = _JUMP.search(code.group(2))
            if code.group(1).startswith("BRA") and jump and jump.group(1) in labels:
                spans.append((labels[jump.group(1)], len(codes)))
        inner = [
            s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)
        ]
        loops = tuple(Loop(tuple(codes[start:stop])) for start, stop in inner)
        name = named.group(1)
        yield Function(name, resources[name], tuple(codes), loops)
