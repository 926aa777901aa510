"""Positions by lines and code units, against Python's own codecs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from convdsl.lsp.positions import UNITS, Lines, edited, units

TEXTS = st.text(alphabet="ab \n\r\té𝄞\ufeff\u2028\x0b\x85", max_size=40)
ENCODINGS = st.sampled_from(sorted(UNITS))


@given(TEXTS, ENCODINGS)
def test_code_units_are_those_of_the_encoding(text: str, encoding: str) -> None:
    codec = {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[encoding]
    assert units(text, encoding) == len(text.encode(codec)) // {1: 1, 2: 2, 4: 4}[UNITS[encoding]]


@given(TEXTS, ENCODINGS)
def test_offsets_go_there_and_back(text: str, encoding: str) -> None:
    lines = Lines(text, encoding)
    for offset in range(len(text) + 1):
        inside = text[offset - 1 : offset + 1] == "\r\n"  # no position is between these two
        assert lines.offset(lines.position(offset)) == offset - inside


@given(TEXTS, ENCODINGS, st.integers(0, 60), st.integers(0, 60))
def test_every_position_is_somewhere(text: str, encoding: str, line: int, column: int) -> None:
    lines = Lines(text, encoding)
    offset = lines.offset(types.Position(line, column))
    assert 0 <= offset <= len(text)
    real = text.replace("\r\n", "\n\n").replace("\r", "\n")  # lines end as the protocol says
    ends = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if line >= len(ends):
        assert offset == len(text)
    else:
        start = Lines(text, encoding).offset(types.Position(line, 0))
        assert start <= offset <= start + len(ends[line])
    assert len(real) == len(text)


@given(TEXTS, TEXTS, ENCODINGS, st.tuples(*[st.integers(0, 12)] * 4))
def test_a_change_puts_its_text_in_the_place_of_its_range(
    text: str, put: str, encoding: str, places: tuple[int, int, int, int]
) -> None:
    lines = Lines(text, encoding)
    a, b = types.Position(*places[:2]), types.Position(*places[2:])
    start, end = lines.offset(a), max(lines.offset(a), lines.offset(b))
    change = types.TextDocumentContentChangePartial(types.Range(a, b), put)
    assert edited(lines, change).text == text[:start] + put + text[end:]


@pytest.mark.parametrize(
    ("line", "character", "offset"),
    [(0, 2, 2), (0, 3, 2), (0, 4, 3), (1, 0, 5), (1, 99, 6), (9, 9, 6), (0, 99, 4)],
)
def test_a_character_of_two_units(line: int, character: int, offset: int) -> None:
    """Half of a pair counts as before it."""
    assert Lines("# 𝄞!\nx"[:4] + "\nx").offset(types.Position(line, character)) == offset
