"""Cases of deformable convolution, and what torchvision makes of them.

tests/golden/deform_conv.npz is made once, in the environment of tests/zoo/make_golden.py, and kept:

    PYTHONPATH=tests golden/bin/python tests/gallery/deformed.py

Operands are made anew from their names (zoo.deterministic); recorded are the outputs and the
gradients of their sums of products with seeded numbers, computed in double precision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zoo.deterministic import uniform

GOLDEN = Path(__file__).parents[1] / "golden" / "deform_conv.npz"

CASES: dict[str, dict[str, Any]] = {
    "plain": {"channels": 3, "made": 4, "space": (5, 6)},
    "modulated": {"channels": 4, "made": 2, "space": (6, 5), "parts": 2, "modulated": True},
    "grouped": {"channels": 4, "made": 6, "space": (7, 7), "groups": 2, "stride": 2, "reach": 4.0},
    "dilated": {"channels": 2, "made": 3, "space": (8, 5), "dilation": 2, "pad": 2, "reach": 9.0},
}
KERNEL = 3
USUAL = {
    "parts": 1, "groups": 1, "stride": 1, "dilation": 1, "pad": 1, "reach": 1.5, "modulated": False,
}  # fmt: skip


def settings(name: str) -> dict[str, Any]:
    return USUAL | CASES[name]


def operands(name: str) -> dict[str, NDArray[np.float32]]:
    """x, offset, mask where there is one, weight, bias, and what the output is multiplied with."""
    case = settings(name)
    taps, made = case["parts"] * KERNEL**2, case["made"]
    reach = case["dilation"] * (KERNEL - 1)
    around = 2 * case["pad"] - reach - 1
    places = [(extent + around) // case["stride"] + 1 for extent in case["space"]]
    shapes = {
        "x": (2, case["channels"], *case["space"]),
        "offset": (2, 2 * taps, *places),
        **({"mask": (2, taps, *places)} if case["modulated"] else {}),
        "weight": (made, case["channels"] // case["groups"], KERNEL, KERNEL),
        "bias": (made,),
        "dy": (2, made, *places),
    }
    most = {"offset": case["reach"]}
    return {
        key: uniform(f"{name}.{key}", shape, -most.get(key, 1.0), most.get(key, 1.0))
        for key, shape in shapes.items()
    }


def main() -> None:
    import torch
    from torchvision.ops import deform_conv2d

    found: dict[str, NDArray[Any]] = {}
    for name in CASES:
        case = settings(name)
        given = {k: torch.from_numpy(a).double() for k, a in operands(name).items()}
        dy = given.pop("dy")
        for tensor in given.values():
            tensor.requires_grad_(True)
        how = {"stride": case["stride"], "padding": case["pad"], "dilation": case["dilation"]}
        order = [given[key] for key in ("x", "offset", "weight", "bias")]
        y = deform_conv2d(*order, **how, mask=given.get("mask"))
        y.backward(dy)
        found[f"{name}.y"] = y.detach().numpy()
        found |= {f"{name}.d{key}": tensor.grad.numpy() for key, tensor in given.items()}
    np.savez_compressed(GOLDEN, **{key: array.astype("f4") for key, array in found.items()})


if __name__ == "__main__":
    main()
