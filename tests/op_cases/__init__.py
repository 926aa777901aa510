"""Drawn configurations for every operator, by name."""

from itertools import count

from op_cases import convolution, fourier, maps, movement, pooling, positions, sampling, statistics
from op_cases.draw import Case, Draw, Generator

GENERATORS: dict[str, Generator] = {
    **convolution.GENERATORS,
    **fourier.GENERATORS,
    **pooling.GENERATORS,
    **maps.GENERATORS,
    **movement.GENERATORS,
    **statistics.GENERATORS,
    **positions.GENERATORS,
    **sampling.GENERATORS,
}

CASES_PER_OPERATOR = 20

ONE_PASS = ("cumsum", "top_k")
"""Whose expressions say every pair of elements, and whose cost is what one pass does."""

MOST_WORK = 12_000
"""Arithmetic and elements of one case: what the loop interpreter gets through in a moment."""


def draw_case(name: str, seed: int) -> Case:
    """Configuration number `seed` of an operator; the same on every run and machine."""
    for attempt in count():
        case = GENERATORS[name](Draw(seed, attempt, *name.encode()))
        if _work(case) <= MOST_WORK:
            return case
    raise AssertionError


def _work(case: Case) -> int:
    elements = sum(type.elements for type in case.call.outputs)
    work = case.op.cost(case.call).flops + elements
    assert isinstance(work, int)
    return work
