"""make bench: which networks and peers there are, and the least time that a network can take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Builder

import convdsl
from benchmarks import __main__ as bench
from benchmarks.bound import bound_seconds
from benchmarks.layers import apart
from benchmarks.peers import PEERS, missing
from convdsl.measure.machine import Figures

MACHINE = Figures(flops=1e9, memory_bytes=1e9, l2_bytes=1e15, l3_bytes=1e12)


def conv(kernel: int, stride: int = 1, groups: int = 1, size: int = 16) -> float:
    """The bound of one convolution, 8 to 8 channels."""
    b = Builder()
    x = b.input("x", 1, 8, size, size)
    made = b("conv", x, channels=8, kernel=kernel, stride=stride, groups=groups, bias=False)
    return bound_seconds(b.output(y=made), MACHINE, 1)


def test_what_decides() -> None:
    """Multiply-adds, a fourth of them where Winograd's forms apply; else the weights' bytes."""
    assert conv(1) == pytest.approx(2 * 8 * 8 * 256 / 1e9)
    assert conv(3) == pytest.approx(2 * 8 * 8 * 9 * 256 / 4 / 1e9)
    assert conv(3, stride=2) == pytest.approx(2 * 8 * 8 * 9 * 64 / 1e9)
    assert conv(3, groups=8) == pytest.approx(2 * 8 * 9 * 256 / 1e9)
    assert conv(5, size=1) == pytest.approx(4 * 8 * 8 * 25 / 1e9)


def test_elementwise_work_is_free_where_it_is_near() -> None:
    b = Builder()
    graph = b.output(y=b("relu", b.input("x", 1, 8, 4, 4)))
    assert bound_seconds(graph, MACHINE, 1) == 0


@pytest.mark.dear
@pytest.mark.parametrize("line", bench.networks())
def test_networks(line: str) -> None:
    name, model = bench.load(line)
    assert name
    assert len(model.inputs) == 1
    assert "class " in convdsl.export(model, to="pytorch").decode()


def test_settings_follow_a_name() -> None:
    name, model = bench.load("resnet18 classes=7")
    assert name == "resnet18-classes=7"
    (logits,) = model.outputs.values()
    assert logits.shape[1] == 7


def test_what_is_not_installed_is_known() -> None:
    assert missing("convdsl") == missing("onnxruntime") == []
    assert set(PEERS) >= {"openvino", "torch", "torch-compiled", "ncnn", "mnn"}


def test_the_fastest_peer_is_not_convdsl() -> None:
    rows = [{"peer": p, "median ms": ms} for p, ms in (("convdsl", 1), ("a", 3), ("b", 2))]
    assert bench.fastest(rows)["peer"] == "b"


def test_a_peer_that_ends_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fake:
        def __init__(self, peer: str, *_: object) -> None:
            self.peer = peer

        def ask(self, do: str) -> dict[str, float]:
            if self.peer in ended:
                raise bench.Ended("ended")
            return {f"{do} s": 1.0}

    monkeypatch.setattr(bench, "Worker", Fake)
    ended = {"ncnn"}
    workers, firsts = bench.started(tmp_path, "net", ["convdsl", "ncnn", "mnn"], 1)
    assert list(workers) == list(firsts) == ["convdsl", "mnn"]
    assert capsys.readouterr().out == "net: ncnn cannot run it and is left out\n"
    ended = {"convdsl"}
    with pytest.raises(bench.Ended):
        bench.started(tmp_path, "net", ["convdsl"], 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ([1.0, 3.0], [1.0, 3.5], 0.2),
        ([np.inf, 1.0, np.nan], [np.inf, 1.0, np.nan], 0.0),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([np.nan, 1.0], [2.0, 1.0], np.inf),
        ([2.0, 1.0], [np.nan, 1.0], np.inf),
        ([np.inf], [2.0], np.inf),
        ([], [], 0.0),
        ([1.0], [1.0, 2.0], np.inf),
    ],
)
def test_how_far_results_are_apart(ours: list[float], theirs: list[float], wanted: float) -> None:
    """Infinities that are the same are no distance, and none of them hides what is."""
    assert apart(np.float32(ours), np.float32(theirs)) == pytest.approx(wanted)
