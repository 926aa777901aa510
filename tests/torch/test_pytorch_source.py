"""`export --to pytorch`: the file runs, its state dict has our keys, and it computes the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_graphs import random_graph
from torch_modules import module_of, state_of

import convdsl
from convdsl import zoo
from convdsl.diagnostics import InputError
from convdsl.interop.correspondence import ROWS
from convdsl.interop.correspondence.wording import Lacking
from convdsl.ir.model import Model

CANNOT = {"swin_stage": "0 cannot be an attribute"}
"""What source of PyTorch's cannot say, and why not."""


@pytest.mark.parametrize("name", zoo.names())
def test_state_dict_keys_are_layer_names(name):
    model = convdsl.load(name)
    if name in CANNOT:
        with pytest.raises((InputError, Lacking), match=CANNOT[name]):
            module_of(model)
        return
    words = [ROWS[node.op.name].pytorch for node in model.graph.op_nodes()]
    if any(word.name.startswith("torchvision.") for word in words):
        with pytest.raises(Lacking, match="torchvision's"):
            module_of(model)
        return
    with torch.device("meta"):  # shapes without memory
        module = module_of(model)
    assert state_of(module).keys() == {k for k, s in model.graph.states.items() if s.data is None}
    for key, tensor in state_of(module).items():
        assert tuple(tensor.shape) == model.graph.states[key].type.shape


def compare(model: Model) -> None:
    module = module_of(model)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.3)
    weights = {key: tensor.numpy() for key, tensor in state_of(module).items()}
    arrays = {
        name: np.random.default_rng(0)
        .standard_normal([d if isinstance(d, int) else 2 for d in type.shape])
        .astype(type.dtype.numpy)
        for name, type in model.inputs.items()
    }
    with torch.no_grad():
        expected = module(*map(torch.from_numpy, arrays.values()))
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = convdsl.compile(model, weights, threads=1)(**arrays)
    found = list(found.values()) if isinstance(found, dict) else [found]
    for got, wanted in zip(found, expected, strict=True):
        scale = max(float(wanted.abs().max()), 1e-3)
        np.testing.assert_allclose(got, wanted.numpy(), rtol=0, atol=1e-4 * scale)


def test_lenet5_computes_the_same():
    compare(convdsl.load("lenet5"))


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs_compute_the_same(seed):
    compare(Model("net", random_graph(seed)))


CONSTANTS = """convdsl 1

model m {
    input x: f32[N, 3, 9, 70]
    let rows = for i in range(70) { i * 0.5 - 3 }
    let taps = for c in range(3) { [for i in range(3) { for j in range(9) { c + i * j * 0.25 } }] }
    let grid = for j in range(2) { for i in range(35) { i * 3 - 2 ** 40 * j } }
    table = parameter([70], weight = rows)
    whole = parameter([2, 35], weight = grid) -> cast(i64)
    y = (x + table * table) -> conv(3, 3x9, groups = 3, bias = false, weight = taps) as constant_1
    z = y + (whole -> reshape([70]) -> cast(f32)) * parameter([70], weight = -inf)
    row = parameter([2, 35], weight = grid) -> reshape([70])
    s = where(y > parameter([70], weight = rows), y, row)
    s -> output s
    z -> output z
}
"""


