"""A free size is the batch when it is called one, as exporters do, not by the letter N alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convdsl
from convdsl.cli import main
from convdsl.diagnostics import InputError
from convdsl.kernel.signature import batch_symbol, one_sample, samples_of


def network(symbol: str) -> str:
    return (
        f"model net {{ input x: f32[{symbol}, 2, 6, 6]\n"
        "x -> conv(4, 3x3) -> relu -> flatten -> linear(3) -> output logits }\n"
    )


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["N", "H"], "N"),
        (["batch", "N"], "N"),
        (["H", "batch"], "batch"),
        (["batch_size", "seq"], "batch_size"),
        (["B"], "B"),
        (["bs"], "bs"),
        (["images_batch"], "images_batch"),
        (["Batch"], "Batch"),
        (["T", "H", "W"], None),
        (["batches_seen", "nb"], None),
        ([], None),
    ],
)
def test_which_size_is_the_batch(names: list[str], wanted: str | None) -> None:
    assert batch_symbol(names) == wanted
    binding: dict[str, int] = {}
    one_sample(binding, names)
    assert binding == ({} if wanted is None else {wanted: 1})
    assert samples_of(binding) == (None if wanted is None else 1)


@pytest.mark.dear
@pytest.mark.parametrize("symbol", ["batch", "batch_size", "B"])
def test_commands_take_it(symbol: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.cnn").write_text(network(symbol))
    said: dict[str, str] = {}
    for name, words in {
        "report": ["report", "net.cnn", "--batch", "2"],
        "open": ["report", "net.cnn"],
        "run": ["run", "net.cnn", "--weights", "random:0", "--data", "random:1", "--batch", "2"],
        "compile": [
            "compile",
            "net.cnn",
            "--weights",
            "random:0",
            "--batch",
            "1,8",
            "-o",
            "a.cdsl",
        ],
        "artifact": ["run", "a.cdsl", "--data", "random:1", "--batch", "8", "-o", "y.npy"],
        "one": ["compile", "net.cnn", "--weights", "random:0", "-o", "b.cdsl"],
        "explain": ["compile", "net.cnn", "--explain"],
        "loops": ["compile", "net.cnn", "--emit", "loops"],
        "html": ["report", "net.cnn", "--html", "net.html"],
        "draw": ["draw", "net.cnn", "-o", "net.svg"],
        "cost": ["report", "net.cnn", "--training"],
        "input": ["report", "net.cnn", "--input", "2x6x6"],
    }.items():
        assert main(words) == 0, (words, capsys.readouterr().err)
        said[name] = capsys.readouterr().out
    assert "2x4x6x6" in said["report"]
    assert f"{symbol}x4x6x6" in said["open"]
    assert np.load("y.npy").shape == (8, 3)
    one = convdsl.load_executable("b.cdsl")(np.zeros((1, 2, 6, 6), np.float32))
    assert one.shape == (1, 3)
    assert main(["run", "a.cdsl", "--data", "random:1", "--batch", "3"]) == 2
    assert f"compiled for {symbol} = 1 and for {symbol} = 8" in capsys.readouterr().err


@pytest.mark.dear(share=4)
def test_python_takes_it() -> None:
    model = convdsl.parse(network("batch"))
    macs = convdsl.report(model, batch=4).totals["macs"]
    assert macs == 4 * convdsl.report(model, batch=1).totals["macs"]
    net = convdsl.compile(model, "random:0", cache=False)
    x = np.random.default_rng(0).standard_normal((3, 2, 6, 6)).astype("f4")
    assert net(x).shape == (3, 3)


def test_other_sizes_are_no_batch(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "net.cnn"
    path.write_text("model net { input x: f32[T, 4]\nx -> linear(3) -> output y }\n")
    with pytest.raises(InputError, match=r"no size is called one \(T\)"):
        convdsl.report(convdsl.load(path), batch=2)
    assert main(["report", str(path), "--batch", "2"]) == 2
    err = capsys.readouterr().err
    assert "has no N in its inputs, only T" in err
    assert "--set T=2" in err
    assert (
        main(["compile", str(path), "--weights", "random:0", "-o", str(tmp_path / "a.cdsl")]) == 2
    )
    assert "sizes not given: T" in capsys.readouterr().err
