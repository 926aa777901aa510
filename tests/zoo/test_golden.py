"""Logits of torchvision's models, recorded once by make_golden.py in double precision.

Weights and image are made anew from names and shapes (deterministic.py). The largest error is
at most 1e-4 of the range of the outputs, with all passes and with none. Classifiers run at
their own resolution (EfficientNet-B1 and larger ones at 128 x 128), segmenters at 65 x 97. One of
each family runs in `make test`; VGG, GoogLeNet, the deeper ones of a family, other widths,
DeepLabV3 and FCN on ResNet-101 in `make test-slow`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.passes import PASSES
from zoo.deterministic import image, sampled, weights

pytestmark = pytest.mark.drawn

GOLDEN = Path(__file__).parents[1] / "golden" / "zoo"
TOLERANCE = 1e-4
SEGMENTER = {"height": 65, "width": 97}

QUICK = {
    "alexnet": {},
    "mobilenet_v2": {},
    "resnet18": {},
    "shufflenet_v2_x1_0": {},
    "squeezenet1_1": {},
    "fcn_resnet50": SEGMENTER,
    "densenet121": {},
    "inception_v3_auxiliary": {"auxiliary": True},
    "mobilenet_v3_large": {},
    "efficientnet_b0": {},
    "convnext_tiny": {},
    "vit_b_32": {},
}
SLOW = {
    "googlenet": {},
    "googlenet_transform_input": {"transform_input": True},
    "googlenet_auxiliary": {"auxiliary": True},
    "inception_v3": {},
    "inception_v3_transform_input": {"transform_input": True},
    **{f"densenet{depth}": {} for depth in (161, 169, 201)},
    "mobilenet_v3_small": {},
    **{f"efficientnet_b{step}": {"resolution": 128} for step in range(1, 8)},
    **{f"convnext_{size}": {} for size in ("small", "base", "large")},
    "vit_b_16": {},
    "resnext50_32x4d": {},
    "deeplabv3_resnet50": SEGMENTER,
    **{f"vgg{depth}{norm}": {} for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
    **{f"resnet{depth}": {} for depth in (34, 50, 101, 152)},
    **{f"resnext101_{kind}": {} for kind in ("32x8d", "64x4d")},
    **{f"shufflenet_v2_x{width}": {} for width in ("0_5", "1_5", "2_0")},
    "squeezenet1_0": {},
    "fcn_resnet101": SEGMENTER,
    "deeplabv3_resnet101": SEGMENTER,
}
CASES = [
    *(pytest.param(name, options, id=name) for name, options in QUICK.items()),
    *(pytest.param(n, o, id=n, marks=pytest.mark.slow) for n, o in SLOW.items()),
]


@lru_cache(maxsize=1)
def _loaded(name: str, **options: Any) -> tuple[convdsl.Model, dict[str, Any], np.ndarray]:
    base = name.removesuffix("_transform_input").removesuffix("_auxiliary")
    model = convdsl.load(base, **options)
    states = {key: tuple(s.type.shape) for key, s in model.graph.states.items() if s.data is None}
    return model, weights(states), image(1, *model.inputs["image"].shape[1:])


@pytest.mark.dear
@pytest.mark.parametrize("passes", [PASSES, ()], ids=["passes", "no-passes"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_outputs_are_torchvisions(name: str, options: dict[str, Any], passes: Any) -> None:
    model, arrays, x = _loaded(name, **options)
    made = convdsl.compile(model, arrays, passes=passes)(x)
    outputs = made if isinstance(made, dict) else {"logits": made}
    with np.load(GOLDEN / f"{name}.npz") as recorded:
        assert set(outputs) == set(recorded)
        for output, expected in recorded.items():
            found = sampled(outputs[output])
            worst = np.abs(found - expected).max() / (expected.max() - expected.min())
            assert worst <= TOLERANCE, output
