"""docs/gradients.md: the tables are those of the records and of tests/kinks.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinks import KINKS

from convdsl.ir.opdef import Derived, Missing, NotDifferentiable, OpDef, Rule, Zero
from convdsl.ops import OPERATORS

DOCUMENT = Path(__file__).parents[2] / "docs" / "gradients.md"


def how(op: OpDef) -> tuple[str, str]:
    """(the kind, the reason or the manner)"""
    match op.gradient:
        case Derived(search, flat_roots, form):
            said = ((search, "by search"), (flat_roots, "0 at 0"), (form, "of another form"))
            return "derived", ", ".join(words for holds, words in said if holds)
        case Rule(why=why):
            return "rule", why
        case Zero(why):
            return "zero", why
        case NotDifferentiable(reason):
            return "none", reason
        case Missing(needs):
            return "missing", f"it needs {needs}"


def operators() -> Iterator[str]:
    counts = Counter(how(op)[0] for op in OPERATORS)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in ("derived", "rule", "zero", "none"))
    yield f"{len(OPERATORS)} operators: {kinds}."
    yield from ("", "| operator | gradient | |", "|---|---|---|")
    for op in sorted(OPERATORS, key=lambda op: op.name):
        kind, why = how(op)
        yield f"| `{op.name}` | {kind} | {why} |"


def kinks() -> Iterator[str]:
    yield from ("| operator | at | ours | PyTorch's | |", "|---|---|---|---|---|")
    for kink in KINKS:
        theirs = kink.ours if kink.found is None else kink.found
        both = f"{shown(kink.ours)} | {shown(theirs)}"
        yield f"| `{kink.op}` | {kink.at} | {both} | `{kink.theirs}` |"


def shown(numbers: Any) -> str:
    return " ".join(f"{number:.4g}" for number in np.ravel(numbers))


@pytest.mark.parametrize(("name", "lines"), [("operators", operators), ("kinks", kinks)])
def test_table(name: str, lines: Any, request: pytest.FixtureRequest) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: written by tests/docs, run `make golden` -->\n", (
        f"<!-- end of {name} -->"
    )  # fmt: skip
    before, rest = text.split(begin)
    section, after = rest.split(end)
    wanted = "\n" + "\n".join(lines()) + "\n\n"
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(f"{before}{begin}{wanted}{end}{after}", encoding="utf-8")
    else:
        assert section == wanted, "run `make golden` and read the diff"


def test_nothing_is_missing() -> None:
    """A rule where the arithmetic would do needs a reason, and so does what has no gradient."""
    found = [how(op) for op in OPERATORS]
    assert all(kind in ("derived", "rule", "zero", "none") for kind, _ in found)
    assert all(why for kind, why in found if kind != "derived")
