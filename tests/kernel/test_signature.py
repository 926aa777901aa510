"""Sizes that shapes of arrays say, also where they are part of an expression."""

from __future__ import annotations

import random

import pytest

import convdsl
from convdsl.diagnostics import InputError
from convdsl.kernel.signature import bind_shapes
from convdsl.sizes import bind, ports_of


def declared(first: str, second: str = "T") -> convdsl.Model:
    return convdsl.parse(
        f"model m {{\ninput a: f32[N, 3, {first}]\ninput b: f32[N, 3, {second}]\n"
        "a -> relu -> output y\nb -> relu -> output z\n}"
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_size_within_an_expression(seed: int) -> None:
    draw = random.Random(seed)
    factor, rest, size = draw.randint(1, 9), draw.randint(0, 9), draw.randint(1, 50)
    ports = ports_of(declared(f"{factor} * T + {rest}", "2 * T"))
    shapes = {"a": (4, 3, factor * size + rest), "b": (4, 3, 2 * size)}
    assert bind_shapes(ports, shapes) == {"N": 4, "T": size}
    model = declared(f"{factor} * T + {rest}", "2 * T")
    assert bind(model, {"a": shapes["a"]}) == {"N": 4, "T": size}
    with pytest.raises(InputError, match="expected"):
        bind_shapes(ports, {**shapes, "b": (4, 3, 2 * size + 2)})


@pytest.mark.parametrize(("extent", "given"), [("4 * T", 9), ("4 * T + 1", 1)])
def test_no_size_makes_it(extent: str, given: int) -> None:
    with pytest.raises(InputError, match="no T makes"):
        bind(declared(extent, extent), {"a": (1, 3, given)})


@pytest.mark.parametrize("extent", ["T * U", "T * T", "T // 2"])
def test_what_several_sizes_make_is_said_by_name(extent: str) -> None:
    with pytest.raises(InputError, match="do not determine"):
        bind(declared(extent, extent), {"a": (1, 3, 4)})


@pytest.mark.parametrize("sizes", [(3,), (3, 4, 5, 6)])
def test_as_many_sizes_as_the_input_has(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"help: without the batch 3xT"):
        bind(declared("T"), {"a": sizes})
