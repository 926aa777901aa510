"""Files as text: what import writes loads, and computes what onnxruntime computes.

The suites' own files, published networks, and drawn graphs; a few in CI, all of them with
`CONVDSL_IMPORTS=200`. Numbers are compared by running, beside what import itself compares.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from random_graphs import random_graph
from safetensors.numpy import load as load_weights

import convdsl
from convdsl import exporting
from convdsl.interop.onnx_load import model_of
from interop import suites
from interop.runtimes import as_model, run_onnxruntime

WANTED = int(os.environ.get("CONVDSL_IMPORTS", "12"))
SHARE = {"pytorch-converted": 82, "pytorch-operator": 35, "light": 9, "drawn": 74}
"""How many files of each source there are, 200 in all."""


Arrays = list[np.ndarray]
File = tuple[str, onnx.ModelProto, list[tuple[Arrays, Arrays]]]
"""Name, model, and pairs of inputs and outputs; none where onnxruntime is asked."""


def files(source: str) -> Iterator[File]:
    if source == "light":
        for name, proto in suites.light_models():
            yield name, proto, []
    elif source == "drawn":
        for seed in range(SHARE[source]):
            model = as_model(random_graph(1000 + seed, tail=seed % 2 == 0))
            yield f"drawn-{seed}", onnx.load_from_string(convdsl.export(model, "random:1")), []
    else:
        for case in suites.stored_tests(source):
            yield case.name, case.proto, [(list(a), list(b)) for a, b in case.data]


def asked(proto: onnx.ModelProto, model: convdsl.Model) -> tuple[Arrays, Arrays]:
    """Drawn inputs, and what onnxruntime makes of them."""
    rng = np.random.default_rng(0)
    arrays = []
    for type in model.inputs.values():
        shape = [d if isinstance(d, int) else 2 for d in type.shape]
        arrays.append(rng.standard_normal(shape).astype(type.dtype.numpy))
    stored = {tensor.name for tensor in proto.graph.initializer}
    names = [info.name for info in proto.graph.input if info.name not in stored]
    return arrays, list(run_onnxruntime(proto, dict(zip(names, arrays, strict=True))).values())


def check(proto: onnx.ModelProto, data: list[tuple[Arrays, Arrays]]) -> None:
    model = model_of(proto, "net.onnx", {})
    text, weights = exporting.translate(model)
    again = convdsl.parse(text)
    network = convdsl.compile(again, load_weights(weights), threads=1, cache=False)
    for inputs, expected in data or [asked(proto, model)]:
        result = network(*map(np.asarray, inputs))
        found = list(result.values()) if isinstance(result, dict) else [result]
        for got, wanted in zip(found, expected, strict=True):
            assert got.shape == wanted.shape
            scale = max(float(np.nanmax(np.abs(wanted), initial=0)), 1e-3)
            np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-4 * scale)


@pytest.mark.dear
@pytest.mark.drawn(share=2)
@pytest.mark.parametrize("source", SHARE)
def test_files_as_text(source):
    count = -(-SHARE[source] * WANTED // sum(SHARE.values()))
    every = max(1, SHARE[source] // count)
    wrong: list[str] = []
    for number, (name, proto, data) in enumerate(files(source)):
        if number % every:
            continue
        try:
            check(proto, data)
        except Exception as error:  # noqa: BLE001  all of them are told at once
            wrong.append(f"{name}: {type(error).__name__}: {str(error).strip()[:300]}")
    assert not wrong, "\n".join(wrong)
