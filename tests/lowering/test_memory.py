"""The arena: what lives at the same time lies apart, what does not shares its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.ir.liveness import LiveRange
from convdsl.lowering.memory import plan_arena, round_up

ALIGNMENT = 64

ranges = st.tuples(st.integers(0, 20), st.integers(0, 6)).map(lambda p: LiveRange(p[0], sum(p)))
problems = st.lists(st.tuples(ranges, st.integers(1, 5000)), max_size=25)


@pytest.mark.dear(share=4)
@given(problems)
def test_what_lives_together_lies_apart(problem: list[tuple[LiveRange, int]]) -> None:
    live = {key: r for key, (r, _) in enumerate(problem)}
    sizes = {key: size for key, (_, size) in enumerate(problem)}
    offsets, total = plan_arena(live, sizes, ALIGNMENT)
    assert offsets.keys() == live.keys()
    for a in live:
        assert offsets[a] % ALIGNMENT == 0
        assert 0 <= offsets[a] <= total - sizes[a]
        for b in live:
            if a < b and live[a].overlaps(live[b]):
                apart = offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a]
                assert apart, (a, b)


@pytest.mark.dear(share=4)
@given(problems)
def test_the_arena_is_no_larger_than_needed(problem: list[tuple[LiveRange, int]]) -> None:
    """At least the most that lives at once, at most everything side by side."""
    live = {key: r for key, (r, _) in enumerate(problem)}
    sizes = {key: round_up(size, ALIGNMENT) for key, (_, size) in enumerate(problem)}
    _, total = plan_arena(live, sizes, ALIGNMENT)
    at_once = [sum(sizes[k] for k, r in live.items() if r.first <= t <= r.last) for t in range(27)]
    assert max(at_once) <= total <= sum(sizes.values())


@pytest.mark.dear(share=4)
@given(st.lists(st.integers(1, 4000), min_size=2, max_size=20))
def test_a_chain_needs_two_places(sizes: list[int]) -> None:
    """Each value lives in two steps: no more than the three largest can matter."""
    live = {k: LiveRange(k, k + 1) for k in range(len(sizes))}
    _, total = plan_arena(live, dict(enumerate(sizes)), ALIGNMENT)
    assert total <= sum(sorted(round_up(size, ALIGNMENT) for size in sizes)[-3:])


def test_equal_sizes_in_a_chain_alternate() -> None:
    live = {k: LiveRange(k, k + 1) for k in range(10)}
    offsets, total = plan_arena(live, dict.fromkeys(live, 100), ALIGNMENT)
    assert total == 2 * 128
    assert [offsets[k] for k in range(10)] == [0, 128] * 5


def test_nothing_needs_nothing() -> None:
    assert plan_arena({}, {}, ALIGNMENT) == ({}, 0)
