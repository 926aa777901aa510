"""Public functions answer arguments that they do not take, arguments of other types, and names of
files that promise something else."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.calling import ELSEWHERE
from convdsl.diagnostics import CompileError, Error, InputError
from convdsl.training.settings import complete

TEXT = """
model m(classes = 4) {
    input x: f32[N, 3, 8, 8]
    x -> conv(4, 3x3) -> avgpool(global) -> flatten -> linear(classes) -> output y
}
"""

OF_WORDS = {"load", "parse", "export", "tiled", "train", "Predictor"}
"""Those that hand unknown names on to the model, or to its training."""

CALLS = [
    *("compile", "emit", "report", "draw", "gradient", "build_library", "load_executable"),
    *("tuner", "Session"),
]


@pytest.fixture(scope="module")
def model() -> Any:
    return convdsl.parse(TEXT)


def _names(name: str) -> list[str]:
    return [n for n in inspect.signature(getattr(convdsl, name)).parameters if n != "self"]


@pytest.mark.parametrize("name", CALLS)
def test_slips_are_suggested_and_others_listed(name: str) -> None:
    function, names = getattr(convdsl, name), _names(name)
    longest = max(names, key=len)
    slip = longest[:-2] + longest[-1] + longest[-2]  # two letters swapped
    slip = slip if slip != longest else f"{longest}x"
    with pytest.raises(TypeError, match=rf"{name}\(\) has no argument `{slip}`; did you mean"):
        function(**{slip: 1})
    with pytest.raises(TypeError, match=rf"no argument `qqqqqq`; it takes {', '.join(names)}"):
        function(qqqqqq=1)


def test_every_public_function_answers() -> None:
    functions = {n for n in convdsl.__all__ if callable(getattr(convdsl, n)) and n != "Executable"}
    told = {n for n in functions if not inspect.isclass(getattr(convdsl, n))}
    assert told | {"Session", "Predictor"} == set(CALLS) | OF_WORDS


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("batch_size", "did you mean batch"),
        ("input_shape", "did you mean inputs"),
        ("num_threads", "did you mean threads"),
        ("state_dict", "did you mean weights"),
        ("classes", r"convdsl\.load\(\.\.\., classes=\.\.\.\)"),
        ("N", r"symbols=\{'N': \.\.\.\}"),
    ],
)
def test_what_arguments_are_called_elsewhere(model: Any, word: str, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        convdsl.compile(model, "random:0", **{word: 2})


def test_words_from_elsewhere_are_of_some_function() -> None:
    taken = {n for name in (*CALLS, *OF_WORDS) for n in _names(name)} | {"top", "lr"}
    assert set(ELSEWHERE.values()) <= taken


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p: convdsl.export(p, "random:0", too="onnx"), r"or is to meant, which export\(\)"),
        (lambda p: convdsl.tiled(p, "random:0", tiles=9), r"or is tile meant, which tiled\(\)"),
        (lambda p: convdsl.load(p, weights="w.npz"), r"convdsl\.compile\(\.\.\., weights=\.\.\.\)"),
        (lambda p: convdsl.load(p, clases=3), "did you mean `classes`"),
        (lambda p: convdsl.Predictor(p, "random:0", thread=3).open(), None),
    ],
)
def test_words_that_are_handed_on(tmp_path: Path, call: Callable[[Path], Any], said: str) -> None:
    (tmp_path / "m.cnn").write_text(TEXT)
    with pytest.raises(CompileError, match=said or "has no parameter `thread`"):
        call(tmp_path / "m.cnn")


def test_parameters_of_a_predictor_of_an_artifact(model: Any, tmp_path: Path) -> None:
    convdsl.compile(model, "random:0").save(tmp_path / "m.cdsl")
    with pytest.raises(InputError, match="takes no thread.*did you mean threads"):
        convdsl.Predictor(tmp_path / "m.cdsl", thread=2).open()
    with pytest.raises(InputError, match="the batch comes first: x.None."):
        convdsl.Predictor(tmp_path / "m.cdsl")(np.zeros((3, 8, 8), np.float32))


def test_attributes_of_the_package() -> None:
    with pytest.raises(AttributeError, match="did you mean compile"):
        getattr(convdsl, "complie")  # noqa: B009
    with pytest.raises(AttributeError, match=r"no attribute 'qqqq'$"):
        getattr(convdsl, "qqqq")  # noqa: B009


WRONG: list[tuple[Callable[[Any], Any], str]] = [
    (lambda m: convdsl.compile(m, "random:0", device=0), "the device is an int, not a str"),
    (lambda m: convdsl.compile(m, "random:0", device="gpu"), "did you mean cuda"),
    (lambda m: convdsl.compile(m, "random:0", threads="2"), "threads is a str, not an int"),
    (lambda m: convdsl.compile(m, "random:0", verify="x"), "verify is a str"),
    (lambda m: convdsl.compile(m, "random:0", cache="x"), "cache is a str"),
    (lambda m: convdsl.compile(m, "random:0", inputs=np.zeros((1, 3, 8, 8))), r"is \.shape"),
    (lambda m: convdsl.emit(m, "ptx", arch="80"), "did you mean sm_80"),
    (lambda m: convdsl.emit(m, "ptx", arch="H100"), "did you mean sm_90"),
    (lambda m: convdsl.gradient("m.cnn"), r"convdsl\.load\(\.\.\.\) makes one"),
    (lambda m: convdsl.parse("m.cnn"), "convdsl.load reads files"),
    (lambda m: convdsl.export(m, "m.onnx"), "weights first"),
    (lambda m: convdsl.draw(m).save(None), "the path is a NoneType"),
    (lambda m: convdsl.tiled("unet", "random:0", tile=0), "at least one pixel"),
    (lambda m: convdsl.tiled("unet", "random:0", tile="9"), "whole numbers are"),
]


@pytest.mark.parametrize(("call", "said"), WRONG)
def test_wrong_values(model: Any, call: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call(model)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"x": 1}, "network.*arrays"),
        ("x.npy", "np.load reads files"),
        ([[1.0]], "np.asarray"),
        (None, "a NoneType, not a NumPy array$"),
    ],
)
def test_what_is_no_array(model: Any, value: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        convdsl.compile(model, "random:0")(value)


def test_devices_of_artifacts(model: Any, tmp_path: Path) -> None:
    convdsl.compile(model, "random:0").save(tmp_path / "m.cdsl")
    with pytest.raises(InputError, match="^unknown device `gpu`"):
        convdsl.load_executable(tmp_path / "m.cdsl", device="gpu")
    with pytest.raises(InputError, match="the device is an int"):
        convdsl.load_executable(tmp_path / "m.cdsl", device=0)


# Writing


@pytest.mark.parametrize("name", ["net.cnn", "w.pt", "x.npy", "net.tflite"])
def test_names_of_other_kinds_are_not_written_over(model: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("what is there")
    session = convdsl.Session(model, complete(model, {}), "random:0")
    writers: list[Callable[[Path], Any]] = [
        convdsl.compile(model, "random:0").save,
        session.save,
        lambda path: convdsl.export(model, "random:0", path),
        lambda path: convdsl.build_library(model, "random:0", path),
    ]
    for write in writers:
        with pytest.raises(Error, match=rf"{name} is called like .* would be written; end it with"):
            write(tmp_path / name)
    assert (tmp_path / name).read_text() == "what is there"


def test_a_session_refuses_rates_and_states_that_are_none(model: Any) -> None:
    session = convdsl.Session(model, complete(model, {}), "random:0")
    batch = {"x": np.zeros((2, 3, 8, 8), np.float32), "label": np.zeros(2, np.int64)}
    for rate in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="would make every weight no number"):
            session.step(batch, rate)
    states = session.states()
    with pytest.raises(InputError, match="they lack conv.bias, .*, \\.\\.\\.$"):
        session.restore({})
    with pytest.raises(InputError, match="another run: it has no odd$"):
        session.restore({**states, "odd": np.zeros(1)})
