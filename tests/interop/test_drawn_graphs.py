"""Graphs of several nodes, sizes free and bound, passes on and off: onnxruntime's answer.

A few in CI, 2,000 with `CONVDSL_DRAWN_GRAPHS=2000`; `CONVDSL_DRAWN_FROM` is the first seed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import convdsl
from convdsl.interop.onnx_load import model_of
from convdsl.passes import PASSES
from interop.drawn_graphs import Drawn, draw_graph
from interop.runtimes import run_onnxruntime
from interop.test_drawn_nodes import OPSETS, freed
from interop.versions import versions

GRAPHS = int(os.environ.get("CONVDSL_DRAWN_GRAPHS", "12"))
FIRST = int(os.environ.get("CONVDSL_DRAWN_FROM", "0"))

BUG = "a bug:"
HUGE = 2.0**31
"""Coordinates from here on are no integers of onnxruntime's."""
APART = {
    "MeanVarianceNormalization": "onnxruntime divides variances of zero by zero",
    "Pow": "of integers may be NaN, which is the integer 0 here, the smallest in onnxruntime",
}

Arrays = Mapping[str, np.ndarray]


def answer(proto: onnx.ModelProto, arrays: Arrays, passes: Any) -> Arrays | str:
    try:
        model = model_of(proto, "net", {})
        executable = convdsl.compile(model, threads=1, passes=passes, cache=False)
        return executable.by_name(**{name: arrays[name] for name in model.inputs})
    except convdsl.Error as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  a bug, told with the graph that shows it
        return f"{BUG} {error!r}"


def spread(proto: onnx.ModelProto, drawn: Drawn, expected: Arrays) -> dict[str, np.ndarray]:
    """How far onnxruntime's own answer moves where inputs move by two parts in 10^7."""
    rng = np.random.default_rng(0)
    moved = {name: np.zeros(a.shape) for name, a in expected.items()}
    for _ in range(3):
        near = {
            n: np.asarray(a * (1 + 2e-7 * rng.choice([-1, 1], a.shape)).astype(a.dtype))
            if a.dtype.kind == "f" else a
            for n, a in drawn.inputs.items()
        }  # fmt: skip
        for name, array in run_onnxruntime(proto, near).items():
            if array.shape != moved[name].shape:
                moved[name] = np.full(moved[name].shape, np.inf)
            elif array.dtype.kind == "f":
                with np.errstate(all="ignore"):
                    by = np.abs(array.astype("f8") - expected[name])
                same = (array == expected[name]) | (np.isnan(array) & np.isnan(expected[name]))
                moved[name] = np.maximum(
                    moved[name], np.where(same, 0, np.nan_to_num(by, nan=np.inf))
                )
            else:
                moved[name] = np.where(array == expected[name], moved[name], np.inf)
    return moved


def close(found: np.ndarray, wanted: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Where a value is the one wanted, within rounding that grew as inputs' rounding grows."""
    if wanted.dtype.kind != "f":
        return (found == wanted) | (moved > 0)
    with np.errstate(all="ignore"):
        near = np.abs(found.astype("f8") - wanted) <= 1e-4 + 1e-3 * np.abs(wanted) + 50 * moved
    # Clip without a limit leaves infinities here and in the reference, not in onnxruntime.
    limit = np.finfo(wanted.dtype).max
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    same |= np.isinf(found) & (wanted == np.copysign(limit, found))
    return same | (near & np.isfinite(wanted)) | np.isinf(moved)


def differences(proto: onnx.ModelProto, drawn: Drawn, found: Arrays, expected: Arrays) -> list[str]:
    """Outputs that are neither onnxruntime's nor the reference's."""
    wrong: list[str] = []
    moved: dict[str, np.ndarray] = {}
    for name, wanted in expected.items():
        got = found[name]
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            wrong.append(f"{name} is {got.dtype}{got.shape}, not {wanted.dtype}{wanted.shape}")
            continue
        if close(got, wanted, np.zeros(wanted.shape)).all():
            continue
        moved = moved or spread(proto, drawn, expected)
        good = close(got, wanted, moved[name])
        if not good.all() and (other := reference(proto, drawn.inputs).get(name)) is not None:
            good = good | close(got, other, moved[name]) if other.shape == got.shape else good
        if not good.all():
            at = tuple(np.argwhere(~good)[0])
            wrong.append(f"{name}{at} is {got[at]}, not {wanted[at]}")
    return wrong


def apart_alone(drawn: Drawn) -> list[str]:
    """Kinds of the nodes that differ from onnxruntime alone, with a reason that is known.

    Maxima pass NaN on here, as PyTorch's do, and in onnxruntime they do not; far away and at
    infinity it does not sample as PyTorch, and its sliding sums meet infinities. Where the
    reference has our value, its own is its own matter. What follows such a node follows it.
    """
    kinds: list[str] = []
    for node, proto, given in drawn.alone():
        expected, found = run_onnxruntime(proto, given), answer(proto, given, PASSES)
        if isinstance(found, str):
            continue
        floats = [array for array in given.values() if array.dtype.kind == "f"]
        special = any(not (np.abs(array) < HUGE).all() for array in floats)
        special |= node.op_type in APART
        other = reference(proto, given)
        for name, wanted in expected.items():
            none = np.zeros(wanted.shape)
            if close(found[name], wanted, none).all():
                continue
            same = name in other and other[name].shape == wanted.shape
            if special or (same and close(found[name], other[name], none).all()):
                kinds.append(node.op_type)
    return kinds


def operator_of(refusal: str) -> str:
    """Refusals name the node: `net: node 1 (Conv): conv needs ...`."""
    found = re.search(r"node \d+ \((\w+)\)", refusal)
    return found[1] if found else refusal[:60]


def reference(proto: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """The ONNX project's own evaluation, where it has one: it and onnxruntime differ at NaN."""
    try:
        with np.errstate(all="ignore"):
            made = ReferenceEvaluator(proto).run(None, dict(inputs))
    except Exception:  # noqa: BLE001  whatever NumPy raises
        return {}
    names = [output.name for output in proto.graph.output]
    return {n: np.asarray(a) for n, a in zip(names, made, strict=True)}


@pytest.mark.dear
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", OPSETS)
def test_graphs_are_onnxruntime(opset, record_property):
    """With passes, without, and with sizes left open: refusals there are counted by operator."""
    kinds = sorted(k for k, numbers in versions().items() if min(numbers) <= opset)
    refused: Counter[str] = Counter()
    apart: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in range(FIRST, FIRST + GRAPHS // len(OPSETS)):
        drawn = draw_graph(kinds, opset, seed)
        proto = drawn.proto()
        try:
            expected = run_onnxruntime(proto, drawn.inputs)
        except Exception:  # noqa: BLE001  fused, some nodes are too much for it
            continue
        ways = [(proto, PASSES), (proto, ()), (freed(proto), PASSES)]
        for number, (way, passes) in enumerate(ways):
            found = answer(way, drawn.inputs, passes)
            what = f"opset {opset}, seed {seed}, way {number}, {' '.join(drawn.kinds)}"
            if not isinstance(found, str):
                told = differences(proto, drawn, found, expected)
                if told and (alone := apart_alone(drawn)):
                    apart.update(alone)
                else:
                    wrong += [f"{what}: {text}" for text in told]
            elif number < 2 or found.startswith(BUG):
                wrong.append(f"{what}: refused: {found[:300]}")
            else:
                refused[operator_of(found)] += 1
    record_property("refused", dict(refused))
    print(opset, dict(refused), "apart from onnxruntime alone already:", dict(apart))
    assert not wrong, "\n".join(wrong)
