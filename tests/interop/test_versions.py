"""Every kind of node in every version of its definition; the table in docs has more of them."""

from __future__ import annotations

import pytest

from interop.drawn_nodes import GENERATORS
from interop.versions import EACH, REPORT, cell, versions

pytestmark = pytest.mark.drawn

CELLS = [(kind, opset) for kind, numbers in versions().items() for opset in numbers]


@pytest.mark.dear
@pytest.mark.parametrize(("kind", "opset"), CELLS)
def test_versions(kind, opset):
    made = cell(kind, opset, 2)
    assert not made.troubles
    assert made.right + made.unjudged == 2


def test_every_kind_is_drawn():
    assert GENERATORS.keys() >= versions().keys()


def test_the_table_has_every_cell_right():
    """As `make conformance` wrote it."""
    lines = REPORT.read_text(encoding="utf-8").splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line[:2] == "| "}
    for kind, numbers in versions().items():
        found = [text.strip() for text in rows[kind].strip("|").split("|")[1:]]
        assert sum(bool(text) for text in found) == len(numbers), kind
        assert all(text.isdigit() and int(text) <= EACH for text in found if text), kind
