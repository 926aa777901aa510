"""Networks saved as artifacts and loaded again: whole, verified, on a processor that can run
them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import CALCULATOR, RESIDUAL, compiled, images

import convdsl
from convdsl import ArtifactError, InputError
from convdsl.backends.llvm.objects import find_target
from convdsl.runtime import artifact
from convdsl.runtime.saved import is_artifact, load_executable, read_report

ROOT = Path(__file__).parent.parent.parent
SIZES = {"H": 12, "W": 12}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "residual.cdsl"
    compiled(RESIDUAL, threads=2).save(path, **SIZES)
    return path


def rewritten(path: Path, to: Path, **changes: Any) -> Path:
    """The artifact with some of its manifest changed, and checksums that fit."""
    manifest, sections = artifact.read(path)
    plain = {key: manifest[key] for key in manifest if key not in ("format", "sections")}
    artifact.write(to, {name: bytes(data) for name, data in sections.items()}, plain | changes)
    return to


def test_it_computes_what_it_did(saved: Path) -> None:
    original, loaded = compiled(RESIDUAL, threads=2), load_executable(saved)
    np.testing.assert_array_equal(loaded(images()), original(images()))
    assert {k: str(t) for k, t in loaded.inputs.items()} == {"image": "f32[1, 3, 12, 12]"}
    assert {k: str(t) for k, t in loaded.outputs.items()} == {"logits": "f32[1, 5]"}
    assert (loaded.name, loaded.notes) == (original.name, original.notes)
    assert loaded.threads <= 2
    assert load_executable(saved, threads=1).threads == 1
    assert convdsl.load_executable is load_executable


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    compiled(CALCULATOR).save(tmp_path / "c.cdsl", N=2)
    a = np.ones((2, 4, 6), "f4")
    results = load_executable(tmp_path / "c.cdsl")(b=a, a=3 * a)
    np.testing.assert_array_equal(results["difference"], 2 * a)


def test_it_is_bound_to_its_sizes(saved: Path) -> None:
    with pytest.raises(InputError, match=r"shape \[2, 3, 12, 12\], expected f32\[1, 3, 12, 12\]"):
        load_executable(saved)(images(2))


def test_sizes_must_be_given_to_save(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sizes not given: H, W"):
        compiled(RESIDUAL).save(tmp_path / "x.cdsl")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_network_saves_again(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.cdsl"
    load_executable(saved).save(again)
    np.testing.assert_array_equal(
        load_executable(again)(images()), load_executable(saved)(images())
    )
    assert read_report(again) == read_report(saved)


def test_it_carries_its_report(saved: Path) -> None:
    report = read_report(saved)
    assert report["model"] == "residual"
    assert report["total"]["params"] == 885
    assert report == json.loads(json.dumps(report))


def test_what_an_artifact_looks_like(saved: Path, tmp_path: Path) -> None:
    assert is_artifact(saved)
    other = tmp_path / "text"
    other.write_text("model m {}")
    assert not is_artifact(other)
    assert not is_artifact(tmp_path / "none")
    assert not is_artifact("nul\0")


def test_damage_is_noticed(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    damaged = tmp_path / "damaged.cdsl"
    random = np.random.default_rng(0)
    for position in [0, len(content) - 1, *random.integers(0, len(content), 30)]:
        changed = bytearray(content)
        changed[position] ^= 0x10
        damaged.write_bytes(changed)
        with pytest.raises(ArtifactError):
            load_executable(damaged)
    for length in (0, 10, len(content) // 2, len(content) - 1):
        damaged.write_bytes(content[:length])
        with pytest.raises(ArtifactError):
            load_executable(damaged)


def test_another_interface(saved: Path, tmp_path: Path) -> None:
    other = rewritten(saved, tmp_path / "abi.cdsl", abi=999)
    with pytest.raises(ArtifactError, match="code interface 999, expected"):
        load_executable(other)


def with_target(saved: Path, to: Path, **changes: Any) -> Path:
    return rewritten(saved, to, target=artifact.read(saved).manifest["target"] | changes)


def test_another_architecture(saved: Path, tmp_path: Path) -> None:
    foreign = "aarch64-linux-gnu" if find_target().architecture == "x86_64" else "x86_64-linux-gnu"
    other = with_target(saved, tmp_path / "arm.cdsl", triple=foreign)
    with pytest.raises(ArtifactError, match="is made for .*, this is"):
        load_executable(other)


def test_missing_features_are_named(saved: Path, tmp_path: Path) -> None:
    other = with_target(saved, tmp_path / "f.cdsl", features="+sse2,+quantum,+warp,-avx2")
    with pytest.raises(ArtifactError, match="needs quantum, warp, which this processor"):
        load_executable(other)


def test_another_processor_without_features(saved: Path, tmp_path: Path) -> None:
    other = with_target(saved, tmp_path / "p.cdsl", cpu="some-other", features="")
    with pytest.raises(ArtifactError, match="made for the processor some-other"):
        load_executable(other)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3"])
def test_levels_travel(tmp_path: Path, cpu: str) -> None:
    """Code for a level of x86-64 loads wherever its features are there."""
    network = compiled(RESIDUAL, cpu=cpu)
    network.save(tmp_path / "level.cdsl", **SIZES)
    loaded = load_executable(tmp_path / "level.cdsl")
    np.testing.assert_array_equal(loaded(images()), network(images()))


@pytest.mark.parametrize("missing", ["abi", "inputs", "target", "entry", "threads", "labels"])
def test_incomplete_manifests(saved: Path, tmp_path: Path, missing: str) -> None:
    manifest, sections = artifact.read(saved)
    plain = {k: v for k, v in manifest.items() if k not in ("format", "sections", missing)}
    artifact.write(tmp_path / "x.cdsl", {n: bytes(d) for n, d in sections.items()}, plain)
    with pytest.raises(ArtifactError, match=f"no complete manifest: KeyError\\('{missing}'\\)"):
        load_executable(tmp_path / "x.cdsl")


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_bytes": 64},
        {"arena_bytes": 1 << 62},
        {"arena_bytes": -1},
        {"inputs": [{"name": "x", "dtype": "f32", "shape": [-1]}]},
        {"inputs": [{"name": "x", "dtype": "f8", "shape": [1]}]},
        {"inputs": 7},
        {"target": {"triple": "x86_64"}},
        {"threads": "many"},
    ],
    ids=str,
)
def test_senseless_manifests(saved: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    other = rewritten(saved, tmp_path / "x.cdsl", **changes)
    with pytest.raises((ArtifactError, InputError)):
        load_executable(other)


def test_loading_needs_no_front_end(saved: Path) -> None:
    """Neither the parser nor the graph library, and no operator."""
    script = f"""
import sys, numpy as np
from convdsl import load_executable
print(float(load_executable({str(saved)!r})(np.ones((1, 3, 12, 12), 'f4')).sum()))
print([m for m in sys.modules if m.split('.')[0] in ('lark', 'networkx', 'rich', 'PIL')
       or m.startswith(('convdsl.syntax', 'convdsl.ir', 'convdsl.ops', 'convdsl.driver'))])
"""
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    expected = load_executable(saved)(np.ones((1, 3, 12, 12), "f4")).sum()
    assert float(said[0]) == pytest.approx(float(expected), rel=1e-6)
    assert said[1] == "[]"


def test_memory_does_not_grow_over_many_runs(saved: Path) -> None:
    network, x = load_executable(saved, threads=1), images()
    for _ in range(50):
        network(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        network(x)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 4096, f"{grown} KiB more after 1000 runs"
