"""Networks written from docs/language.md alone, the zoo unseen: what `check` said of each at first.

Most were right, and stay so; `upscale` called `pixel_shuffle` as ONNX does, which is answered with
the name since; `flow` sliced up to sizes that were open, and `vq` took a mean without axes, which
mean what was meant since, as `messages` and `second_video`, which compare tensors, `diffusion`,
whose names have dots, and `hyper`, which reads an output; `cells` went over a list in a chain;
`detector` read a list by its output's name, `rgbd` and `locating` wrote a part of a list and a list
for a bias, which have a meaning since; `vnet` gave shares to a loss that takes logits, and was told
so, as `rates`, which said a condition where its size came second, and `deep`, whose metrics named
outputs; `sagan` let a bias start from `ones` and `pairs` began a line with `+`, which mean what was
meant since. What they compute was asked of their parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import convdsl
from convdsl.cli import main

PLACE = Path(__file__).with_name("newcomers")

PARAMETERS: Mapping[str, int] = {
    # a step's input has 3 channels and 16 of the state; the first frame alone goes through `first`
    "gru": 3 * (16 * 19 * 9 + 16) + (16 * 3 * 9 + 16) + (16 * 5 + 5),
    # one tower for all levels: four layers, and the fifth of 180 or 36 channels
    "head": 2 * 4 * (64 * 64 * 9 + 64) + 64 * 9 * (180 + 36) + 180 + 36,
    # in 1-D: two gated filters of 2 taps and two of 1 in each of 8 layers
    "wavenet": (32 + 32)
    + 8 * (2 * (32 * 32 * 2 + 32) + 2 * (32 * 32 + 32))
    + (32 * 32 + 32)
    + (32 * 256 + 256),
    # two stems of 16, a gate; the same of 32 from 16; 64, dilated, and 12 classes
    # patches, codes, a token; six times two norms, four products; a norm and the classes
    "masked_vit": (3 * 64 * 192 + 192) + 64 * 192 + 192
    + 6 * (4 * 192 + 3 * 192 * 192 + (192 * 192 + 192) + 2 * 4 * 192 * 192 + 5 * 192)
    + 2 * 192 + (192 * 100 + 100),
    # a bank, a norm, an entrance; twelve units of two filters of 3 and two of 1; what mixes, scores
    "keywords": 40 * 401 + 80 + 40 * 48
    + 12 * (2 * 48 * 48 * 3 + 2 * (48 * 48 + 48)) + (48 * 96 + 96) + 96 + 96 + (192 * 35 + 35),
    # a stem, three units of which two go to half the size, an exponent, a projection; who there is
    "pairs": 27 * 32 + 64 + 18 * 32 * 32 + 4 * 32
    + (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64 + 6 * 64)
    + (9 * 64 * 128 + 9 * 128 * 128 + 64 * 128 + 6 * 128)
    + 1 + 128 * 128 + 100 * 128 + 2,
    # three groups of four blocks with a gate each, enlarged twice
    "rcan": (27 * 32 + 32)
    + 3 * (4 * (2 * (32 * 32 * 9 + 32) + (32 * 4 + 4) + (4 * 32 + 32)) + 32 * 32 * 9 + 32)
    + (32 * 32 * 9 + 32) + 2 * (32 * 128 * 9 + 128) + (32 * 3 * 9 + 3),
    "fusion": (27 + 9) * 16 + 64 + (32 * 16 + 16) + 2 * (16 * 9 * 32 + 64) + (64 * 32 + 32)
    + (32 * 9 * 64 + 128) + (64 * 9 * 64 + 64) + (64 * 12 + 12),
}  # fmt: skip


@pytest.mark.dear
@pytest.mark.parametrize("path", sorted(PLACE.glob("*.cnn")), ids=lambda path: path.stem)
def test_right_at_first(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert main(["fmt", "--check", str(path)]) == 0
    if path.stem in PARAMETERS:
        assert convdsl.report(convdsl.load(path)).totals["params"] == PARAMETERS[path.stem]


def test_none_is_lost() -> None:
    assert len(list(PLACE.glob("*.cnn"))) == 85
