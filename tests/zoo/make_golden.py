"""Record what torchvision's models are and compute: tests/golden/zoo/.

Run once, in an environment of its own, and keep the result:

    python3 -m venv golden && golden/bin/pip install torch==2.14.1 torchvision==0.29.1
    golden/bin/python tests/zoo/make_golden.py [NAME ...]

states.json holds every model's keys and shapes (num_batches_tracked aside) and torchvision's own
figures, of one network of a family; NAME.npz the outputs, computed in double precision, for
deterministic weights and one image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deterministic import image, sampled, weight
from torchvision import models

GOLDEN = Path(__file__).parents[1] / "golden" / "zoo"

CLASSIFIERS = (
    "alexnet",
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    "googlenet",
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    "mobilenet_v2",
    *(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
    *("squeezenet1_0", "squeezenet1_1"),
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    *("mobilenet_v3_large", "mobilenet_v3_small"),
    *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
    *("vit_b_32", "vit_b_16"),
)
SCALED = {"inception_v3": 299, "efficientnet_b0": 224} | {
    f"efficientnet_b{step}": 128  # of up to 600: in double precision that takes minutes
    for step in range(1, 8)
}
SEGMENTERS = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101")
SIZES = (
    dict.fromkeys(CLASSIFIERS, (224, 224))
    | {name: (size, size) for name, size in SCALED.items()}
    | dict.fromkeys(SEGMENTERS, (65, 97))
)
WITHOUT_STATES = (
    *(f"densenet{depth}" for depth in (161, 169, 201)),
    *(f"efficientnet_b{step}" for step in range(1, 8)),
    *(f"convnext_{size}" for size in ("small", "base", "large")),
    "vit_b_16",
)
"""As those of the family's first, by the hundred; weights follow from keys, so that outputs tell
whether keys agree."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{name}_{what}": (name, options)
    for name in ("googlenet", "inception_v3")
    for what, options in (
        ("transform_input", {"transform_input": True}),
        ("auxiliary", {"aux_logits": True}),
    )
}
"""Outputs of the same networks otherwise made, under names of their own."""


def make(name: str, **options: Any) -> torch.nn.Module:
    """torchvision's model with deterministic weights, in double precision."""
    if name == "googlenet":
        options = {"aux_logits": False, "init_weights": False} | options
    elif name == "inception_v3":
        options = {"init_weights": False} | options
    elif name in SEGMENTERS:
        options |= {"weights_backbone": None, "aux_loss": True}
    network = models.get_model(name, weights=None, **options)
    state = network.state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(weight(key, tuple(value.shape))))
    return network.double().eval()


def outputs(name: str, network: torch.nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    x = torch.from_numpy(image(1, 3, *SIZES[name])).double()
    with torch.inference_mode():
        made, mirrored = named(network(x)), named(network(x.flip(3)))
    for output, value in made.items():
        spread = float(value.max() - value.min())
        moved = float((value - mirrored[output]).abs().max()) / spread
        print(f"{name} {output}: range {spread:.3g}, another image moves it by {moved:.2g} of it")
    return {key: sampled(value.numpy()).astype(np.float32) for key, value in made.items()}


def named(y: Any) -> dict[str, torch.Tensor]:
    """Outputs by name: torchvision's `aux_logits1` is `aux1`."""
    if isinstance(y, dict):
        return y
    if isinstance(y, torch.Tensor):
        return {"logits": y}
    return {key.replace("_logits", ""): value for key, value in y._asdict().items()}


def facts(name: str, network: torch.nn.Module) -> dict[str, Any]:
    meta = models.get_model_weights(name).DEFAULT.meta
    figures = {"params": meta["num_params"], "gmacs": meta["_ops"]}
    if name in WITHOUT_STATES:
        return figures
    states = {
        key: list(value.shape)
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    return {**figures, "states": states}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--states", action="store_true", help="no outputs")
    arguments = parser.parse_args()
    GOLDEN.mkdir(parents=True, exist_ok=True)
    path = GOLDEN / "states.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.names or (*SIZES, *VARIANTS):
        base, options = VARIANTS.get(name, (name, {}))
        network = make(base, **options)
        network.training = name.endswith("_auxiliary")  # of the heads, not of the layers
        if name in SIZES:
            known[name] = facts(name, network)
        if not arguments.states:
            np.savez_compressed(GOLDEN / f"{name}.npz", **outputs(base, network))
    lines = (f"{json.dumps(name)}: {json.dumps(known[name])}" for name in SIZES if name in known)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
