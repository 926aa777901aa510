"""The zoo lists what examples/ holds, and all of it loads."""

from __future__ import annotations

import re

import pytest

from convdsl import zoo
from convdsl.elaborate import load_file


@pytest.mark.drawn(share=3)
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


def test_names_are_given_once() -> None:
    texts = [path.read_text() for path in zoo.files()]
    assert len(zoo.names()) == sum(
        len(re.findall(r"^model ", text, re.MULTILINE)) for text in texts
    )


@pytest.mark.parametrize(
    ("name", "title", "paper"),
    [
        ("unet", "U-Net", "Ronneberger, Fischer, Brox 2015, arXiv:1505.04597"),
        ("lenet5", "LeNet-5", "LeCun et al. 1998"),
        ("alexnet2012", "AlexNet", "Krizhevsky, Sutskever, Hinton 2012"),
        ("resnet34", "ResNet-34", "He et al. 2015, arXiv:1512.03385"),  # of the whole file
        ("se_resnet50", "SE-ResNet-50", "Hu et al. 2017, arXiv:1709.01507"),  # over two lines
        ("non_local", "Non-local block", "Wang et al. 2018, arXiv:1711.07971"),
        ("mnist_cnn", "The small network for MNIST that tutorials begin with", None),
    ],
)
def test_what_files_say_of_themselves(name: str, title: str, paper: str | None) -> None:
    entry = zoo.names()[name]
    assert (entry.title, entry.paper) == (title, paper)


def test_papers_are_named() -> None:
    assert [name for name, entry in zoo.names().items() if entry.paper is None] == ["mnist_cnn"]


def test_find() -> None:
    entry = zoo.find("resnet50")
    assert entry is not None
    assert entry.path.name == "resnet.cnn"
    assert entry.model == "resnet50"
    assert entry.parameters == ("classes = 1000", "resolution = 224")
    assert zoo.find("resnet51") is None
