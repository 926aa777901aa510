"""Artifacts for cards, and the cache of code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda.fake_driver import Card, Fake, there_is
from cuda.networks_on_cards import NET, array, counting, on_card, on_cpu

import convdsl
from convdsl.diagnostics import ArtifactError, InputError


def test_code_without_a_card_is_saved_and_not_run(tmp_path: Path) -> None:
    with there_is(Card(driver=0)):
        net = convdsl.compile(
            convdsl.parse(NET), "random:1", target="cuda", arch="sm_80", cache=False
        )
        net.save(tmp_path / "net.cdsl", N=1, H=8, W=8)
        with pytest.raises(InputError, match="there is no NVIDIA driver"):
            net(array(1, 3, 8, 8))
        with pytest.raises(InputError, match="there is no NVIDIA driver"):
            convdsl.load_executable(tmp_path / "net.cdsl")


@pytest.mark.dear
@pytest.mark.parametrize(
    ("arch", "loaded"),
    [("sm_80", "module sm_80"), ("sm_86", "module sm_80"), ("sm_90", "module PTX")],
)
def test_artifacts(tmp_path: Path, arch: str, loaded: str) -> None:
    """They run on cards of their generation and later ones, and nothing is compiled for it."""
    path, x = tmp_path / "net.cdsl", array(1, 3, 8, 8)
    with there_is(Card()):
        net = convdsl.compile(
            convdsl.parse(NET), "random:1", target="cuda", arch="sm_80", cache=False
        )
        net.save(path, N=1, H=8, W=8)
    with there_is(Card(arch=arch)) as fake, pytest.MonkeyPatch.context() as patch:
        patch.delattr("convdsl.backends.cuda.nvrtc.compile_source")
        again = convdsl.load_executable(path)
        assert again.device == "cuda:0"
        np.testing.assert_allclose(again(x), on_cpu(NET)(x), rtol=0, atol=2e-6)
        assert fake.card.count(loaded) == 1
        again.save(tmp_path / "copy.cdsl")
    assert (tmp_path / "copy.cdsl").read_bytes() == path.read_bytes()
    older = pytest.raises(InputError, match="is made for sm_80; Fake card here is sm_75")
    with there_is(Card(arch="sm_75")), older:
        convdsl.load_executable(path)
    with pytest.raises(InputError, match="is compiled for cuda: it does not run on cpu"):
        convdsl.load_executable(path, device="cpu")


@pytest.mark.dear(share=4)
def test_artifacts_for_one_capability(tmp_path: Path) -> None:
    """Code for sm_90a runs on cards of 9.0 and on no later one: it holds no PTX for these."""
    path, x = tmp_path / "net.cdsl", array(1, 3, 8, 8)
    with there_is(Card(arch="sm_90")) as fake:
        net = convdsl.compile(convdsl.parse(NET), "random:1", device="cuda", cache=False)
        net.save(path, N=1, H=8, W=8)
        np.testing.assert_allclose(net(x), on_cpu(NET)(x), rtol=0, atol=2e-6)
        assert fake.card.count("module sm_90a") == 1
    with there_is(Card(arch="sm_90")):
        convdsl.load_executable(path)(x)
    said = "is made for sm_90a, and runs on cards of sm_90 alone; Fake card here is sm_100"
    with there_is(Card(arch="sm_100")), pytest.raises(InputError, match=said):
        convdsl.load_executable(path)
    assert b".version" not in path.read_bytes()


@pytest.mark.dear
def test_artifacts_for_several_sizes(tmp_path: Path, fake: Fake) -> None:
    path = tmp_path / "net.cdsl"
    convdsl.compile(convdsl.parse(NET), "random:1", target="cuda", arch="sm_80").save(
        path, N=(1, 3), H=8, W=8
    )
    again = convdsl.load_executable(path)
    for batch in (3, 1):
        x = array(batch, 3, 8, 8)
        np.testing.assert_allclose(again(x), on_cpu(NET)(x), rtol=0, atol=2e-6)
    with pytest.raises(InputError, match="there is no code for N = 2"):
        again(array(2, 3, 8, 8))


def test_states_in_artifacts(tmp_path: Path, fake: Fake) -> None:
    net, x = on_card(counting(), {"total": np.zeros(4, np.float32)}), np.arange(4, dtype=np.float32)
    net(x)
    net.save(tmp_path / "counts.cdsl")
    again = convdsl.load_executable(tmp_path / "counts.cdsl")
    np.testing.assert_array_equal(again(x), 4 * x)
    np.testing.assert_array_equal(net(x), 4 * x)


@pytest.mark.dear(share=4)
def test_damaged_artifacts(tmp_path: Path, fake: Fake) -> None:
    """Code that stands beside another program's manifest is never loaded."""
    from convdsl.runtime import artifact

    first, second = tmp_path / "a.cdsl", tmp_path / "b.cdsl"
    on_card(NET).save(first, H=8, W=8)
    on_card(NET).save(second, H=9, W=9)
    manifest, sections = artifact.read(first)
    _, others = artifact.read(second)
    for changes in (
        {"sections": {"object": others["object"]}},
        {"manifest": {"arena_bytes": manifest["arena_bytes"] + 256}},
        {"manifest": {"target": {"arch": "sm_80", "precision": "highest"}}},
        {"manifest": {"target": {"arch": "sm_9000", "precision": "highest"}}},
        {"manifest": {"kind": "cpu"}},
        {"manifest": {"kind": "tpu"}},
        {"sections": {"object": sections["object"][:100]}},
    ):
        said, held = dict(manifest), dict(sections)
        said |= changes.get("manifest", {})
        held |= changes.get("sections", {})
        artifact.write(tmp_path / "bad.cdsl", held, said)
        with pytest.raises((ArtifactError, InputError)):
            convdsl.load_executable(tmp_path / "bad.cdsl")


@pytest.mark.dear
def test_the_code_cache_is_by_architecture_and_precision(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[str] = []
    from cuda import fake_driver

    def counting(source: str, arch: str):
        made.append(arch)
        return fake_driver.compile_source(source, arch)

    monkeypatch.setattr("convdsl.backends.cuda.nvrtc.compile_source", counting)
    for how in (
        *({"arch": "sm_80"},) * 2,
        *({"arch": "sm_90"},) * 2,
        *({"arch": "sm_90", "precision": "medium"},) * 2,
    ):
        net = convdsl.compile(
            convdsl.parse(NET), "random:1", target="cuda", inputs=(3, 8, 8), **how
        )
    assert made == ["sm_80", "sm_90", "sm_90"]
    np.testing.assert_allclose(
        net(array(1, 3, 8, 8)), on_cpu(NET)(array(1, 3, 8, 8)), rtol=0, atol=1e-2
    )
