"""The `train` blocks of the zoo run as they are written, but for the epochs and the batch."""

from __future__ import annotations

import numpy as np
import pytest

import convdsl
from convdsl import zoo
from convdsl.training.data import preparation

pytestmark = pytest.mark.drawn

MODELS = tuple(n for n in zoo.names() if n in (
    "lenet5", "mnist_cnn", "resnet18_cifar", "mobilenet_v1_cifar", "unet_small",
))  # fmt: skip
SAMPLES = 6


def drawn(model: convdsl.Model) -> dict[str, np.ndarray]:
    """Images of the input's channels, and the targets that the losses name."""
    rng = np.random.default_rng(0)
    _, channels, *size = model.inputs[preparation(model).name].shape
    height, width = (s if isinstance(s, int) else 32 for s in size)
    data = {"x": rng.integers(0, 256, (SAMPLES, height, width, channels), dtype=np.uint8)}
    assert model.training is not None
    for term in model.training.loss:
        output, target = term.compares
        classes = int(model.outputs[output].shape[1])
        shape = (SAMPLES, height, width) if target == "mask" else (SAMPLES,)
        data[target] = rng.integers(0, classes, shape, dtype=np.uint8)
    return data


@pytest.mark.dear
def test_every_block_of_the_zoo_is_here() -> None:
    """But those of the gallery, which has steps of its own."""
    entries = zoo.names().items()
    names = [name for name, entry in entries if entry.path.parent.name != "gallery"]
    blocks = {name for name in names if convdsl.load(name).training is not None}
    assert blocks == set(MODELS)


@pytest.mark.dear
@pytest.mark.parametrize("name", MODELS)
def test_a_block_as_written(name: str) -> None:
    """A step or two: all its optimiser, schedule, losses, metrics and augmentation are there."""
    model = convdsl.load(name)
    trained = convdsl.train(model, drawn(model), epochs=1, batch=2, val_fraction=0.3, threads=1)
    (record,) = trained.history
    assert np.isfinite(record["train_loss"])
    assert np.isfinite(record["val_loss"])
