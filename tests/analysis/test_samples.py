"""Samples that are said to be apart are: of each the same bits, whatever the others are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.analysis.samples import samples_are_apart
from convdsl.ir.model import Model

X = "input x: f32[N, 4]\n x"
APART = {
    "convolution": "input x: f32[N, 3, 8, 8]\n x -> conv(4, 3x3) -> maxpool(2) -> output y",
    "any size": "input x: f32[N, 3, H, W]\n x -> conv(4, 3x3) -> avgpool(global) -> output y",
    "attention": "input x: f32[N, 5, 8]\n matmul(x, transpose(x, [0, 2, 1])) -> output y",
    "normalised": "input x: f32[N, 4, 6]\n x -> layer_norm -> output y",
    "two": "input a: f32[N, 4]\n input b: f32[N, 4]\n concat(a, b, axis = 1) -> output y",
    "token": "input x: f32[N, 4, 8]\n let t = parameter(shape = 1x1x8)\n x + t -> output y",
    "softmax": f"{X} -> softmax(axis = 1) -> output y",
    "B for batch": "input x: f32[B, 4]\n x -> relu -> output y",
    "positions": f"{X} -> cumsum(axis = 1) -> output y",
}
MIXED = {
    "mean": f"{X} - mean(x, [0], keepdims = true) -> output y",
    "softmax": f"{X} -> softmax(axis = 0) -> output y",
    "sums": f"{X} -> cumsum(axis = 0) -> output y",
    "products": "input x: f32[N, 4]\n matmul(x, transpose(x, [1, 0])) -> output y",
    "turned": f"{X} -> transpose([1, 0]) -> output y",
    "whole": f"{X} -> mean(all) -> output y",
    "fixed": "input x: f32[4, 4]\n x -> relu -> output y",
    "one of two": f"{X} -> output y\n input z: f32[3, 4]\n z -> relu -> output w",
    "twice": "input x: f32[N, N]\n x -> relu -> output y",
    "two batches": "input x: f32[N, 4]\n input z: f32[B, 4]\n x -> output y\n z -> output w",
    "elsewhere": "input x: f32[4, N]\n x -> relu -> output y",
}


def model(body: str) -> Model:
    return convdsl.parse(f"model m {{\n{body}\n}}")


@pytest.mark.dear
@pytest.mark.parametrize("name", APART)
def test_apart(name: str) -> None:
    made = model(APART[name])
    assert samples_are_apart(made)
    run = convdsl.compile(made, "random:0", threads=1)
    draw = np.random.default_rng(0)

    def drawn() -> list[Any]:
        sizes = {"N": 3, "B": 3, "H": 9, "W": 7}
        return [
            draw.standard_normal(
                [e if isinstance(e, int) else sizes[str(e)] for e in t.shape], "f4"
            )
            for t in made.inputs.values()
        ]

    given = drawn()
    wanted = run(*given)
    for kept in range(3):
        others = drawn()
        others[0][(kept + 1) % 3] = np.nan
        for mine, other in zip(given, others, strict=True):
            other[kept] = mine[kept]
        np.testing.assert_array_equal(run(*others)[kept], wanted[kept])


@pytest.mark.parametrize("name", MIXED)
def test_mixed(name: str) -> None:
    assert not samples_are_apart(model(MIXED[name]))


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v2", "vit_b_32", "unet", "googlenet"])
def test_published_networks_are_apart(name: str) -> None:
    assert samples_are_apart(convdsl.load(name))


def test_artifacts_know(tmp_path: Path) -> None:
    for name, body in {"apart": APART["softmax"], "mixed": MIXED["softmax"]}.items():
        run = convdsl.compile(model(body))
        run.save(tmp_path / "m.cdsl", N=2)
        run.save(tmp_path / "several.cdsl", N=(1, 2))
        for file in ("m.cdsl", "several.cdsl"):
            assert convdsl.load_executable(tmp_path / file).samples_apart is (name == "apart")
