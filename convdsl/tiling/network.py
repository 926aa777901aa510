"""A network for images of any size, run tile by tile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.calling import suggests
from convdsl.diagnostics import InputError, expect
from convdsl.driver import compile, load
from convdsl.ir.model import Model
from convdsl.kernel.signature import whole
from convdsl.runtime.executable import Executable
from convdsl.tiling.inference import Allocate, in_memory, run_tiles
from convdsl.tiling.plan import Tiling, tiling
from convdsl.tiling.sizes import sized

Array: TypeAlias = "npt.NDArray[Any]"

_KEPT = 8  # plans, for the image sizes that came last


class TiledNetwork:
    """Callable on images [N, C, H, W] of any size: what the network gives for the whole image, from
    tiles of at most `tile` pixels a side.

    make: the network as machine code, at the size of a tile. load: the network for other
    parameters, where they fix its size. Raises InputError for what tiles cannot give.
    """

    def __init__(
        self,
        model: Model,
        make: Callable[[Model], Executable],
        tile: int,
        load: Callable[..., Model] | None = None,
    ) -> None:
        if whole("the tile", tile) < 1:
            raise InputError(f"a tile of {tile}: it has at least one pixel a side")
        self._network = sized(model, load)
        self._make, self._tile, self._name = make, tile, model.name
        self._plans: OrderedDict[tuple[int, int], Tiling] = OrderedDict()
        self._made: dict[int, Executable] = {}

    def plan(self, height: int, width: int) -> Tiling:
        """The tiles of an image of this size."""
        size = height, width
        if size not in self._plans:
            self._plans[size] = tiling(self._network, size, self._tile)
            if len(self._plans) > _KEPT:
                self._plans.popitem(last=False)
        return self._plans[size]

    def run(self, image: Array, allocate: Allocate = in_memory) -> dict[str, Array]:
        """The results by name; `allocate` makes the arrays that they come in."""
        expect("the image", image, np.ndarray)
        if image.ndim != 4 or 0 in image.shape:
            raise InputError(f"{self._name} takes images [N, C, H, W], not {list(image.shape)}")
        plan = self.plan(*image.shape[2:])
        model = self._network.model(*plan.tile)
        if id(model) not in self._made:
            self._made[id(model)] = self._make(model)
        executable = self._made[id(model)]
        (first, *others) = executable.outputs

        def run(part: Array) -> Mapping[str, Array]:
            return executable(part) if others else {first: executable(part)}

        return run_tiles(plan, image, run, allocate)

    def __call__(self, image: Array) -> Any:
        """One result as an array, several as a dict by name."""
        results = self.run(image)
        return next(iter(results.values())) if len(results) == 1 else results


@suggests
def tiled(
    model: Model | str | Path,
    weights: Any = None,
    *,
    tile: int = 512,
    target: str = "cpu",
    threads: int | None = None,
    cpu: str = "native",
    winograd: bool = True,
    **parameters: Any,
) -> TiledNetwork:
    """A network for images larger than memory: on overlapping tiles, with the result of one run.

    The sizes of its image are open (H, W), or the model's parameters height and width. Weights,
    target, threads, cpu and winograd as for `compile`; parameters as for `load`.
    Raises convdsl.Error.
    """
    again = None
    if not isinstance(model, Model):
        again = partial(load, model, **parameters)
        model = again()
    how: dict[str, Any] = {"target": target, "threads": threads, "cpu": cpu, "winograd": winograd}
    return TiledNetwork(model, lambda found: compile(found, weights, **how), tile, again)
