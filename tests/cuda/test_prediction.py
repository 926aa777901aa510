"""Predicted times of kernels on cards, against figures worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cuda.fake_driver import Card, compile_source, there_is

import convdsl
from convdsl.analysis.machine import MACHINES
from convdsl.backends.cuda.disassembly import disassemble, main_loop
from convdsl.backends.cuda.nvrtc import Resources
from convdsl.cli import main
from convdsl.compilation import Plan
from convdsl.kernel.cuda_module import Launch
from convdsl.kernel.cuda_target import ARCHITECTURES
from convdsl.measure import card_prediction
from convdsl.measure.card_prediction import Made, blocks_held, predict_on_card
from convdsl.measure.card_timing import ROUNDS, TIMES
from convdsl.schedules.cuda.winograd_plan import winograd_for
from convdsl.toolchain import find_toolchain

pytestmark = pytest.mark.ladder(share=6)  # seconds each

NET = """
model net {
    input x: f32[N, 32, 28, 28]
    x -> conv(64, 3x3) -> relu -> max_pool(2x2) -> softmax(axis = 1)
      -> flatten -> linear(7) -> output y
}
"""


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "blocks"),
    [  # the limits of the programming guide, by hand
        ("sm_90", 256, 32, 0, 8),  # threads: 2048 / 256
        ("sm_90", 256, 64, 0, 4),  # registers: 65536 / (64 * 256)
        ("sm_90", 256, 65, 0, 3),  # a warp is given 256 at once: 72 * 256
        ("sm_80", 128, 32, 40 << 10, 4),  # shared memory: 164 KB / 41 KB
        ("sm_75", 128, 32, 32 << 10, 2),  # 64 KB / 32 KB, nothing reserved
        ("sm_86", 32, 16, 0, 16),  # blocks of a multiprocessor
        ("sm_90", 1024, 255, 0, 1),
    ],
)
def test_blocks_held(arch: str, threads: int, registers: int, shared: int, blocks: int) -> None:
    launch = Launch("f", (1, 1, 1), (threads, 1, 1), 0, (), ())
    held = blocks_held(launch, Resources(registers, 0, 0, shared), ARCHITECTURES[arch])
    assert held == blocks


def test_the_main_loop() -> None:
    text = """
.text.f:
        /*0000*/                   FFMA R0, R1, R2, R3 ;
.L_x_1:
        /*0010*/                   LDS R1, [R2] ;
.L_x_2:
        /*0020*/              @!P0 FFMA R0, R1, R2, R3 ;
        /*0030*/                   FFMA R0, R1, R2, R3 ;
        /*0040*/               @P0 BRA `(.L_x_2) ;
        /*0050*/               @P1 BRA `(.L_x_1) ;
        /*0060*/               @P1 BRA `(.L_x_3) ;
.L_x_3:
        /*0070*/                   EXIT ;
"""
    loop = main_loop(text, "f", ("FFMA",))
    assert [line.split()[0] for line in loop] == ["FFMA", "FFMA", "BRA"]
    assert len(main_loop(text, "f", ("HMMA",))) == 8


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("card", [name for name, machine in MACHINES.items() if machine.arch])
def test_no_kernel_is_faster_than_the_data_sheet(card: str) -> None:
    machine = MACHINES[card]
    chain = find_toolchain("cuda", machine.arch)
    lowered = Plan(convdsl.parse(NET), chain).lower({"N": 4})
    found = predict_on_card(Made.of(lowered, chain.target), machine)
    for one in found:
        assert 0 < one.fill <= 1
        assert 0 < one.issue <= 1
        assert one.seconds >= one.bytes / machine.bandwidth
        assert one.seconds >= one.flops / machine.operations
    assert {node for one in found for node in one.launch.nodes} >= {"conv", "relu", "softmax"}


DIRECT = 2 * 16 * 64 * 64 * 9 * 28 * 28
ONE_CONVOLUTION = """
model net {
    input x: f32[N, 64, 28, 28]
    x -> conv(64, 3x3, bias = false) -> output y
}
"""


@pytest.mark.parametrize("winograd", [True, False])
def test_operations_are_those_that_are_done(winograd: bool) -> None:
    """Of F(2,3) x F(2,3) to F(6,3) x F(6,3) a part of the direct ones; tiles that reach over the
    edges more."""
    chain = find_toolchain("cuda", "sm_90").without(*(() if winograd else ("winograd",)))
    lowered = Plan(convdsl.parse(ONE_CONVOLUTION), chain).lower({"N": 16})
    found = predict_on_card(Made.of(lowered, chain.target), MACHINES["h100"])
    products = max(found, key=lambda one: one.flops)
    if not winograd:
        assert DIRECT <= products.flops < 1.1 * DIRECT
        return
    task = next(choice.task for choice in lowered.choices if choice.schedule == "winograd")
    made = winograd_for(task, chain.target)
    assert made is not None
    multiplied = 2 * made.matrices * made.tiling.count * made.channels * made.filters
    assert multiplied <= products.flops < 1.2 * multiplied < DIRECT / 2
    transforms = sum(one.flops for one in found if one is not products)
    assert 0 < transforms < products.flops


@pytest.mark.dear
def test_the_command(tmp_path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "net.cnn"
    path.write_text(NET)
    shared = ["report", str(path), "--target", "cuda"]
    assert main([*shared, "--machine", "a100", "--format", "json"]) == 0
    said = capsys.readouterr()
    assert {"layers", "kernel", "predicted us", "registers"} <= json.loads(said.out)[0].keys()
    assert "a prediction from code for sm_80, not a measurement" in said.err
    for more, why in (
        ([], "--target cuda goes with --machine: t4, a100"),
        (["--machine", "v100"], "v100 is no card that code is made for"),
        (["--machine", "t4", "--precision", "high"], "sm_75 multiplies no TF32"),
    ):
        assert main([*shared, *more]) == 2
        assert why in capsys.readouterr().err.replace("\n", " ")


def test_a_card_that_is_here_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the prediction: every kernel, in a graph of many. What runs is the source, so that the
    machine code that is read is another compilation's."""
    path = tmp_path / "net.cnn"
    path.write_text(NET)
    shared = ["report", str(path), "--target", "cuda", "--format", "json"]
    chain = find_toolchain("cuda", "sm_90")
    made = Made.of(Plan(convdsl.parse(NET), chain).lower({"N": 1}), chain.target)
    text, resources = disassemble(made.compiled.cubin), made.compiled.resources
    with there_is(Card()) as fake:
        monkeypatch.setattr(card_prediction, "disassemble", lambda _: text)
        monkeypatch.setattr(
            card_prediction,
            "compile_source",
            lambda source, arch: replace(compile_source(source, arch), resources=resources),
        )
        assert main([*shared, "--machine", "h100"]) == 0
        said = capsys.readouterr()
        rows = json.loads(said.out)
        assert all(row["measured us"] > 0 for row in rows)
        assert "measured on Fake card (cuda:0):" in said.err
        assert fake.card.count(f"captured {TIMES}") == len(rows)
        assert fake.card.count("graph") == ROUNDS * len(rows)
        fake.card.arch = "sm_80"
        assert main([*shared, "--machine", "h100"]) == 0
        said = capsys.readouterr()
        assert "not measured: the card here, Fake card, is sm_80" in said.err
        assert "measured us" not in json.loads(said.out)[0]
        fake.card.arch, name = "sm_90", rows[0]["kernel"]
        fake.card.broken[name] = "cudaErrorIllegalAddress"
        assert main([*shared, "--machine", "h100"]) == 2
        assert "cuda:0 has failed: cudaErrorIllegalAddress" in capsys.readouterr().err