def test_large_constants_stand_in_the_source_by_their_bytes():
    model = convdsl.parse(CONSTANTS)
    module = module_of(model)
    assert not module.state_dict()  # no weight file names them
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 70)).astype(np.float32)
    found = convdsl.compile(model)(x)
    for name, wanted in zip(model.outputs, module(torch.from_numpy(x)), strict=True):
        np.testing.assert_allclose(found[name], wanted.numpy(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", ["low_pass", "spectral_network", "gcn", "chebyshev_network"])
def test_networks_with_large_constants_compute_the_same(name):
    compare(convdsl.load(name))


def test_a_constant_beyond_all_sense_is_left_to_onnx(monkeypatch):
    monkeypatch.setattr("convdsl.interop.pytorch_source._LARGEST", 69)
    with pytest.raises(InputError, match=r"\(f32\[70\]\) is too large for source text: ONNX"):
        convdsl.export(convdsl.parse(CONSTANTS), to="pytorch")


def test_weights_by_themselves():
    model = convdsl.parse(
        "convdsl 1\nmodel m {\ninput x: f32[N, 3, 4]\n"
        "y = (x - parameter([3, 1], weight = [[1], [2], [3]])) * (parameter([3, 1]) as gain)\n"
        "y + parameter([4]) -> relu -> output z\n}\n"
    )
    assert state_of(module_of(model)).keys() == {"gain.weight", "parameter_2.weight"}
    compare(model)


def test_weights_called_as_their_layers():
    """Beside layers that numbers name, and that names name."""
    model = convdsl.parse(
        "convdsl 1\nmodel m {\ninput x: f32[N, 3, 4]\n"
        "y = x * (parameter([3, 1], bare = true) as gain)\n"
        "y -> seq body { conv(3, 1) -> relu -> scope a {\n"
        "in * (parameter([3, 1], bare = true) as gain) -> conv(3, 1) as b } } -> output z\n"
        'scope t { y * (parameter([4], bare = true) as "0") -> conv(2, 1) as "1" } -> output u\n}\n'
    )
    assert state_of(module_of(model)).keys() >= {"gain", "body.a.gain", "t.0", "t.1.weight"}
    compare(model)


def test_fixed_filters_are_in_the_source():
    model = convdsl.parse(
        "convdsl 1\nmodel m {\ninput x: f32[N, 1, 6, 6]\n"
        "x -> conv(1, 3x3, bias = false, weight = [[[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]]])\n"
        "-> conv(2, 3x3, pad = [[0, 1], [1, 0]]) -> output y\n}\n"
    )
    assert state_of(module_of(model)).keys() == {"conv_2.weight", "conv_2.bias"}
    compare(model)


def test_numbers_that_are_no_tensors():
    """Lone numbers on both sides, where PyTorch wants tensors, and where they are infinite."""
    model = convdsl.parse(
        "convdsl 1\nmodel m {\ninput x: f32[N, 3]\n"
        "y = max(x, -0.5) - 2 * x\nmin(1.5, y) -> output z\n}\n"
    )
    compare(model)


OPEN = """convdsl 1
model m {
    input x: f32[N, 3, H, W]
    token = parameter([1, 3, 1, 1]) -> expand([x.batch, 3, 1, x.width])
    concat(token, x, axis = 2) -> output joined
    parameter([3, 1, 1]) -> expand([x.batch, 3, (x.height + 1) // 2, x.width // 3]) -> output y
    x -> reshape([x.batch * x.height, x.channels, x.width]) -> output z
}
"""


@pytest.mark.parametrize("sizes", [(1, 1, 3), (2, 5, 7), (3, 4, 6)])
def test_free_sizes_are_read_from_the_arguments(sizes):
    n, h, w = sizes
    module = module_of(convdsl.parse(OPEN))
    x = torch.randn(n, 3, h, w)
    joined, y, z = module(x)
    assert torch.equal(joined[:, :, 1:], x)
    assert y.shape == (n, 3, (h + 1) // 2, w // 3)
    assert z.shape == (n * h, 3, w)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("[2 * N, 3]", "the size N is free, and no input has an axis of that size"),
        ("[max, 3]", "the size max is called as something that PyTorch source needs"),
    ],
)
def test_sizes_that_source_cannot_read(shape, said):
    model = convdsl.parse(
        f"convdsl 1\nmodel m {{\ninput x: f32{shape}\n"
        "parameter([1, 3]) -> expand([x.batch, 3]) -> output y\n"
        "x -> output z\n}\n"
    )
    with pytest.raises(InputError, match=said):
        module_of(model)


INTEGERS = """model m {
    input x: f32[N, 8, 16]
    order = parameter([4], dtype = i64, weight = [3, 0, 2, 1]) as order
    table = parameter([5, 8], dtype = i32, weight = for i in range(5) { range(i, i + 8) }) as table
    rows = take(table, order, axis = 0) -> cast(f32)
    matmul(take(x, order, axis = 1) -> transpose([0, 2, 1]), rows) -> linear(3) -> output z
}
"""


def test_constants_of_integers_are_in_the_source() -> None:
    compare(convdsl.parse(INTEGERS))


def test_integers_that_are_none_of_the_source_are_named() -> None:
    text = INTEGERS.replace(", weight = [3, 0, 2, 1]", "")
    with pytest.raises(Lacking, match="order: .*floating-point numbers only"):
        module_of(convdsl.parse(text))
