"""What two texts have in common is in both, in order."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.editing.alignment import Alignment

TEXTS = st.text(alphabet="ab \n", max_size=60)


@pytest.mark.dear(share=4)
@given(TEXTS, TEXTS)
def test_pieces_are_in_both_texts(old: str, new: str) -> None:
    pieces = Alignment(old, new).pieces
    for piece in pieces:
        assert (
            old[piece.old : piece.old + piece.length] == new[piece.new : piece.new + piece.length]
        )
        assert piece.length >= 0
    for before, after in pairwise(pieces):
        assert before.old + before.length <= after.old
        assert before.new + before.length <= after.new


@given(TEXTS, TEXTS, st.integers(0, 60), st.integers(0, 60))
def test_an_edit_moves_what_is_around_it(text: str, put: str, a: int, b: int) -> None:
    start, end = sorted((min(a, len(text)), min(b, len(text))))
    new = text[:start] + put + text[end:]
    alignment = Alignment(text, new)
    for low in range(start + 1):
        moved = alignment.span(low, start)
        assert moved is not None
        assert new[slice(*moved)] == text[low:start]
    for high in range(end, len(text) + 1):
        moved = alignment.span(end, high)
        assert moved is not None
        assert new[slice(*moved)] == text[end:high]


@given(TEXTS, TEXTS)
def test_there_and_back(old: str, new: str) -> None:
    alignment = Alignment(old, new)
    for offset in range(len(new) + 1):
        was = alignment.old(offset)
        if was is not None:
            assert alignment.span(was, was) is not None


def test_lines_between_two_changes_are_found() -> None:
    old = "one\ntwo\nthree\nfour\nfive\n"
    new = "1\ntwo\nthree\n4\nfive\n"
    assert Alignment(old, new).span(4, 13) == (2, 11)
