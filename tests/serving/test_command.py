"""`convdsl serve`: what it is told, what it prints, what it refuses before it listens."""

from __future__ import annotations

import base64
import socket
from pathlib import Path

import httpx
import numpy as np
import pytest
from graphs import Builder
from serving.conftest import command, tensor

import convdsl
from convdsl.cli import main
from convdsl.ir.model import Model
from convdsl.tensor import symbol


@pytest.mark.dear
def test_several_models(place: Path) -> None:
    arguments = ("photos.cdsl", "edges=sized.cnn", "--weights", "edges=sized.npz", "--log")
    with command(*arguments, folder=place) as (address, process):
        assert httpx.get(address + "/v2/models").json() == {"models": ["photos", "edges"]}
        x = np.random.default_rng(0).standard_normal((5, 3, 8, 8), np.float32)
        said = {"inputs": [tensor(x, "image")]}
        answer = httpx.post(address + "/v2/models/photos/infer", json=said)
        made = convdsl.load_executable(place / "photos.cdsl")
        wanted = np.concatenate([made(x[:4]), made(x[4:])])
        found = np.float32(answer.json()["outputs"][0]["data"]).reshape(5, 3)
        np.testing.assert_array_equal(found, wanted)
        image = (np.zeros((8, 8, 3), np.uint8) + 7).tobytes()
        file = b"P6 8 8 255\n" + image
        said = {
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [1], "data": [_base64(file)]}
            ],
            "outputs": [{"name": "logits", "parameters": {"classification": 1}}],
        }
        answer = httpx.post(address + "/v2/models/photos/infer", json=said)
        (best,) = answer.json()["outputs"][0]["data"]
        scores = made(np.full((1, 3, 8, 8), 7 / 255, np.float32))[0]
        index = int(scores.argmax())
        assert best == f"{scores[index]:f}:{index}:{('cat', 'dog', 'bird')[index]}"
        x = np.ones((1, 1, 5, 4), np.float32)
        answer = httpx.post(address + "/v2/models/edges/infer", json={"inputs": [tensor(x)]})
        assert answer.json()["outputs"][0]["shape"] == [1, 2, 5, 4]
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "note: edges: code for new sizes is made when they come" in err
    assert err.count("POST /v2/models/photos/infer 200") == 2


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.dear
def test_sizes_that_are_given_are_those_that_are_served(place: Path) -> None:
    arguments = ("sized.cnn", "--weights", "random:0", "--input", "1x4x4,1x6x5")
    with command(*arguments, folder=place) as (address, _):
        codes = [
            httpx.post(
                address + "/v2/models/sized/infer",
                json={"inputs": [tensor(np.ones((1, 1, *shape)))]},
            )
            for shape in ((4, 4), (6, 5), (5, 6))
        ]
    assert [answer.status_code for answer in codes] == [200, 200, 400]
    said = "H = 5, W = 6: this server is for H = 4, W = 4 or H = 6, W = 5"
    assert codes[2].json() == {"error": said}


@pytest.mark.dear
def test_an_artifact_of_several_sizes_says_which(place: Path) -> None:
    """And not where it lies."""
    made = convdsl.compile(place / "sized.cnn", place / "sized.npz", threads=1)
    made.save(place / "two.sizes.cdsl", N=(1, 2, 1), H=(4, 4, 6), W=(4, 4, 5))
    with command("two.sizes.cdsl", folder=place) as (address, _):
        path = address + "/v2/models/two.sizes/infer"
        found = [
            httpx.post(path, json={"inputs": [tensor(np.ones((batch, 1, *shape)))]})
            for batch, shape in ((5, (4, 4)), (3, (6, 5)), (1, (5, 6)))
        ]
    assert [answer.status_code for answer in found] == [200, 200, 400]
    assert found[0].json()["outputs"][0]["shape"] == [5, 2, 4, 4]
    assert found[1].json()["outputs"][0]["shape"] == [3, 2, 6, 5]
    said = "H = 5, W = 6: this server is for H = 4, W = 4 or H = 6, W = 5"
    assert found[2].json() == {"error": said}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main(["serve", *map(str, arguments), "--port", "0"])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert "bug" not in said.err
    return said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no/such.cnn"], "no/such.cnn"),
        (["sized.cnn"], "weights"),
        (["photos.cdsl", "photos.cdsl"], "two models are called photos: NAME=MODEL"),
        (["a/b=photos.cdsl"], "NAME=MODEL has a name without / and a model"),
        (["=photos.cdsl"], "NAME=MODEL has a name without / and a model"),
        (["photos.cdsl", "--input", "3x8x8"], "is compiled already"),
        (["photos.cdsl", "--weights", "random:0"], "is compiled already"),
        (["photos.cdsl", "sized.cnn", "--input", "3x8x8"], "--input is for one model"),
        (["photos.cdsl", "sized.cnn", "--weights", "random:0"], "are given as NAME=FILE"),
        (["sized.cnn", "--weights", "x=random:0"], "no model x; there is only sized"),
        (
            ["sized.cnn", "--weights", "sized=random:0", "--weights", "random:1"],
            "--weights of sized are given twice",
        ),
        (["sized.cnn", "--weights", "random:0", "--input", "3x8x8"], "expected f32[N, 1, H, W]"),
        (["photos.cdsl", "--host", "no.such.host.invalid"], "cannot listen at no.such.host"),
        (["photos.cdsl", "--max-batch", "0"], "'0' is not a whole number from 1 up"),
        (["photos.cdsl", "--max-delay", "-1"], "'-1' is no time"),
        (["photos.cdsl", "--timeout", "0"], "'0' is no time"),
        (["photos.cdsl", "--timeout", "nan"], "'nan' is no time"),
    ],
)
def test_mistakes(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(place)
    assert said in refused(capsys, *arguments)


def test_a_port_that_is_taken(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = main(["serve", str(place / "photos.cdsl"), "--port", str(port)])
    assert code == 2
    said = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in said
    assert "--port 0 takes any that is free" in said


def test_networks_with_state_are_not_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every answer would depend on who asked before."""
    b = Builder()
    x, seen = b.input("x", symbol("N"), 3), b.parameter("seen", 3)
    b.update(seen, b("add", seen, b.constant("one", 1)))
    model = Model("counting", b.output(y=b("add", x, seen)))
    convdsl.compile(model, {"seen": np.zeros(3, np.float32)}).save(tmp_path / "counting.cdsl")
    said = refused(capsys, tmp_path / "counting.cdsl")
    assert "counting keeps state between calls" in said


def test_packages_that_are_missing(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from convdsl.cli import serve

    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else name)
    assert "pip install 'convdsl[serve]'" in refused(capsys, place / "photos.cdsl")
