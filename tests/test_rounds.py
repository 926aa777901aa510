"""A batch in rounds: the same results, and when it is worth it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.bound import bind_weights_of
from convdsl.compilation import Plan
from convdsl.kernel.interpret import interpret_program
from convdsl.kernel.program import format_program
from convdsl.kernel.verify_program import ProgramError, verify_program
from convdsl.runtime.cpu.code import aligned
from convdsl.schedules.cpu import machine
from convdsl.schedules.cpu.batches import layers_of
from convdsl.tensor import DType
from convdsl.toolchain import FEWER_PRODUCTS, find_toolchain

NETWORK = """
model m {
    input x: f32[N, 3, 11, 13]
    input scale: f32[N, 5]
    a = x -> conv(10, 3) -> relu
    b = a -> conv(10, 3) -> batchnorm + a -> maxpool(2, stride = 2)
    c = b -> avgpool(global) -> flatten -> linear(5)
    c * scale -> output y
    b -> conv(4, 1) -> output maps
}
"""
MIXING = """
model m {
    input x: f32[N, 4]
    x - mean(x, axes = 0, keepdims = true) -> output y
}
"""


@pytest.fixture
def two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if that were best for every network."""
    monkeypatch.setattr(machine, "samples_at_once", lambda *_: 2)


def feeds(samples: int) -> dict[str, Any]:
    """With a sample that is not finite: it stays alone."""
    random = np.random.default_rng(samples)
    x = random.standard_normal((samples, 3, 11, 13)).astype("f4")
    x[1, 0, 4, 4], x[-1, 2, 0, 0] = np.nan, np.inf
    return {"x": x, "scale": random.standard_normal((samples, 5)).astype("f4")}


def plan() -> Plan:
    return Plan(convdsl.parse(NETWORK), find_toolchain())


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("threads", [1, 2])
def test_rounds_say_what_samples_alone_say(two_at_once: None, threads: int) -> None:
    given = feeds(6)
    model = convdsl.parse(NETWORK)
    whole = convdsl.compile(model, "random:3", threads=threads, batch=6, cache=False)
    alone = convdsl.compile(model, "random:3", batch=1, cache=False)
    found = whole(**given)
    for sample in range(6):
        wanted = alone(**{name: array[sample : sample + 1] for name, array in given.items()})
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name][sample : sample + 1], array, 1e-5, 1e-5)


@pytest.mark.dear
def test_the_interpreter_agrees(two_at_once: None) -> None:
    """And the program says how often its steps run."""
    lowered = plan().lower({"N": 4})
    program = lowered.program
    assert program.rounds == 2
    assert "2 rounds" in format_program(program)
    assert [port.type.sizes[0] for port in (*program.inputs, *program.outputs)] == [4] * 4
    arrays = bind_weights_of(convdsl.parse(NETWORK), "random:3")
    weights = aligned(program.weight_bytes)
    lowered.pack_weights(arrays, weights)
    given = feeds(4)
    interpreted = interpret_program(program, weights, [given[p.name] for p in program.inputs])
    run = convdsl.compile(convdsl.parse(NETWORK), "random:3", batch=4, cache=False)(**given)
    for port, array in zip(program.outputs, interpreted, strict=True):
        np.testing.assert_allclose(array, run[port.name], 1e-5, 1e-5)


def test_memory_is_that_of_a_round(two_at_once: None) -> None:
    assert plan().lower({"N": 16}).program.arena_bytes == plan().lower({"N": 2}).program.arena_bytes


def test_what_a_program_in_rounds_may_not_be(two_at_once: None) -> None:
    program = plan().lower({"N": 4}).program
    with pytest.raises(ProgramError, match="rounds of"):
        verify_program(replace(program, rounds=3))


@pytest.mark.dear(share=4)
def test_code_is_kept_and_saved(
    two_at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found again in the cache, and in an artifact of one size or several."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    given = feeds(4)
    model = convdsl.parse(NETWORK)
    first = convdsl.compile(model, "random:3", batch=4)
    again = convdsl.compile(model, "random:3", batch=4)
    first.save(tmp_path / "one.cdsl", N=4)
    first.save(tmp_path / "both.cdsl", N=(1, 4))
    wanted = first(**given)
    loaded = [convdsl.load_executable(tmp_path / name) for name in ("one.cdsl", "both.cdsl")]
    for run in (again, *loaded):
        for name, array in run(**given).items():
            np.testing.assert_array_equal(array, wanted[name])


def test_samples_that_depend_on_each_other_are_met_at_once(two_at_once: None) -> None:
    lowered = Plan(convdsl.parse(MIXING), find_toolchain()).lower({"N": 8})
    assert lowered.program.rounds == 1


def at_once(layers: str, batch: int, threads: int = 1, *, without: tuple[str, ...] = ()) -> int:
    model = convdsl.parse(f"model m {{\n input x: {layers} -> output y\n}}\n")
    machine = find_toolchain("cpu", V3).without(*without).machine
    return machine.samples_at_once(model.graph.bind({"N": 1}), batch, threads)


V3 = "x86-64-v3"
MAPS = "f32[N, 16, 112, 112]\n x -> conv(96, 1) -> relu -> conv(96, 3, groups = 96) -> conv(16, 1)"


def test_maps_that_leave_the_caches_are_met_in_rounds() -> None:
    assert at_once(MAPS, 16) < 4
    assert at_once(MAPS, 1) == 1
    assert at_once(MAPS, 7) == 1  # rounds are alike


def test_what_stays_in_the_caches_is_met_at_once() -> None:
    assert at_once("f32[N, 16, 14, 14]\n x -> conv(96, 1) -> conv(16, 1)", 16) == 16


def test_weights_that_are_all_of_it_are_met_once() -> None:
    assert at_once("f32[N, 3, 200, 200]\n x -> flatten -> linear(4000)", 64) == 64


DEEP = "f32[N, 64, 56, 56]\n x -> conv(64, 3) -> conv(512, 3, stride = 4) -> conv(512, 3)"


def test_fewer_products_count_where_they_may_be_taken() -> None:
    """Beside less arithmetic it tells more where values come from."""
    assert at_once(DEEP, 16) < at_once(DEEP, 16, without=FEWER_PRODUCTS)


def test_a_team_has_more_to_share_out() -> None:
    """And more caches: it meets as many samples as one thread, or more."""
    assert at_once(MAPS, 16) < at_once(MAPS, 16, 64)


@pytest.mark.parametrize(
    "layer",
    [
        "conv(32, 3)",
        "conv(32, 3, stride = 2)",
        "conv(32, 5)",
        "conv(32, 1x7)",
        "conv(32, 9)",
        "conv(32, 1)",
        "conv(32, 3, dilation = 2)",
        "conv(32, 3, groups = 2)",
        "conv(32, 3, groups = 32)",
        "conv_transpose(32, 3, pad = 1)",
    ],
)
def test_what_has_forms_is_what_winograd_bids_for(layer: str) -> None:
    text = f"model m {{\n input x: f32[1, 32, 24, 24]\n x -> {layer} -> output y\n}}\n"
    model, chain = convdsl.parse(text), find_toolchain("cpu", V3)
    bids = {name for choice in Plan(model, chain).lower({}).choices for name, _ in choice.bids}
    layers = layers_of(model.graph, chain.target.lanes(DType.F32), True)
    assert [len(layer.ways) > 1 for layer in layers] == ["winograd" in bids]
