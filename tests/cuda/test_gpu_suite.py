"""The suite for cards, a little of it, on a card that is not there: that it runs at all, and finds
what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda.fake_driver import Fake
from gpu import test_networks as networks
from gpu import test_operators as operators

from benchmarks import gpu
from convdsl.ops import BY_NAME

pytestmark = pytest.mark.ladder(share=6)  # seconds each

TINY = """
model tiny {
    input image: f32[N, 1, 6, 6]
    image -> conv(4, 3x3) -> relu -> flatten -> linear(3) -> output logits
}
"""


@pytest.mark.dear
@pytest.mark.parametrize("name", ["conv", "softmax", "where"])
def test_operators(fake: Fake, name: str) -> None:
    operators.test_forward(BY_NAME[name])
    assert fake.card.count("launch")


def test_gradients_and_updates(fake: Fake) -> None:
    operators.test_gradients(BY_NAME["layer_norm"])
    operators.test_update("adamw")


@pytest.mark.dear
def test_a_network(fake: Fake) -> None:
    networks.test_a_step_of_training("lenet", "highest")


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_network_of_the_zoo(fake: Fake, precision: str) -> None:
    networks.test_the_zoo("lenet5", 1, precision)


def test_it_finds_what_is_wrong(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_a_little(array: np.ndarray) -> np.ndarray:
        return (array + np.float32(0.01)).astype(array.dtype)

    from cuda import fake_driver

    plain = fake_driver.ndarray.get
    monkeypatch.setattr(
        fake_driver.ndarray, "get", lambda self, stream=None: off_by_a_little(plain(self, stream))
    )
    with pytest.raises(AssertionError):
        operators.test_forward(BY_NAME["softmax"])


@pytest.mark.dear
def test_the_benchmark(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Its own peer, of a small network; who cannot run is told with the reason."""
    monkeypatch.setattr(gpu, "WARM", 0.0)
    monkeypatch.setattr(gpu, "SLICE", 0.0)
    network = tmp_path / "tiny.cnn"
    network.write_text(TINY)
    monkeypatch.setitem(gpu.SHAPES, str(network), (1, 6, 6))
    monkeypatch.setitem(sys.modules, "torch", None)
    small = ["--models", str(network), "--batches", "2", "--seconds", "0", "--json"]
    for more in ([], ["--training"]):
        path = tmp_path / "found.json"
        assert gpu.main([*small, str(path), "--precisions", "highest", *more]) == 0
        (row,) = json.loads(path.read_text())["rows"]
        assert row["peers"]["convdsl"]["min ms"] > 0
        assert 0 < row["peers"]["convdsl"]["share"] < 1
        assert "torch" in row["cannot"]
    assert "tiny.cnn" in capsys.readouterr().out


@pytest.mark.dear
def test_what_a_bare_machine_must_have() -> None:
    """The suite and the benchmark load without the packages that a machine with a card may lack,
    compiled ones among them."""
    lacking = (
        "safetensors",
        "rich",
        "rich_argparse",
        "shtab",
        "hypothesis",
        "onnx",
        "scipy",
        "PIL",
    )
    script = f"""
import sys
sys.modules.update(dict.fromkeys({lacking!r}))
import benchmarks.gpu, gpu.test_networks, gpu.test_operators, gpu.test_arrays, convdsl
convdsl.compile("lenet5", "random:0", cache=False, inputs=(1, 32, 32))
convdsl.export("lenet5", to="pytorch")
"""
    root = Path(gpu.__file__).parent.parent
    path = f"{root}:{root / 'tests'}"
    subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, check=True
    )
