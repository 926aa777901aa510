"""A network at any size of its image: by the free sizes of its input, or by its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from convdsl.diagnostics import InputError
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.tensor import Symbol, SymDim

PARAMETERS = ("height", "width")
"""What the sizes of an image are called where a model's parameters fix them."""


@dataclass(frozen=True)
class Sized:
    """A network whose image `input` can have any size that it admits.

    model: the network for a size; one and the same where sizes are free.
    """

    input: str
    model: Callable[[int, int], Model]
    symbols: tuple[str, str] | None

    def graph(self, height: int, width: int) -> Graph:
        """The graph for a size and one sample, all extents known. Raises Error for a size that the
        network does not admit."""
        model = self.model(height, width)
        binding: dict[str, int] = {symbol.name: 1 for symbol in model.symbols}
        if self.symbols is not None:
            binding |= dict(zip(self.symbols, (height, width), strict=True))
            for symbol in model.symbols:
                _check(symbol, binding[symbol.name])
        return model.settled(binding).graph.bind(binding)


def sized(model: Model, load: Callable[..., Model] | None = None) -> Sized:
    """The network at any size. `load` gives it for other parameters. Raises InputError where its
    size is fixed."""
    if model.graph.updates:
        raise InputError(f"{model.name} changes its state with every call: tiles are many calls")
    images = [name for name, type in model.inputs.items() if type.rank == 4]
    if len(images) != 1:
        raise InputError(f"{model.name} has {len(images)} inputs that are images; tiles need one")
    (name,) = images
    height, width = model.inputs[name].shape[2:]
    free = [_symbol(extent) for extent in (height, width)]
    if free[0] and free[1] and free[0] != free[1]:
        return Sized(name, lambda height, width: model, (free[0], free[1]))
    if load is not None and all(parameter in model.parameters for parameter in PARAMETERS):
        made: dict[tuple[int, int], Model] = {}

        def at(height: int, width: int) -> Model:
            if (height, width) not in made:
                made[height, width] = load(height=height, width=width)
            return made[height, width]

        return Sized(name, at, None)
    raise InputError(
        f"{model.name} takes images of {height}x{width}, and tiles need a network of any size\n"
        "help: leave the sizes open (input image: f32[N, 3, H, W]), or make them parameters called "
        "height and width"
    )


def _symbol(extent: Any) -> str | None:
    """The name of a free size that stands by itself."""
    if not isinstance(extent, SymDim):
        return None
    ((monomial, coefficient), *others) = extent.terms
    atoms = [atom for atom, power in monomial if power == 1]
    plain = not others and coefficient == 1 and len(monomial) == len(atoms) == 1
    return atoms[0].name if plain and isinstance(atoms[0], Symbol) else None


def _check(symbol: Symbol, value: int) -> None:
    from convdsl.kernel.signature import check_symbol

    check_symbol(symbol, value)
