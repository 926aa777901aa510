"""What gradients are where there is more than one right answer: ours, and PyTorch's.

docs/gradients.md lists them; tests/test_kinks.py and tests/torch/test_kinks.py hold both to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Kink:
    """The gradient of `by` where operands are so, for a gradient of 1 of every output.

    theirs: PyTorch's words, of the same operands as tensors.
    found: what these give; as ours where None.
    """

    op: str
    at: str
    operands: Mapping[str, Any]
    ours: Any
    theirs: str
    found: Any = None
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def by(self) -> str:
        return next(iter(self.operands))

    @property
    def arrays(self) -> dict[str, Array]:
        return {name: np.array(value, np.float64) for name, value in self.operands.items()}

    def __str__(self) -> str:
        return f"{self.op} at {self.at}"


def one(op: str, at: float, ours: float, theirs: str, found: float | None = None) -> Kink:
    """A map at one number."""
    wanted = None if found is None else [found]
    return Kink(op, f"{at:g}", {"x": [at]}, [ours], theirs, wanted)


SELU = 1.0507009873554805 * 1.6732632423543772

KINKS = (
    one("relu", 0.0, 0.0, "functional.relu(x)"),
    one("relu6", 0.0, 0.0, "functional.relu6(x)"),
    one("relu6", 6.0, 0.0, "functional.relu6(x)"),
    one("leaky_relu", 0.0, 0.01, "functional.leaky_relu(x)"),
    one("elu", 0.0, 1.0, "functional.elu(x)"),
    one("selu", 0.0, SELU, "functional.selu(x)"),
    one("hard_tanh", 1.0, 0.0, "functional.hardtanh(x)"),
    one("hardsigmoid", 3.0, 0.0, "functional.hardsigmoid(x)"),
    one("hardswish", 3.0, 1.0, "functional.hardswish(x)"),
    one("hardswish", -3.0, 0.0, "functional.hardswish(x)"),
    Kink("clip", "a limit", {"x": [0.0]}, [0.0], "x.clamp(min=0)", [1.0], {"low": 0.0}),
    one("abs", 0.0, 0.0, "x.abs()"),
    one("sign", 0.0, 0.0, "x.sign()"),
    one("sqrt", 0.0, inf, "x.sqrt()"),
    Kink("max", "a = b, of a", {"a": [1.0], "b": [1.0]}, [0.0], "torch.maximum(a, b)", [0.5]),
    Kink("max", "a = b, of b", {"b": [1.0], "a": [1.0]}, [1.0], "torch.maximum(a, b)", [0.5]),
    Kink("pow", "0, of the exponent", {"b": [2.0], "a": [0.0]}, [0.0], "torch.pow(a, b)"),
    Kink("pow", "-2, of the exponent", {"b": [2.0], "a": [-2.0]}, [0.0], "torch.pow(a, b)", [nan]),
    Kink(
        "reduce_max",
        "1 2 2, equals",
        {"x": [1.0, 2.0, 2.0]},
        [0.0, 1.0, 0.0],
        "x.amax(0)",
        [0.0, 0.5, 0.5],
        {"axes": 0},
    ),
    Kink(
        "reduce_prod",
        "0 2 3",
        {"x": [0.0, 2.0, 3.0]},
        [6.0, 0.0, 0.0],
        "x.prod(0)",
        attributes={"axes": 0},
    ),
    Kink(
        "reduce_prod",
        "0 0 3",
        {"x": [0.0, 0.0, 3.0]},
        [0.0, 0.0, 0.0],
        "x.prod(0)",
        attributes={"axes": 0},
    ),
    Kink(
        "reduce_l2",
        "0 0",
        {"x": [0.0, 0.0]},
        [0.0, 0.0],
        "torch.linalg.vector_norm(x)",
        attributes={"axes": 0},
    ),
    Kink(
        "reduce_l1",
        "0 -2",
        {"x": [0.0, -2.0]},
        [0.0, -1.0],
        "torch.linalg.vector_norm(x, 1)",
        attributes={"axes": 0},
    ),
    Kink(
        "max_pool",
        "1 2 2, equals",
        {"x": [[[1.0, 2.0, 2.0]]]},
        [[[0.0, 1.0, 0.0]]],
        "functional.max_pool1d(x, 3)",
        attributes={"kernel": 3},
    ),
    Kink(
        "lp_pool",
        "0 0",
        {"x": [[[0.0, 0.0]]]},
        [[[0.0, 0.0]]],
        "functional.lp_pool1d(x, 2.0, 2)",
        attributes={"kernel": 2, "order": 2},
    ),
)
