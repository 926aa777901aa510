"""`--emit loops --plain`: short enough to read, and what it says is what is computed."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

import convdsl

CONV = """model m {
    input x: f32[N, 2, 5, 4]
    x -> conv(3, 3x3, stride = 2, pad = 1) -> relu -> maxpool(2, pad = 1) -> softmax(1) -> output y
}
"""
JOINED = """model m {
    input x: f32[N, 4, 3]
    q = x -> conv(2, 3, groups = 2, dilation = 2, pad = 2, bias = false) -> bn
    concat(q, q -> sigmoid as gate) -> flatten -> linear(5) -> output y
}
"""


class Array:
    """An array by name, which has a value outside where a read says so."""

    def __init__(self, data: np.ndarray[Any, Any]) -> None:
        self.data = data

    def __getitem__(self, index: Any) -> float:
        try:
            return self.data[index].item()
        except IndexError:  # Python looks at both sides of a `select`
            return math.nan

    def __setitem__(self, index: Any, value: float) -> None:
        self.data[index] = value

    def at(self, outside: float, *index: int) -> float:
        inside = all(0 <= i < n for i, n in zip(index, self.data.shape, strict=True))
        return self[index] if inside else outside


def run(text: str, arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, Array]:
    """Execute plain loops as Python, what is made of weights first."""
    known = {name.replace(".", "__"): Array(array) for name, array in arrays.items()}
    parts = text.strip().split("\n\n")
    parts.sort(key=lambda part: "once, when weights are bound" not in part.partition("\n")[0])
    words = {"exp": math.exp, "sqrt": math.sqrt, "max": max, "inf": math.inf, "floor": math.floor}
    words["f32"] = words["f64"] = float
    words["sigmoid"] = lambda x: 1 / (1 + math.exp(-x))
    words["select"] = lambda condition, yes, no: yes if condition else no
    for part in parts:
        for stage in re.split(r"\n(?=\S)", part.partition("\n")[2]):
            head, _, body = stage.partition("\n")
            name, shape = re.fullmatch(r"([\w.]+)\[.*\], \w+\[(.*)\]", head).groups()
            sizes = [int(size) for size in shape.split(", ")] if shape else []
            known[name.replace(".", "__")] = Array(np.zeros(sizes))
            code = re.sub(r"([A-Za-z_][\w.]*)\[", lambda m: m[1].replace(".", "__") + "[", body)
            code = re.sub(r"(\w+)\[([^\[\]]*) outside ([^\]]+)\]", r"\1.at(\3, \2)", code)
            exec(re.sub(r"^    ", "", code, flags=re.MULTILINE), {**words, **known})
    return known


@pytest.mark.parametrize("text", [CONV, JOINED], ids=["conv", "joined"])
def test_read_as_python_it_computes_the_values(text: str) -> None:
    model = convdsl.parse(text)
    plain = convdsl.emit(model, "loops", batch=2, plain=True)
    assert isinstance(plain, str)
    random = np.random.default_rng(0)
    weights = {
        name: random.uniform(0.5, 1.5, state.type.sizes).astype(np.float32)
        for name, state in model.graph.states.items()
    }
    x = random.standard_normal((2, *model.inputs["x"].shape[1:])).astype(np.float32)
    expected = convdsl.compile(model, weights, cache=False)(x)
    values = run(plain.replace("bn.eps", "1e-5"), {"x": x, **weights})
    (last,) = (value.name for value in model.graph.outputs.values())
    found = values[last.replace(".", "__")].data
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_filter_of_3x3_fits_a_page() -> None:
    text = "model m {\n    input x: f32[N, 3, 32, 32]\n    x -> conv(16, 3x3) -> output y\n}\n"
    plain = str(convdsl.emit(convdsl.parse(text), "loops", batch=1, plain=True))
    assert len(plain.splitlines()) <= 20
    sum = "s += (x[n, c, p0 + r0 - 1, p1 + r1 - 1 outside 0.0] * conv.weight[k, c, r0, r1])"
    assert sum in " ".join(plain.split())


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1"])
def test_plain_loops_fit_a_terminal(name: str) -> None:
    plain = str(convdsl.emit(name, "loops", batch=1, plain=True))
    assert max(map(len, plain.splitlines())) <= 80


def test_only_loops_have_a_plain_form() -> None:
    with pytest.raises(convdsl.InputError, match="plain loops"):
        convdsl.emit("lenet5", "llvm", plain=True)


def test_the_batch_is_called_so_in_every_read() -> None:
    """Of one sample, too: no `x[0, c, h, w]` inside of a loop over n."""
    text = str(convdsl.emit(convdsl.parse(CONV), "loops", batch=1, plain=True))
    reads = re.findall(r"(?:conv|relu|maxpool|x)\[(\w+)", text)
    assert reads
    assert "0" not in reads
