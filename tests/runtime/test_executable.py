"""What `compile` returns, as users meet it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_models import CALCULATOR, RESIDUAL, compiled, images

from convdsl import Executable, InputError


@pytest.fixture(scope="module")
def network() -> Executable:
    return compiled(RESIDUAL, threads=2)


@pytest.fixture(scope="module")
def calculator() -> Executable:
    return compiled(CALCULATOR, threads=1)


def pair(batch: int = 2) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    return tuple(random.standard_normal((batch, 4, 6)).astype("f4") for _ in range(2))


def test_what_it_says_of_itself(network: Executable, calculator: Executable) -> None:
    assert {k: str(t) for k, t in network.inputs.items()} == {"image": "f32[N, 3, H, W]"}
    assert {k: str(t) for k, t in network.outputs.items()} == {"logits": "f32[N, 5]"}
    assert list(calculator.inputs) == ["a", "b"]
    assert list(calculator.outputs) == ["total", "difference"]
    assert (network.name, network.threads) == ("residual", 2)
    assert network.preprocessing is None
    assert network.labels is None
    assert network.notes == ("weights are random:1",)


def test_one_output_is_an_array_several_a_dict(network: Executable, calculator: Executable) -> None:
    logits = network(images(3))
    assert isinstance(logits, np.ndarray)
    assert (logits.shape, logits.dtype) == ((3, 5), np.float32)
    a, b = pair()
    results = calculator(a, b)
    assert list(results) == ["total", "difference"]
    np.testing.assert_array_equal(results["total"], a + b)
    np.testing.assert_array_equal(results["difference"], a - b)


def test_by_position_by_name_and_both(calculator: Executable) -> None:
    a, b = pair()
    by_position = calculator(a, b)
    for results in (calculator(b=b, a=a), calculator(a, b=b)):
        np.testing.assert_array_equal(results["difference"], by_position["difference"])


def test_inputs_are_not_modified(network: Executable) -> None:
    x = images()
    before = x.copy()
    x.flags.writeable = False
    network(x)
    np.testing.assert_array_equal(x, before)


def test_outputs_belong_to_the_caller(network: Executable) -> None:
    x = images()
    first = network(x)
    kept = first.copy()
    second = network(images(seed=1))
    np.testing.assert_array_equal(first, kept)
    assert not np.shares_memory(first, second)
    assert first.flags.writeable
    first[:] = 0
    np.testing.assert_array_equal(network(x), kept)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=3)[..., ::2],
        lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        lambda x: x[:, :, ::-1][:, :, ::-1],
    ],
    ids=["fortran", "strided", "channels last", "reversed twice"],
)
def test_arrays_need_not_be_contiguous(network: Executable, view: Any) -> None:
    x = images(2)
    np.testing.assert_array_equal(view(x), x)
    np.testing.assert_array_equal(network(view(x)), network(x))


# What is refused

good = images()
BAD: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "nothing": ((), {}, "inputs not given: image"),
    "too many": ((good, good), {}, r"2 arrays for one input \(image\)"),
    "another name": ((), {"picture": good}, "no input `picture`; the inputs are image"),
    "twice": ((good,), {"image": good}, "input `image` is given twice"),
    "a list": ((good.tolist(),), {}, "input `image` is a list, not a NumPy array"),
    "doubles": (
        (good.astype("f8"),),
        {},
        r"input `image` is float64, the model takes float32: convert with .astype\('float32'\)",
    ),
    "integers": ((good.astype("i8"),), {}, "input `image` is int64"),
    "big endian": ((good.astype(">f4"),), {}, "input `image` is >f4, the model takes float32"),
    "another rank": (
        (good[0],),
        {},
        r"input `image` has shape \[3, 12, 12\], expected f32\[N, 3, H, W\]",
    ),
    "other channels": (
        (good[:, :2],),
        {},
        r"shape \[1, 2, 12, 12\], expected f32\[N, 3, H, W\] = \[1, 3, 12, 12\]",
    ),
    "an odd height": ((images(size=13),), {}, "H = 13, but H % 4 == 0"),
    "too narrow": ((good[..., :5],), {}, "W = 5, but it must be at least 6"),
    "no pictures": ((good[:0],), {}, "N = 0, but it must be at least 1"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused(network: Executable, what: str) -> None:
    arrays, named, message = BAD[what]
    with pytest.raises(InputError, match=message):
        network(*arrays, **named)


def test_sizes_must_agree_between_inputs(calculator: Executable) -> None:
    a, b = pair()
    with pytest.raises(InputError, match=r"input `b` has shape \[1, 4, 6\].* = \[2, 4, 6\]"):
        calculator(a, b[:1])
    with pytest.raises(InputError, match="inputs not given: b"):
        calculator(a)


# Specialisations


class Recorder:
    """Counts how often it specialises, and passes the first input on."""

    def __init__(self) -> None:
        self.made: list[dict[str, int]] = []

    results = ("y",)

    def __call__(self, binding: dict[str, int], values: Any) -> Recorder:
        assert not values
        self.made.append(binding)
        return self

    def run(self, inputs: Any, threads: int) -> Any:
        return [inputs[0]]


def recorded(network: Executable) -> tuple[Executable, Recorder]:
    recorder = Recorder()
    ports = network._inputs
    return Executable(network._facts, ports, ports, 1, recorder, lambda b, v, p: None), recorder


def test_symbols_bind_on_the_first_call_with_new_shapes(network: Executable) -> None:
    executable, recorder = recorded(network)
    for batch, size in ((1, 12), (1, 12), (2, 12), (1, 16), (1, 12)):
        executable(images(batch, size))
    assert recorder.made == [
        {"N": 1, "H": 12, "W": 12},
        {"N": 2, "H": 12, "W": 12},
        {"N": 1, "H": 16, "W": 16},
    ]


def test_the_least_recently_used_specialisation_goes(network: Executable) -> None:
    executable, recorder = recorded(network)
    for batch in (1, 2, 3, 4):
        executable(images(batch))
    executable(images(1))
    executable(images(5))  # drops 2, the one longest unused
    assert [b["N"] for b in recorder.made] == [1, 2, 3, 4, 5]
    for batch in (1, 3, 4, 5):
        executable(images(batch))
    assert [b["N"] for b in recorder.made] == [1, 2, 3, 4, 5]
    executable(images(2))
    assert [b["N"] for b in recorder.made] == [1, 2, 3, 4, 5, 2]


def test_bindings_are_completed(network: Executable) -> None:
    assert network.complete({"H": 12, "W": 12}) == {"N": 1, "H": 12, "W": 12}
    with pytest.raises(InputError, match="sizes not given: H, W"):
        network.complete({"N": 2})
    with pytest.raises(InputError, match="H = 13, but H % 4 == 0"):
        network.complete({"H": 13, "W": 12})


def test_a_batch_equals_its_pictures_one_by_one(network: Executable) -> None:
    x = images(4)
    together = network(x)
    for k in range(4):
        np.testing.assert_allclose(network(x[k : k + 1])[0], together[k], rtol=1e-5, atol=1e-5)


def test_names_in_any_order_and_layouts_of_all_kinds(calculator: Executable) -> None:
    """What is passed by name goes the short way of what is passed in order, if it is arrays."""
    a, b = pair()
    wanted = a - b
    spread = np.zeros((*a.shape, 2), "f4")
    spread[..., 1] = a
    for given in (a, np.asfortranarray(a), spread[..., 1], a[:, ::-1].copy()[:, ::-1]):
        found = calculator(b=b, a=given)["difference"]
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(calculator.by_name(given, b)["difference"], wanted)
    with pytest.raises(InputError, match="not given: b"):
        calculator(a=a)
    with pytest.raises(InputError, match="no input `c`"):
        calculator(a=a, c=b)
    with pytest.raises(InputError, match="no input `c`"):
        calculator(a=a, b=b, c=b)
    with pytest.raises(InputError, match="is a list"):
        calculator(a=a, b=b.tolist())
