"""What a network learns from: data sets, how they are cut, and ready batches of them.

    parts = open_parts("photos/", wanted=Wanted(model.inputs["image"]))
    train, validation = split(parts.train, 0.1, seed=0)
    prepare = preparation(model)
    loader = Loader(train, prepare, batch=64, augment=augmentation(model.training.augment, prepare))
    for batch in loader.epoch(0): ...

Everything here is NumPy on the host, and knows neither graphs nor machines.
"""

from convdsl.training.data.arrays import ArrayData, Wanted
from convdsl.training.data.augmentation import Augmentation, augmentation
from convdsl.training.data.loader import Loader
from convdsl.training.data.opening import open_data, open_parts
from convdsl.training.data.preparation import Preparation, preparation
from convdsl.training.data.sample import (
    DataSet,
    Parts,
    Sample,
    Subset,
    check_labels,
    label_doubts,
)
from convdsl.training.data.splits import balanced_weights, split

__all__ = [
    "ArrayData",
    "Augmentation",
    "DataSet",
    "Loader",
    "Parts",
    "Preparation",
    "Sample",
    "Subset",
    "Wanted",
    "augmentation",
    "balanced_weights",
    "check_labels",
    "label_doubts",
    "open_data",
    "open_parts",
    "preparation",
    "split",
]
