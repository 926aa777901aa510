"""The Python API, given what it was not made for: only convdsl.Error comes back."""

from __future__ import annotations

import functools
import os
import random
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

import convdsl
from convdsl import Model
from convdsl.passes import PASSES
from convdsl.training.settings import complete
from convdsl.weights import load as load_weights

LONG = settings.default is not None and settings.default.max_examples > 100  # make fuzz
CALLED = int(os.environ.get("CONVDSL_CALLS", "0"))
COUNT = 400 if LONG else 60
TEXT = """
model m {
    input x: f32[N, 3, H, W] where H >= 2
    x -> conv(4, 5x5, pad=0) -> relu -> maxpool(3x3) -> conv(4, 3x3, pad=0) -> output y
}
"""
ODD: list[Any] = [
    None, 0, -1, 1, 2, 1 << 40, 1 << 70, 1.5, float("nan"), True, "", "x", "3", "\0", "/nowhere/x",
    b"x", (), [],
    (3, 9, 9), (1, 3, 9, 9), (3, 0, 9), (3, -4, 9), ("a",), (3, "a", 9), (3, 2.5, 9), {}, {"x": 3},
    {"x": (3, 4, 4)}, {"x": (1, 3, 30, 31)}, {"y": (3, 9, 9)}, {"H": 4}, {"H": "q"}, {"Q": 1},
    object(),
]  # fmt: skip

SLOW = frozenset({"train", "settings", "session", "step", "tiles", "tuned", "saved"})
MADE: dict[int, convdsl.Executable] = {}


def made(model: Model) -> convdsl.Executable:
    """The model, compiled once."""
    if id(model) not in MADE:
        MADE[id(model)] = convdsl.compile(model, "random:0", cache=False)
    return MADE[id(model)]


IMAGE = np.zeros((1, 3, 9, 9), "f4")
SAMPLES = (np.zeros((4, 28, 28), "u1"), np.arange(4))
BATCH = {"image": np.zeros((2, 1, 32, 32), "f4"), "label": np.zeros(2, "i8")}


@functools.cache
def session() -> convdsl.Session:
    model = convdsl.load("lenet5")
    return convdsl.Session(model, complete(model, {}), "random:0", threads=1)


def saved(model: Model, folder: Path) -> str:
    path = folder / "saved.cdsl"
    if not path.exists():
        made(model).save(path, N=1, H=9, W=9)
    return str(path)


CALLS: dict[str, Callable[[Model, Callable[..., Any], Path], object]] = {
    "report": lambda m, odd, _: convdsl.report(
        m, inputs=odd(), batch=odd(), symbols=m_or_none(odd())
    ),
    "counting": lambda m, odd, _: convdsl.report(m, count=str(odd())),
    "emit": lambda m, odd, _: convdsl.emit(m, "graph", inputs=odd(), batch=odd()),
    "level": lambda m, odd, _: convdsl.emit(m, str(odd()), symbols=m_or_none(odd())),
    "compile": lambda m, odd, _: convdsl.compile(
        m,
        odd(),
        target=odd("cpu"),
        threads=odd(1),
        cpu=odd("native"),
        inputs=odd(),
        batch=odd(),
        symbols=odd(),
        passes=odd(PASSES),
        observer=odd(None),
        cache=False,
    ),
    "weights": lambda m, odd, _: convdsl.compile(m, odd()),
    "processors": lambda m, odd, _: convdsl.compile(m, "random:0", cpu=odd()),
    "targets": lambda m, odd, _: convdsl.emit(m, "graph", target=odd(), cpu=odd()),
    "passes": lambda m, odd, _: convdsl.emit(m, "graph", passes=odd()),
    "models": lambda m, odd, _: convdsl.compile(odd(), "random:0"),
    "reports": lambda m, odd, _: convdsl.report(odd(), count=odd()),
    "emitted": lambda m, odd, _: convdsl.emit(odd(), odd()),
    "export": lambda m, odd, folder: convdsl.export(
        odd(m), odd("random:0"), odd(folder / "y"), to=odd("onnx")
    ),
    "gradient": lambda m, odd, _: convdsl.gradient(odd(m), odd(), odd()),
    "stores": lambda m, odd, _: load_weights(odd(), odd(None)),
    "load any": lambda m, odd, _: convdsl.load(odd()),
    "parse any": lambda m, odd, _: convdsl.parse(odd()),
    "parameters": lambda m, odd, _: convdsl.load("lenet5", classes=odd(), N=odd()),
    "save": lambda m, odd, folder: made(m).save(odd(folder / "z"), N=odd(1), H=odd(9), W=odd(9)),
    "call": lambda m, odd, _: made(m)(odd()),
    "named": lambda m, odd, _: made(m)(x=odd()),
    "threads": lambda m, odd, _: convdsl.compile(m, "random:0", threads=odd()),
    "load": lambda m, odd, _: convdsl.load(str(odd())),
    "parse": lambda m, odd, _: convdsl.parse(str(odd())),
    "load_executable": lambda m, odd, _: convdsl.load_executable(odd(), threads=odd()),
    "saved": lambda m, odd, folder: convdsl.load_executable(
        odd(saved(m, folder)), threads=odd(1)
    )(odd(IMAGE)),
    "state": lambda m, odd, _: made(m).state.replace(odd({})),
    "library": lambda m, odd, folder: convdsl.build_library(
        odd(m), odd("random:0"), odd(folder / "lib.so"), inputs=odd((3, 9, 9)), batch=odd(1)
    ),
    "team": lambda m, odd, _: setattr(made(m), "threads", odd(1)),
    "bound": lambda m, odd, _: made(m).bind(odd({"x": (1, 3, 9, 9)})),
    "completed": lambda m, odd, _: made(m).complete(odd({"H": 9, "W": 9})),
    "results by name": lambda m, odd, _: made(m).by_name(odd(IMAGE)),
    "tiled": lambda m, odd, _: convdsl.tiled(
        odd(m), odd("random:0"), tile=odd(32), threads=odd(1), cpu=odd("native")
    ),
    "tiles": lambda m, odd, _: convdsl.tiled(m, "random:0", tile=32)(odd(IMAGE)),
    "tuner": lambda m, odd, _: convdsl.tuner(odd(0.001), odd(lambda doing, share: None)),
    "tuned": lambda m, odd, _: convdsl.compile(m, "random:0", inputs=(3, 9, 9), tuner=odd(None)),
    "train": lambda m, odd, folder: convdsl.train(
        odd("lenet5"), odd(SAMPLES), odd(None), validation=odd(None), out=odd(folder / "r"),
        weights=odd(None), threads=odd(1), workers=odd(1), epochs=odd(1), overwrite=odd(True),
    ),
    "settings": lambda m, odd, _: convdsl.train(
        "lenet5", SAMPLES, threads=1, **{odd("lr"): odd(0.1), "epochs": 1, "batch": odd(4)}
    ),
    "session": lambda m, odd, _: convdsl.Session(
        odd(m), odd(convdsl.load("lenet5").training), odd("random:0"), threads=odd(1)
    ),
    "step": lambda m, odd, _: session().step(odd(BATCH), odd(0.1)),
    "restored": lambda m, odd, _: session().restore(odd({})),
    "kept": lambda m, odd, folder: session().save(odd(folder / "w.safetensors"), odd(None)),
}  # fmt: skip


