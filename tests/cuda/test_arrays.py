"""What a network on a card takes for an array, wherever it lies, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda.fake_driver import Fake, Stream
from cuda.fake_driver import ndarray as card_array
from cuda.networks_on_cards import NET, TWO, array, on_card, on_cpu, put

from convdsl.diagnostics import InputError

ONE = "model one {\n    input x: f32[N, 4]\n    x -> relu -> output y\n}"


class Interface:
    """What says where it lies by `__cuda_array_interface__`."""

    def __init__(self, array: card_array) -> None:
        self.__cuda_array_interface__ = array.__cuda_array_interface__


class DLPack:
    """What is exchanged by DLPack."""

    def __init__(self, shared: card_array) -> None:
        self.shared = shared
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: int) -> object:
        self.streams.append(stream)
        return self


class OnHost:
    """A tensor in the host's memory, as PyTorch hands it over."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **how: object) -> object:
        return self.array.__dlpack__(**how)


@pytest.mark.dear(share=4)
def test_who_says_where_it_lies(fake: Fake) -> None:
    net, x = on_card(NET), array(1, 3, 8, 8)
    expected = on_cpu(NET)(x)
    kept = put(fake, x)
    for given in (Interface(kept), DLPack(kept)):
        y = net(given)
        assert isinstance(y, card_array)
        fake.current[-1].synchronize()
        np.testing.assert_allclose(y.view, expected, rtol=0, atol=2e-6)
    assert given.streams == [0]
    y = net(OnHost(x))
    assert type(y) is np.ndarray
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6)


def test_several_inputs_of_both_kinds(fake: Fake) -> None:
    net, a, b = on_card(TWO), array(2, 4), array(2, 4, seed=1)
    expected = on_cpu(TWO)(a, b)
    found = net(b=put(fake, b), a=a)
    fake.current[-1].synchronize()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].view, values, rtol=0, atol=2e-6)


def test_a_view_that_begins_anywhere(fake: Fake) -> None:
    """Kernels read sixteen bytes at once: an input that begins between is copied."""
    net, x = on_card(ONE), array(3, 4)
    whole = put(fake, np.zeros(16, np.float32))
    moved = card_array(fake, (3, 4), np.float32, whole.data.ptr + 4)
    moved.view[...] = x
    y = net(moved)
    fake.current[-1].synchronize()
    np.testing.assert_array_equal(y.view, np.maximum(x, 0))
    assert fake.card.count("copy") == 1
    net(put(fake, x))
    assert fake.card.count("copy") == 1


def test_what_is_no_array(fake: Fake) -> None:
    net = on_card(NET)
    with pytest.raises(InputError, match="input `x` is a list: NumPy arrays are taken"):
        net([1.0])
    with pytest.raises(InputError, match="is float64, the model takes float32"):
        net(np.zeros((1, 3, 8, 8)))
    with pytest.raises(InputError, match="expected f32"):
        net(put(fake, array(3, 8, 8)))


class Unreadable:
    """What has a protocol, and fails."""

    def __init__(self, protocol: str, error: Exception) -> None:
        self._protocol, self._error = protocol, error

    def __getattribute__(self, name: str) -> Any:
        said = object.__getattribute__(self, "_protocol")
        if name == said:
            raise object.__getattribute__(self, "_error")
        if name == "__dlpack__" and said == "__dlpack_device__":
            return lambda **how: None
        raise AttributeError(name)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Unreadable("__cuda_array_interface__", RuntimeError("needs grad")), "lies: needs grad"),
        (Unreadable("__dlpack__", BufferError("needs gradients")), "lies: needs gradients"),
        (Unreadable("__dlpack_device__", OverflowError("too far")), "lies: too far"),
        (Unreadable("__dlpack_device__", ValueError()), "lies: ValueError"),
    ],
)
def test_what_has_a_protocol_and_fails(fake: Fake, given: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"input `x` cannot be read where it {said}"):
        on_card(ONE)(given)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": None},
        {"shape": (3, -4)},
        {"typestr": ">f4"},
        {"data": None},
        {"data": (0, False)},
        {"mask": object()},
        {"shape": ...},
        {"typestr": ...},
        {"data": ...},
    ],
)
def test_interfaces_that_make_no_sense(fake: Fake, change: dict[str, Any]) -> None:
    kept = put(fake, array(3, 4))
    given = Interface(kept)
    given.__cuda_array_interface__ |= change
    for key in [key for key, value in change.items() if value is ...]:
        del given.__cuda_array_interface__[key]
    with pytest.raises(InputError, match="input `x` "):
        on_card(ONE)(given)


def test_interfaces_of_every_version(fake: Fake) -> None:
    """Read-only memory, strides in bytes, and the stream that the memory is written in."""
    net, x = on_card(ONE), array(6, 4)
    kept = put(fake, np.zeros_like(x))
    producer = Stream(fake)
    producer.put(lambda: np.copyto(kept.view, x))
    plain = kept.__cuda_array_interface__
    whole = plain | {"data": (kept.data.ptr, True), "strides": None, "version": 3}
    third = plain | {"shape": (2, 4), "strides": (48, 4), "version": 2}
    turned = plain | {"shape": (4, 4), "strides": (4, 16)}
    for said, expected in (
        (whole | {"stream": producer.ptr}, x),
        (third, x[::3]),
        (turned, x[:4].T),
    ):
        given = Interface(kept)
        given.__cuda_array_interface__ = said
        y = net(given)
        fake.current[-1].synchronize()
        np.testing.assert_array_equal(y.view, np.maximum(expected, 0))
    np.testing.assert_array_equal(kept.view, x)
