"""Nodes of every kind, sizes free and bound, passes on and off: onnxruntime's answer, or a refusal.

A few in CI, 2,000 with `CONVDSL_DRAWN_NODES=2000`.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

import convdsl
from convdsl.interop.onnx_load import model_of
from convdsl.passes import PASSES
from interop.drawn_nodes import Node, draw_node
from interop.runtimes import run_onnxruntime
from interop.versions import versions

NODES = int(os.environ.get("CONVDSL_DRAWN_NODES", "80"))
OPSETS = (11, 17, 21)


def freed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Every size of every input left open."""
    free = onnx.ModelProto.FromString(proto.SerializeToString())
    for info in free.graph.input:
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            dim.dim_param = f"{info.name}{axis}"
    return free


def answer(proto: onnx.ModelProto, node: Node, passes: Any) -> list[np.ndarray] | str:
    try:
        model = model_of(proto, "net", {})
        result = convdsl.compile(model, threads=1, passes=passes, cache=False)(
            *node.arrays.values()
        )
    except convdsl.Error as error:
        return str(error)
    found = result if isinstance(result, dict) else {"y0": result}
    return [found[f"y{number}"] for number in range(node.outputs)]


@pytest.mark.dear
@pytest.mark.parametrize("opset", OPSETS)
def test_free_is_bound_is_onnxruntime(opset, record_property):
    """Refusals are counted by operator; bound there are none."""
    kinds = sorted(k for k, numbers in versions().items() if min(numbers) <= opset)
    refused: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in range(NODES // len(OPSETS)):
        kind = kinds[(seed * 7 + opset) % len(kinds)]
        node = draw_node(kind, opset, 500 + seed)
        proto = node.proto(opset)
        try:
            expected = list(run_onnxruntime(proto, node.arrays).values())
        except Exception:  # noqa: BLE001  it has its own errors for what it does not run
            continue
        ways = [(proto, PASSES), (proto, ()), (freed(proto), PASSES)]
        answers = [answer(way, node, passes) for way, passes in ways]
        for number, found in enumerate(answers):
            if isinstance(found, str):
                refused[kind] += 1
                if number < 2:
                    wrong.append(f"{kind}-{opset} {seed} {node.attributes}: {found[:200]}")
                continue
            for got, want in zip(found, expected, strict=True):
                wanted = np.asarray(want)
                same = got.shape == wanted.shape and got.dtype == wanted.dtype
                if not same or not np.allclose(got, wanted, 1e-3, 1e-4, equal_nan=True):
                    wrong.append(f"{kind}-{opset} {seed} {node.attributes}, way {number}")
    record_property("refused", dict(refused))
    print(opset, dict(refused))
    assert not wrong, "\n".join(wrong)
