"""Where an operator is named outside its record and its correspondence row.

    python -m where group_norm     every place, and how many there are in each file
    python -m where                how many files each operator is named in

What is written by hand counts: strings and record names in Python, code in Markdown. Networks that
use an operator do not, nor do decisions, which are history. Names that scalar functions have too
mean these in the rooms that calculate.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from convdsl import ops
from convdsl.interop import correspondence
from convdsl.ir.opdef import OpDef
from convdsl.kernel.scalar import FUNCTIONS

ROOT = Path(__file__).parents[1]
CALCULATING = ("kernel", "tensor", "schedules", "lowering", "backends", "analysis", "ir")
"""Rooms in which a word that is a scalar function's name means that function."""

GENERATED = re.compile(r"<!-- operators: .*?<!-- end of operators -->", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """A line that names an operator."""

    file: str
    line: int
    text: str


def places(op: OpDef) -> list[Place]:
    """Every place, in the order of files and lines."""
    names = {op.name, *op.aliases}
    own = {record_file(op), row_file(op)}
    found: list[Place] = []
    for path in sorted({*python_files(), *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")}):
        file = str(path.relative_to(ROOT))
        if file in own or (names & FUNCTIONS.keys() and _calculates(path)):
            continue
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        numbers = (_in_python if path.suffix == ".py" else _in_markdown)(text, names)
        found += [Place(file, number, lines[number - 1].strip()) for number in numbers]
    return found


def python_files() -> list[Path]:
    return [p for room in ("convdsl", "tests", "benchmarks") for p in (ROOT / room).rglob("*.py")]


def record_file(op: OpDef) -> str:
    (family,) = (family for family in ops.FAMILIES if op in family.OPERATORS)
    return _relative(family.__file__)


def row_file(op: OpDef) -> str:
    row = correspondence.ROWS[op.name]
    (family,) = (family for family in correspondence.FAMILIES if row in family.ROWS)
    return _relative(family.__file__)


def _relative(file: str | None) -> str:
    assert file is not None
    return str(Path(file).relative_to(ROOT))


def _calculates(path: Path) -> bool:
    return any((ROOT / "convdsl" / room) in path.parents for room in CALCULATING)


@cache
def _words(text: str) -> tuple[tuple[str, int], ...]:
    """Strings, and names in capitals, with their lines."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((node.value, node.lineno))
        elif isinstance(node, ast.Name) and node.id.isupper():
            found.append((node.id.lower(), node.lineno))
    return tuple(found)


def _in_python(text: str, names: set[str]) -> list[int]:
    if not any(name in text.lower() for name in names):
        return []  # most files name none, and parsing takes longer than looking
    return sorted({line for word, line in _words(text) if word in names})


def _in_markdown(text: str, names: set[str]) -> Iterator[int]:
    by_hand = GENERATED.sub(lambda match: "\n" * match.group().count("\n"), text)
    pattern = re.compile(r"`(?:convdsl ops )?(?:" + "|".join(map(re.escape, names)) + r")[`(]")
    for number, line in enumerate(by_hand.splitlines(), 1):
        if pattern.search(line):
            yield number


def main(names: list[str]) -> int:
    if not names:
        for op in ops.OPERATORS:
            files = Counter(place.file for place in places(op))
            print(f"{op.name:<24} {2 + len(files):>3} files")
        return 0
    op = ops.SPELLINGS.get(names[0])
    if op is None:
        print(f"no operator is called {names[0]}", file=sys.stderr)
        return 2
    found = places(op)
    for place in found:
        print(f"{place.file}:{place.line}: {place.text}")
    files = Counter(place.file for place in found)
    print(f"\n{op.name}: its record in {record_file(op)}, its row in {row_file(op)}")
    for file, count in files.items():
        print(f"{count:>4}  {file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
