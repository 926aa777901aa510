"""Machine code of cards, read with nvdisasm: resources of functions, and what their loops issue."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from convdsl.backends.cuda.disassembly import disassemble
from convdsl.backends.cuda.nvrtc import Resources, compile_source


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
        found = max(self.loops, key=_multiply_adds, default=None)
        return found if found and _multiply_adds(found) else None


def _multiply_adds(loop: Loop) -> int:
    return sum(map(loop.count, ("FFMA", "HMMA", "HGMMA")))


def compiled(source: str, arch: str) -> dict[str, Function]:
    """The functions of a source by name, for a card, as users get them."""
    made = compile_source(source, arch)
    return {f.name: f for f in _functions(disassemble(made.cubin), made.resources)}


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
