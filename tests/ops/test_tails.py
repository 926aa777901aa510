"""Activations far from zero and close to it, where plain formulas cancel, overflow or vanish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder
from truths import exact_erfc, flushed

from convdsl.tensor import DType

Array = np.ndarray[Any, Any]
F32, F64 = DType.F32, DType.F64
ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805


def _softplus(x: Array) -> Array:
    return np.logaddexp(np.longdouble(0), x)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


TRUTHS: dict[str, Callable[[Array], Array]] = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: np.where(x > 0, x, np.expm1(x) * ALPHA) * SCALE,
    "celu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "softplus": _softplus,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanh": np.tanh,
    "gelu": lambda x: x / 2 * exact_erfc(-x * np.sqrt(np.longdouble(0.5))),
}


def arguments(dtype: DType) -> Array:
    info = np.finfo(dtype.numpy)
    reach = -float(np.log(info.tiny)) * 0.98
    random = np.random.default_rng(9)
    sizes = 10.0 ** random.uniform(-30, 1.3, 500)
    named = [20.0, 1e-7, 6.0, 10.0, reach, reach / 2, 1e30]
    parts = [sizes, random.uniform(0, 20, 300), random.uniform(0, reach, 200), named]
    x = np.concatenate(parts)
    return np.concatenate([x, -x]).astype(dtype.numpy)


@pytest.mark.dear
@pytest.mark.parametrize("runner", [machine_code, interpreted])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", TRUTHS)
def test_activations_are_exact_at_both_ends(name: str, dtype: DType, runner: Any) -> None:
    """A few units in the last place."""
    x = arguments(dtype)
    b = Builder()
    graph = b.output(y=b(name, b.input("x", x.size, dtype=dtype)))
    found = run_graph(graph, {"x": x}, runner)["y"]
    with np.errstate(all="ignore"):
        exact = TRUTHS[name](x.astype(np.longdouble))
    info = np.finfo(dtype.numpy)
    wide = np.abs(x.astype(np.float64))
    bound = 8 * info.eps
    # A product with a number too small to be kept is lost before it is too small itself.
    lost = info.tiny * np.maximum(wide, 1) * 4
    error = np.abs(flushed(found).astype(np.longdouble) - exact)
    excess = error - bound * np.abs(exact) - lost
    worst = int(excess.argmax())
    assert excess[worst] <= 0, f"{name}({x[worst]}) = {found[worst]}"


def test_what_used_to_vanish() -> None:
    b = Builder()
    x = b.input("x", 3)
    graph = b.output(softplus=b("softplus", x), elu=b("elu", x), gelu=b("gelu", x))
    given = np.array([-20.0, -1e-7, -6.0], np.float32)
    found = run_graph(graph, {"x": given}, machine_code)
    assert found["softplus"][0] == pytest.approx(2.0611537e-9, rel=1e-6)
    assert found["elu"][1] == pytest.approx(-1e-7, rel=1e-6)
    assert found["gelu"][2] == pytest.approx(-5.9195872e-9, rel=1e-5)
