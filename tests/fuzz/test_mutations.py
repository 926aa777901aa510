"""Mutations of the zoo, derived from the grammar: a result or diagnostics, never anything else.

Mutations exchange, drop, repeat and invent words, and exchange whole subtrees of the syntax
tree. A part runs always, ten thousand with `make fuzz`.
"""

from __future__ import annotations

import dataclasses
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convdsl.diagnostics import CompileError, Diagnostic, SourceFile
from convdsl.elaborate import elaborate
from convdsl.syntax import ast
from convdsl.syntax.format import WORD, format_source
from convdsl.syntax.parser import parse
from convdsl.syntax.tables import grammar_text

EXAMPLES = Path(__file__).parents[2] / "examples"
SEEDS = [path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.cnn"))]
LONG = settings.default is not None and settings.default.max_examples > 100  # make fuzz
MEMORY = 500_000_000  # bytes that a mutation may take
MUTATIONS, PER_EXAMPLE = (10_000, 20) if LONG else (200, 20)

TERMINALS = sorted(set(re.findall(r'"([^"\s\\]+)"', grammar_text())))
INVENTED = [
    *TERMINALS, "0", "-1", "3x3", "0x0", "99999x99999", "1e308", "2 ** 62", "999999999", "100000",
    '"{in.shape}"', '"', "[]", "[[1]]", "relu", "conv", "global", "same", "x.batch", "in.channels",
    "range(99999)", "range(9)", "%", "é", "\x00", "# x\n", "\n", "max", "split(3)", "N", "zip",
]  # fmt: skip


def nodes(node: Any) -> Iterator[ast.Node]:
    """All nodes of a tree."""
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(item)
        elif isinstance(item, ast.Node):
            yield item
            stack.extend(
                getattr(item, f.name) for f in dataclasses.fields(item) if f.name != "span"
            )


@cache
def subtrees(which: int) -> list[tuple[type, int, int]]:
    """Of a seed: what they are, and where."""
    found = nodes(parse(SourceFile("seed", SEEDS[which])))
    return [(type(node), node.span.start, node.span.end) for node in found]


def exchange_subtree(draw: random.Random) -> str:
    """A subtree replaced by another, of the same kind as often as not."""
    which = draw.randrange(len(SEEDS))
    text = SEEDS[which]
    kind, start, end = draw.choice(subtrees(which))
    other = draw.randrange(len(SEEDS))
    candidates = subtrees(other)
    if draw.random() < 0.6:
        candidates = [tree for tree in candidates if tree[0] is kind] or candidates
    _, from_, to = draw.choice(candidates)
    inserted = draw.choice([SEEDS[other][from_:to], "", draw.choice(INVENTED)])
    return text[:start] + inserted + text[end:]


def mutate_words(draw: random.Random) -> str:
    """One to eight words changed."""
    words = re.findall(rf"\s+|{WORD.pattern}", draw.choice(SEEDS))
    for _ in range(draw.choice([1, 1, 2, 3, 8])):
        at, other = draw.randrange(len(words)), draw.randrange(len(words))
        match draw.randrange(5):
            case 0:
                words[at] = ""
            case 1:
                words[at] = f" {draw.choice(INVENTED)} "
            case 2:
                words.insert(at, f" {draw.choice(INVENTED)} ")
            case 3:
                words[at] = words[other]
            case _:
                words[at], words[other] = words[other], words[at]
    return "".join(words)


def diagnose(text: str, model: str | None) -> tuple[Diagnostic, ...]:
    """The diagnostics; none where the text elaborates. Anything else escapes."""
    source = SourceFile(str(EXAMPLES / "mutant.cnn"), text)
    try:
        made = elaborate(source, model=model, root=EXAMPLES, zoo=EXAMPLES)
    except CompileError as error:
        return error.diagnostics
    assert made.outputs
    return ()


def attempt(text: str) -> None:
    """Elaborate the models of the text: each gives a result, or diagnostics in good order."""
    for name in re.findall(r"^model (\w+)", text, re.MULTILINE)[:2] or [None]:
        for diagnostic in diagnose(text, name):
            assert diagnostic.span is not None
            assert re.fullmatch(r"E0\d{3}", diagnostic.code)
            assert diagnostic.render()


@dataclasses.dataclass
class Costs:
    """The greatest costs of one mutation so far."""

    mutations: int = 0
    seconds: float = 0.0  # of processor time; printed, and compared with nothing
    memory: int = 0  # bytes that the process grew by while it ran
    process: int = 0  # bytes of the whole process then
    slowest: str = ""

    def attempt(self, text: str) -> None:
        reset_peak()
        before, start = memory("VmRSS"), time.process_time()
        attempt(text)
        self.seconds = max(self.seconds, time.process_time() - start)
        peak = memory("VmHWM")
        self.memory, self.process = max(self.memory, peak - before), max(self.process, peak)
        self.mutations += 1

    def __str__(self) -> str:
        return (
            f"{self.mutations:,} mutations, each at most {self.seconds:.2f} s of processor time "
            f"and {self.memory / 1e6:.0f} MB more, in a process of {self.process / 1e6:.0f} MB"
        )


def reset_peak() -> None:
    """Let the kernel count the process's greatest size anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory(field: str) -> int:
    """VmRSS, the process's size in bytes, or VmHWM, the greatest it had."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kilobytes,) = re.findall(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) * 1024


@pytest.mark.dear
def test_mutations(record_property: Callable[[str, object], None]) -> None:
    costs = Costs()

    @settings(max_examples=MUTATIONS // PER_EXAMPLE)
    @given(st.integers(0, 1 << 64))
    def mutate(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(PER_EXAMPLE):
            costs.attempt(draw.choice([mutate_words, exchange_subtree, exchange_subtree])(draw))

    mutate()
    record_property("measured", str(costs))
    assert costs.memory < MEMORY


@pytest.mark.dear
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    attempt(text)
    attempt(f"model m {{ input x: f32[N, 3, 8, 8]\n{text}\n}}")


@pytest.mark.dear
@given(st.integers(0, 1 << 64))
def test_what_parses_can_be_formatted(seed: int) -> None:
    text = mutate_words(random.Random(seed))
    try:
        made = format_source(text)
    except CompileError:
        return
    assert format_source(made) == made