def m_or_none(value: Any) -> Any:
    return value if isinstance(value, dict) else None


@pytest.fixture(scope="module")
def model() -> Model:
    return convdsl.parse(TEXT)


@pytest.mark.dear
@pytest.mark.parametrize("call", CALLS)
def test_odd_arguments(
    model: Model, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONVDSL_CALLS calls of all together, each a mistake, or none: never another exception."""
    draw = random.Random(call)
    monkeypatch.chdir(tmp_path)  # odd names of files
    for _ in range(CALLED // len(CALLS) or COUNT // (4 if call in SLOW else 1)):
        given: list[Any] = []

        def odd(*usual: Any, given: list[Any] = given) -> Any:
            given.append(draw.choice([draw.choice(ODD), *usual, *usual]))
            return given[-1]

        try:
            CALLS[call](model, odd, tmp_path)
        except Exception as error:
            fine = isinstance(error, convdsl.Error) or is_of_the_call(error)
            if not fine or not str(error):
                raise AssertionError(f"{call} of {given} raised {error!r}") from error


def is_of_the_call(error: Exception) -> bool:
    """Whether Python found the arguments wrong, before anything of ours ran."""
    trace = error.__traceback__
    return isinstance(error, TypeError) and len(traceback.extract_tb(trace)) <= 2


@pytest.mark.dear(share=4)
def test_gradients_of_a_model_of_free_sizes() -> None:
    """They too are refused where nothing is left, and right elsewhere."""
    text = TEXT.replace("-> output", "-> flatten -> relu -> output")
    network = convdsl.compile(convdsl.gradient(convdsl.parse(text)), "random:0", cache=False)
    with pytest.raises(convdsl.InputError):
        network(np.ones((1, 3, 6, 6), np.float32))
    found = network(np.ones((1, 3, 15, 15), np.float32))
    bound = convdsl.parse(text, N=1, H=15, W=15)
    known = convdsl.compile(convdsl.gradient(bound), "random:0", cache=False)
    for name, array in known(np.ones((1, 3, 15, 15), np.float32)).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


def test_too_small_inputs_of_a_model_of_free_sizes(model: Model) -> None:
    """Refused with the operator and the sizes, whichever way they come; larger ones run."""
    network = convdsl.compile(model, "random:0", cache=False)
    for size in (2, 4, 6):
        x = np.ones((1, 3, size, size), np.float32)
        ways: list[Callable[[], object]] = [
            lambda x=x: network(x),
            lambda size=size: convdsl.report(model, inputs=(3, size, size)),
            lambda size=size: convdsl.emit(model, "graph", inputs=(3, size, size)),
            lambda size=size: convdsl.compile(model, "random:0", inputs=(3, size, size)),
            lambda size=size: network.save("never.cdsl", H=size, W=size),
        ]
        for way in ways:
            with pytest.raises(convdsl.InputError, match=r"does not fit"):
                way()
    assert network(np.ones((1, 3, 15, 15), np.float32)).shape == (1, 4, 1, 1)


def test_odd_arrays(model: Model) -> None:
    network = convdsl.compile(model, "random:0", cache=False)
    draw = random.Random(0)
    for _ in range(COUNT):
        shape = [draw.choice([0, 1, 2, 3, 4, 7]) for _ in range(draw.choice([0, 3, 4, 4, 4, 5]))]
        dtype = draw.choice(["f4", "f4", "f4", "f8", "i4", "O", "U3", "c8", "?"])
        try:
            network(np.zeros(shape, dtype))
        except convdsl.Error:
            continue
    for wrong in (None, 3, "x", [[1.0]], object()):
        with pytest.raises(convdsl.InputError):
            network(wrong)
