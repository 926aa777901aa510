"""The zoo lists what examples/ holds, and all of it loads."""

from __future__ import annotations

import pytest

from convdsl import zoo
from convdsl.elaborate import load_file


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_loads(name: str) -> None:
    entry = zoo.names()[name]
    model = load_file(entry.path, model=entry.model, zoo=zoo.folder())
    assert model.name == name
    assert model.outputs
    assert entry.title
    assert "\n" not in entry.title


def test_names_are_those_of_the_files() -> None:
    assert {"lenet5", "resnet18", "resnet34", "resnet50", "efficientnet_lite0"} <= set(zoo.names())


def test_find() -> None:
    entry = zoo.find("resnet50")
    assert entry is not None
    assert entry.path.name == "resnet.cnn"
    assert entry.model == "resnet50"
    assert entry.parameters == ("classes = 1000", "resolution = 224")
    assert zoo.find("resnet51") is None
