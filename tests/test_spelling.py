"""`did you mean`: slips are found, other words are left alone."""

from __future__ import annotations

import random
import re
import string

import pytest

import convdsl
from convdsl.elaborate import foreign
from convdsl.elaborate.builtins import BUILTINS
from convdsl.ops import SPELLINGS
from convdsl.spelling import nearest

LONG = sorted(name for name in SPELLINGS if len(name) >= 6)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("con", "conv"),
        ("BatchNorm2d", "batchnorm"),
        ("leakyrelu", "leaky_relu"),
        ("MaxPool2D", "maxpool"),
        ("sigmiod", "sigmoid"),
        ("GroupNorm", "groupnorm"),
        ("softmaxx", "softmax"),
        ("attention", None),
        ("lstm", None),
        ("embedding", None),
        ("swiglu", None),
        ("resnet", None),
        ("image", None),
        ("x", None),
        ("", None),
        ("_", None),
    ],
)
def test_operators(word: str, meant: str | None) -> None:
    assert nearest(word, SPELLINGS) == meant


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("name", LONG)
def test_one_slip_is_found(name: str) -> None:
    """Whatever the slip, what is proposed is at most as far away as the word itself was."""
    drawn = random.Random(name)
    for _ in range(4):
        at = drawn.randrange(len(name) - 1)
        letter = drawn.choice(string.ascii_lowercase)
        for word in (
            name[:at] + name[at + 1 :],
            name[:at] + letter + name[at:],
            name[:at] + letter + name[at + 1 :],
            name[:at] + name[at + 1] + name[at] + name[at + 2 :],
        ):
            if word not in SPELLINGS:
                found = nearest(word, SPELLINGS)
                assert found is not None
                assert abs(len(found.replace("_", "")) - len(word.replace("_", ""))) <= 2


def test_nothing_depends_on_the_order_or_is_slow() -> None:
    names = [f"layer{i}.conv" for i in range(2_000)]
    assert nearest("layer17.con", names) == nearest("layer17.con", reversed(names))
    assert nearest("y" * 100_000, ["y" * 100_001]) is None


def test_what_foreign_words_stand_for_exists() -> None:
    """The layers that help names can be written, those that it imports among them."""
    for text in foreign.NAMES.values():
        imports = {name: line for line, name in re.findall(r'`(use "zoo:.*?": (\w+))`', text)}
        for name in re.findall(r"([a-z_]+)\(", text):
            assert name in SPELLINGS or name in imports or name in BUILTINS, text
        for name, line in imports.items():
            use = f"{line}\nmodel m {{ input x: f32[N, 4, 8]\n x -> {name}(2) -> output y }}"
            assert convdsl.parse(use).graph.outputs["y"].type.shape[1:] == (4, 8)
