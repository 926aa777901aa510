"""What `convdsl run --tile` does."""

from __future__ import annotations

import argparse
import tempfile
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convdsl.cli import arrays, console
from convdsl.cli.building import compiled, load_model
from convdsl.cli.files import plain_path
from convdsl.cli.options import batch_of, input_shapes, parameters
from convdsl.diagnostics import InputError, WeightError

if TYPE_CHECKING:
    from convdsl.ir.model import Model
    from convdsl.runtime.executable import Executable
    from convdsl.tensor import TensorType

MOST_IN_MEMORY = 1 << 30
"""Bytes of a result; a larger one is kept in a file beside its destination until it is whole."""


def run(options: argparse.Namespace) -> tuple[dict[str, NDArray[Any]], dict[str, TensorType]]:
    """The results for the image in --data, from tiles, and the types of the outputs."""
    from convdsl import loading
    from convdsl.runtime.saved import is_artifact
    from convdsl.tiling.network import TiledNetwork

    if is_artifact(options.model):
        raise InputError(f"{options.model} is compiled for its sizes: --tile takes a model's text")
    model = load_model(options)
    image = _image(options, model)

    def load(**sizes: int) -> Model:
        return loading.load(options.model, **{**parameters(options), **sizes})

    def make(found: Model) -> Executable:
        return compiled(found, _without_sizes(options)).executable

    network = TiledNetwork(model, make, options.tile, load)
    if image.ndim == 4:
        plan = network.plan(*image.shape[2:])
        height, width = plan.tile
        console.note(f"{plan.count} tiles of {height}x{width}")

    def allocate(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        if options.output and prod(shape) * dtype.itemsize > MOST_IN_MEMORY:
            with tempfile.TemporaryFile(dir=plain_path(options.output).parent) as file:
                return np.memmap(file, dtype, "w+", 0, shape)  # which outlives the name
        return np.empty(shape, dtype)

    return network.run(image, allocate), model.outputs


def _without_sizes(options: argparse.Namespace) -> argparse.Namespace:
    """The options for a network whose tiles say the sizes."""
    return argparse.Namespace(**{**vars(options), "input": [], "batch": None})


def _image(options: argparse.Namespace, model: Model) -> NDArray[Any]:
    """The only array in --data; an .npy file is mapped, so that it may be larger than memory."""
    from convdsl.sizes import bind
    from convdsl.weights.npz_file import is_npy, map_npy

    if options.data.startswith(arrays.RANDOM):
        binding = bind(model, input_shapes(options), batch_of(model, options))
        made = compiled(model, _without_sizes(options))._replace(binding=dict(binding))
        return next(iter(arrays.load(options.data, made).values()))
    path = plain_path(options.data)
    try:
        if is_npy(path):
            return map_npy(Path(path))
    except WeightError as error:
        raise InputError(str(error)) from None
    given = arrays.read(path)
    if len(given) != 1:
        raise InputError(f"{path} holds {len(given)} arrays; --tile takes one image")
    return next(iter(given.values()))
