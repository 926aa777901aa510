"""One artifact for several batches or sizes: code for each, what they lay out alike once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import CALCULATOR, RESIDUAL, compiled

import convdsl
from convdsl import ArtifactError, InputError
from convdsl.runtime import artifact
from convdsl.runtime.saved import load_executable, read_report

SIZES = {"N": (1, 3, 1), "H": (12, 12, 20), "W": (12, 12, 16)}
NETWORKS = {
    "depthwise": "x -> conv(32, 1x1) -> bn -> conv(32, 3x3, groups = 32) -> relu6 -> maxpool(2x2)",
    "wide": "x -> conv(48, 3x3) -> relu -> conv(48, 3x3) -> hardswish -> avgpool(global) -> flatten"
            " -> linear(70)",
    "norms": "x -> conv(24, 3x3, stride = 2) -> group_norm(4) -> gelu -> conv_transpose(8, 2x2, 2)",
    "linear": "x -> flatten -> linear(200) -> layer_norm -> tanh -> linear(200) -> linear(3)",
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "residual.cdsl"
    compiled(RESIDUAL, threads=1).save(path, **SIZES)
    return path


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


@pytest.mark.dear(share=4)
def test_each_size_computes_what_it_did(saved: Path) -> None:
    original, loaded = compiled(RESIDUAL, threads=1), load_executable(saved)
    for shape in ((1, 3, 12, 12), (3, 3, 12, 12), (1, 3, 20, 16), (1, 3, 12, 12)):
        np.testing.assert_array_equal(loaded(drawn(*shape)), original(drawn(*shape)))
    assert {k: str(t) for k, t in loaded.inputs.items()} == {"image": "f32[N, 3, H, W]"}
    assert {k: str(t) for k, t in loaded.outputs.items()} == {"logits": "f32[N, 5]"}
    assert loaded.sizes == tuple(
        dict(zip(SIZES, each, strict=True)) for each in zip(*SIZES.values(), strict=True)
    )


@pytest.mark.parametrize("shape", [(2, 3, 12, 12), (3, 3, 20, 16), (1, 3, 12, 16), (1, 4, 12, 12)])
def test_other_sizes_are_refused_with_the_remedy(saved: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        InputError, match=r"compiled for N = 1, H = 12, W = 12 and for N = 3, H"
    ) as e:
        load_executable(saved)(drawn(*shape))
    assert "`convdsl compile` with --batch" in str(e.value)


def test_it_saves_again(saved: Path, tmp_path: Path) -> None:
    loaded = load_executable(saved)
    loaded.save(tmp_path / "all.cdsl", **SIZES)
    assert (tmp_path / "all.cdsl").read_bytes() == saved.read_bytes()
    loaded.save(tmp_path / "one.cdsl", N=3, H=12, W=12)
    again = load_executable(tmp_path / "one.cdsl")
    np.testing.assert_array_equal(again(drawn(3, 3, 12, 12)), loaded(drawn(3, 3, 12, 12)))
    with pytest.raises(InputError, match="there is no code for N = 7"):
        loaded.save(tmp_path / "none.cdsl", N=7, H=12, W=12)


@pytest.mark.dear(share=4)
def test_code_from_the_cache_is_the_same(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("made.cdsl", "kept.cdsl"):
        made = convdsl.compile(convdsl.parse(RESIDUAL), "random:0", threads=1)
        made.save(tmp_path / name, **SIZES)
    assert (tmp_path / "made.cdsl").read_bytes() == (tmp_path / "kept.cdsl").read_bytes()


@pytest.mark.dear
def test_weights_that_lie_alike_are_there_once(tmp_path: Path) -> None:
    """All of them, where only the height differs; a layer that other batches lay out otherwise is
    there in both forms."""
    text = "model m { input x: f32[N, 32, H, 16]\n x -> conv(32, 3x3) -> relu -> output y }"
    network = convdsl.compile(convdsl.parse(text), "random:0", threads=1, winograd=False)
    network.save(tmp_path / "one.cdsl", H=16)
    network.save(tmp_path / "two.cdsl", H=(16, 64))
    one, two = (artifact.read(tmp_path / f"{name}.cdsl").sections for name in ("one", "two"))
    assert one["weights"] == two["weights"]
    assert set(two) == {"object", "object1", "weights"}
    vary = convdsl.compile("lenet5", "random:0", threads=1)
    vary.save(tmp_path / "vary.cdsl", N=(1, 8))
    held = artifact.read(tmp_path / "vary.cdsl")
    (other,) = held.manifest["also"]
    assert held.manifest["weight_bytes"] < other["weight_bytes"] == len(held.sections["weights"])


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_every_packing(tmp_path: Path, name: str) -> None:
    text = f"model m {{ input x: f32[N, 3, 16, 16]\n {NETWORKS[name]} -> output y }}"
    network = convdsl.compile(convdsl.parse(text), "random:1", threads=1)
    batches = (4, 1, 2, 16)
    network.save(tmp_path / "net.cdsl", N=batches)
    loaded = load_executable(tmp_path / "net.cdsl")
    for batch in batches:
        x = drawn(batch, 3, 16, 16)
        np.testing.assert_array_equal(loaded(x), network(x))


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    compiled(CALCULATOR).save(tmp_path / "c.cdsl", N=[2, 5])
    loaded = load_executable(tmp_path / "c.cdsl")
    for count in (2, 5):
        a = drawn(count, 4, 6)
        np.testing.assert_allclose(loaded(b=a, a=3 * a)["difference"], 2 * a, 1e-6)
    with pytest.raises(InputError, match="input `b` has shape"):
        loaded(a=drawn(2, 4, 6), b=drawn(5, 4, 6))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"N": (1, 2), "H": (8, 9, 10), "W": 8}, "equally many: 2 of N, 3 of H"),
        ({"N": (), "H": 8, "W": 8}, "equally many: 0 of N"),
        ({"N": (2, 2), "H": 8, "W": 8}, "one program for the same sizes"),
        ({"N": (1, 0), "H": 8, "W": 8}, "N = 0, but it must be at least 1"),
        ({"N": (1, "2"), "H": 8, "W": 8}, "N = '2' is no size"),
        ({"N": (1, 2)}, "sizes not given: H, W"),
        ({"TYPO": 8, "H": 8, "W": 8}, "no free size is called TYPO; there are N, H, W"),
        ({"n": 8, "H": 8, "W": 8}, r"no free size is called n; did you mean N\?"),
        ({"N": 8, "H": 8, "W": 8, "M": (4, 5)}, "no free size is called M"),
    ],
)
def test_sizes_that_are_none(tmp_path: Path, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled(RESIDUAL).save(tmp_path / "x.cdsl", **sizes)
    assert list(tmp_path.iterdir()) == []


def test_reports_are_of_each_size(saved: Path) -> None:
    one, three = read_report(saved), read_report(saved, batch=3)
    assert three["total"]["macs"] == 3 * one["total"]["macs"]
    with pytest.raises(InputError, match="no code for --batch 2, only for 1, 3, 1"):
        read_report(saved, batch=2)


def test_damage_is_noticed(saved: Path, tmp_path: Path) -> None:
    content, random = saved.read_bytes(), np.random.default_rng(1)
    for position in random.integers(0, len(content), 30):
        changed = bytearray(content)
        changed[position] ^= 0x04
        (tmp_path / "x.cdsl").write_bytes(changed)
        with pytest.raises(ArtifactError):
            load_executable(tmp_path / "x.cdsl")


def changed(also: Any, manifest: dict[str, Any], how: str) -> None:
    """One thing that does not make sense, with checksums that fit."""
    first, second = also
    match how:
        case "swapped":
            first["seal"], second["seal"] = second["seal"], first["seal"]
        case "twice":
            first["binding"] = manifest["binding"]
        case "network":
            first["outputs"][0]["name"] = "another"
        case "place":
            first["weights"] = 7
        case "text":
            first["weights"] = "0"
        case "long":
            first["weight_bytes"] += 1 << 20
        case "lacks":
            del second["binding"]
        case "list":
            manifest["also"] = 7
        case _:
            manifest["abi"] = 10


@pytest.mark.parametrize(
    "how", ["swapped", "twice", "network", "place", "text", "long", "lacks", "list", "abi"]
)
def test_senseless_manifests(saved: Path, tmp_path: Path, how: str) -> None:
    manifest, sections = artifact.read(saved)
    plain = json.loads(json.dumps({k: manifest[k] for k in manifest if k not in ("sections",)}))
    changed(plain["also"], plain, how)
    other = tmp_path / "x.cdsl"
    artifact.write(other, {name: bytes(data) for name, data in sections.items()}, plain)
    with pytest.raises(ArtifactError):
        load_executable(other)
