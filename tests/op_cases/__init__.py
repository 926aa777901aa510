"""Drawn configurations for every operator, by name."""

from op_cases import convolution, maps, movement, pooling, statistics
from op_cases.draw import Case, Draw, Generator

GENERATORS: dict[str, Generator] = {
    **convolution.GENERATORS,
    **pooling.GENERATORS,
    **maps.GENERATORS,
    **movement.GENERATORS,
    **statistics.GENERATORS,
}

CASES_PER_OPERATOR = 20


def draw_case(name: str, seed: int) -> Case:
    """Configuration number `seed` of an operator; the same on every run and machine."""
    return GENERATORS[name](Draw(seed, *name.encode()))
