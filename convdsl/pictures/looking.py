"""A network on an image: the input that a photo becomes, and values inside of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from convdsl import driver
from convdsl.autodiff import pulled_back
from convdsl.bound import images_of
from convdsl.diagnostics import InputError
from convdsl.drawing.colours import Pixels
from convdsl.ir.graph import Value
from convdsl.ir.model import Model
from convdsl.ir.preprocess import Preprocessing, changed
from convdsl.sizes import bind
from convdsl.spelling import nearest

Array = NDArray[Any]


@dataclass(frozen=True)
class Sight:
    """A network whose sizes are those of one image, and the image: as input and as pixels."""

    model: Model
    input: str
    array: Array  # [1, C, H, W]
    photo: Pixels  # [H, W, 3]

    def value(self, name: str) -> Value:
        """A value by its name, or the last one of a block. Raises InputError."""
        nodes = self.model.graph.op_nodes()
        exact = [value for node in nodes for value in node.outputs if value.name == name]
        inside = [node.outputs[0] for node in nodes if node.name.startswith(f"{name}.")]
        if exact or inside:
            return (exact or inside)[-1]
        known = [node.name for node in nodes]
        near = nearest(name, known)
        said = f"did you mean {near}?" if near else f"the last is {known[-1]}" if known else ""
        raise InputError(f"{self.model.name} has no layer {name}\nhelp: {said}")

    def shown(self, names: Sequence[str], weights: Any) -> dict[str, Array]:
        """Values by name, computed."""
        graph = self.model.graph.copy()
        values = {v.name: v for node in graph.op_nodes() for v in node.outputs}
        graph.outputs, graph.updates = {name: values[name] for name in names}, {}
        looking = replace(self.model, graph=graph, reread=None, declares={}, training=None)
        return driver.compile(looking, weights).by_name(**{self.input: self.array})

    def sensitivity(self, of: Value, wrt: Sequence[str], weights: Any) -> Sensitivity:
        """How `of` depends on others; see autodiff.pulled_back."""
        made = pulled_back(self.model, of.name, wrt)
        (weighing,) = (name for name in made.inputs if name not in self.model.inputs)
        run = driver.compile(made, weights)
        return Sensitivity(run.by_name, {self.input: self.array}, weighing, of)


@dataclass(frozen=True)
class Sensitivity:
    """Gradients of one value, weighed as one likes."""

    run: Any
    arrays: Mapping[str, Array]
    weighing: str
    of: Value

    def __call__(self, weights: Array) -> dict[str, Array]:
        """Outputs of the pulled back model where the elements of the value count so much."""
        return self.run(**self.arrays, **{self.weighing: weights.astype(self.of.type.dtype.numpy)})

    @property
    def zeros(self) -> Array:
        """Weights of nothing, to be filled in."""
        return np.zeros([int(extent) for extent in self.of.type.shape], np.float32)  # pyright: ignore[reportArgumentType]


def sight(model: Model, data: Any, weights: Any = None) -> Sight:
    """A network and what it sees: an image file, a .npy file, `random:SEED`, an array, or a Pillow
    image. An array of [C, H, W] is a batch of one. Raises InputError."""
    name = _image_input(model)
    array, declared = _array(model, name, data, weights)
    binding = bind(model, {name: array.shape})
    settled = model.settled(binding)
    others = {symbol.name: 1 for symbol in settled.symbols if symbol.name not in binding}
    bound = replace(settled, graph=settled.graph.bind({**others, **binding}))
    return Sight(bound, name, array, photo(array, declared))


def _image_input(model: Model) -> str:
    images = [n for n, t in model.inputs.items() if t.rank == 4 and t.dtype.is_float]
    if len(model.inputs) != 1 or not images:
        said = ", ".join(f"{n}: {t}" for n, t in model.inputs.items())
        raise InputError(f"pictures over an image need a network of one image; its inputs: {said}")
    return images[0]


def _array(model: Model, name: str, data: Any, weights: Any) -> tuple[Array, Preprocessing | None]:
    type = model.inputs[name]
    if isinstance(data, np.ndarray):
        return _batched(cast("Array", data), type.dtype.numpy), None
    if isinstance(data, str) and data.startswith("random:"):
        shape = [1 if not isinstance(extent, int) else extent for extent in type.shape]
        if any(not isinstance(extent, int) for extent in type.shape[1:]):
            raise InputError(f"{name} is {type}: random pictures need known sizes; give an image")
        seed = data.removeprefix("random:")
        if not (seed.isascii() and seed.isdigit()):
            raise InputError(f"{data}: the seed must be a whole number\nhelp: write random:0")
        drawn = np.random.default_rng(int(seed)).standard_normal(shape)
        return drawn.astype(type.dtype.numpy), None
    if isinstance(data, str | Path) and Path(data).suffix == ".npy":
        from convdsl.weights.npz_file import read_npy

        return _batched(read_npy(Path(data)), type.dtype.numpy), None
    from convdsl.preprocessing import prepare

    declared, _ = images_of(model, weights)
    if declared is None:
        raise InputError(
            f"{model.name} does not declare how images become inputs (preprocess)\n"
            "help: say it in the model, or give the input itself as a .npy file"
        )
    return prepare(data, declared, type), declared


def _batched(array: Array, dtype: Any) -> Array:
    whole = array[None] if array.ndim == 3 else array
    if whole.ndim != 4 or whole.shape[0] != 1:
        raise InputError(f"an image is an array [C, H, W] or [1, C, H, W], not {array.shape}")
    return np.ascontiguousarray(whole, dtype)


def photo(array: Array, declared: Preprocessing | None) -> Pixels:
    """An input as people see it: its arithmetic undone; without any, from its least to its greatest
    number. Of other than 1 or 3 channels their mean is shown."""
    image = array[0].astype(np.float64).transpose(1, 2, 0)
    channels = image.shape[2]
    if declared is not None:
        ends = np.stack([np.zeros(channels), np.full(channels, 255.0)])[:, None]
        black, white = changed(ends, declared.arithmetic)[:, 0]
        image = (image - black) / (white - black) * 255
    else:
        low, high = image.min(), image.max()
        image = (image - low) / (high - low or 1.0) * 255
    if channels not in (1, 3):
        image = image.mean(axis=2, keepdims=True)
    grey = np.nan_to_num(image, nan=128.0).clip(0, 255).round().astype(np.uint8)
    return grey if channels == 3 else grey.repeat(3, axis=2)
