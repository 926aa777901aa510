"""Code that was made before: found where nothing differs, and only there."""

from __future__ import annotations

import gc
import importlib
import json
import pkgutil
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import CALCULATOR, RESIDUAL, images

import convdsl
from convdsl import InputError, compilation
from convdsl.backends.llvm import objects as llvm
from convdsl.ir.canonical import canonical_text
from convdsl.lowering import buffers, compose, tasks
from convdsl.lowering.recipe import packings_from_json, packings_to_json
from convdsl.passes import PASSES
from convdsl.runtime import artifact, cache
from convdsl.runtime.cache import ObjectCache
from convdsl.runtime.cpu import code as runtime
from convdsl.runtime.saved import read_report
from convdsl.schedules import cpu
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.toolchain import cpu_toolchain

PLAIN = "x -> conv(8, 3) -> relu -> output y"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of models that were really compiled, in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names: list[str] = []
    lower = compilation.lower
    monkeypatch.setattr(
        compilation,
        "lower",
        lambda graph, target, name, **rest: (
            names.append(name) or lower(graph, target, name, **rest)
        ),
    )
    return names


def compiled(layers: str, weights: Any = "random:1", **options: Any) -> convdsl.Executable:
    text = f"model m {{\n input x: f32[N, 3, 12, 12]\n {layers}\n}}\n"
    return convdsl.compile(convdsl.parse(text), weights, batch=1, **options)


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_looked_for_after_compiling(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """What lowering makes stays until code is made of it: there is nothing to find meanwhile."""
    meanwhile: list[bool] = []
    lower = compilation.lower

    def watched(*arguments: Any, **named: Any) -> Any:
        meanwhile.append(gc.isenabled())
        if fails:
            raise InputError("not today")
        return lower(*arguments, **named)

    monkeypatch.setattr(compilation, "lower", watched)
    with pytest.raises(InputError) if fails else nullcontext():
        compiled(PLAIN, cache=False)
    assert meanwhile == [False]
    assert gc.isenabled()


@pytest.mark.dear
def test_a_hit_lowers_nothing_and_packs_the_weights_given(made: list[str]) -> None:
    model = convdsl.parse(RESIDUAL)
    for seed in range(3):
        found = convdsl.compile(model, f"random:{seed}", inputs=(3, 12, 12))
        plain = convdsl.compile(model, f"random:{seed}", inputs=(3, 12, 12), cache=False)
        np.testing.assert_array_equal(found(images()), plain(images()))
    assert len(made) == 1 + 3
    assert len(ObjectCache().entries()) == 1


@pytest.mark.dear
@pytest.mark.parametrize(
    "layers",
    [
        "x -> conv(8, 3, stride = 2) -> relu -> output y",
        "x -> conv(8, 3, pad = 0) -> relu -> output y",
        "x -> conv(8, 3, bias = false) -> relu -> output y",
        "x -> conv(8, 5) -> relu -> output y",
        "x -> conv(8, 3) -> relu6 -> output y",
        "x -> conv(8, 3) -> relu -> output y, x -> relu -> output z",
        "x -> conv(8, 3, weight = [[[[1, 0, 0], [0, 0, 0], [0, 0, 0]]]]) -> relu -> output y",
        "x -> conv(8, 3, weight = [[[[2, 0, 0], [0, 0, 0], [0, 0, 0]]]]) -> relu -> output y",
        "x -> leaky_relu(0.1) -> output y",
        "x -> leaky_relu(0.2) -> output y",
    ],
)
def test_another_network_is_no_hit(layers: str, made: list[str]) -> None:
    compiled(PLAIN)
    layers = layers.replace("output y, x", "output y\n x")
    found = compiled(layers)
    assert len(made) == 2
    again = compiled(layers)
    assert len(made) == 2
    np.testing.assert_equal(found(images()), again(images()))


def test_the_order_of_operands_tells(made: list[str]) -> None:
    for text in (CALCULATOR, CALCULATOR.replace("a - b", "b - a")):
        run = convdsl.compile(convdsl.parse(text), batch=1)
        a, b = (np.full((1, 4, 6), value, np.float32) for value in (3, 1))
        expected = 2 if "a - b" in text else -2
        assert (run(a, b)["difference"] == expected).all()
    assert len(made) == 2


@pytest.mark.dear
@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("processor", lambda patch: {"cpu": "x86-64-v2"}),
        ("passes", lambda patch: {"passes": PASSES[:-2]}),
        ("batch", lambda patch: {"batch": 2}),
        ("compiler", lambda patch: patch.setattr(compilation, "_fingerprint", lambda: "x") or {}),
        ("LLVM", lambda patch: patch.setattr(llvm, "llvm_version", lambda: "LLVM 99") or {}),
    ],
)
def test_other_circumstances_are_no_hit(
    what: str,
    change: Callable[[pytest.MonkeyPatch], dict[str, Any]],
    made: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = convdsl.parse(RESIDUAL)
    options = {"symbols": {"H": 12, "W": 12}, "batch": 1}
    convdsl.compile(model, "random:1", **options)
    convdsl.compile(model, "random:1", **{**options, **change(monkeypatch)})
    assert len(made) == 2, what


def test_the_fingerprint_is_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lowering").mkdir()
    (tmp_path / "compilation.py").touch()
    source = tmp_path / "lowering" / "lower.py"
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "runtime" / "cache.py"))
    seen: set[str] = set()
    for text in ("one", "two", "onetwo"):
        source.write_text(text)
        seen.add(compilation._fingerprint.__wrapped__())
    source.rename(source.with_name("other.py"))
    seen.add(compilation._fingerprint.__wrapped__())
    assert len(seen) == 4
    (source.parent / "__pycache__").mkdir()
    (source.parent / "__pycache__" / "other.cpython-311.pyc").write_bytes(b"x")
    assert compilation._fingerprint.__wrapped__() in seen


def test_a_damaged_entry_is_made_again(made: list[str]) -> None:
    expected = compiled(PLAIN)(images())
    (entry,) = ObjectCache().entries()
    content = bytearray(entry.read_bytes())
    content[-100] ^= 1
    entry.write_bytes(content)
    np.testing.assert_array_equal(compiled(PLAIN)(images()), expected)
    assert len(made) == 2
    np.testing.assert_array_equal(compiled(PLAIN)(images()), expected)
    assert len(made) == 2


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\xff" * 8,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (3).to_bytes(8, "little") + b"\xff\xfe\xfd",
    ],
)
def test_what_makes_no_sense_is_made_again(
    made: list[str], monkeypatch: pytest.MonkeyPatch, entry: bytes
) -> None:
    """Though its file is whole: written by another version, or by hand."""
    expected = compiled(PLAIN, cache=False)(images())
    monkeypatch.setattr(ObjectCache, "get", lambda self, key: entry)
    np.testing.assert_array_equal(compiled(PLAIN)(images()), expected)
    assert len(made) == 2


@pytest.mark.dear(share=4)
def test_threads_share_it(made: list[str]) -> None:
    expected = compiled(PLAIN, cache=False)(images())
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(compiled(PLAIN)(images()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_what_fails_while_packing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise InputError("no room for weights")

    monkeypatch.setattr(compilation, "pack_weights", refuse)
    with pytest.raises(InputError, match="no room for weights"):
        compiled(PLAIN, cache=False)


# The arena


def test_the_report_says_what_is_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allocated: list[int] = []
    aligned = runtime.aligned
    monkeypatch.setattr(runtime, "aligned", lambda size: allocated.append(size) or aligned(size))
    model = convdsl.parse(RESIDUAL)
    sizes = {"symbols": {"H": 12, "W": 12}, "batch": 2}
    said = convdsl.report(model, **sizes).to_json()["total"]["arena_bytes"]
    run = convdsl.compile(model, "random:1", cache=False, threads=1, **sizes)
    run(images(batch=2))
    assert allocated == [said]
    assert said > 0
    run.save(tmp_path / "net.cdsl", N=2, H=12, W=12)
    assert read_report(tmp_path / "net.cdsl")["total"]["arena_bytes"] == said
    convdsl.load_executable(tmp_path / "net.cdsl")(images(batch=2))
    assert allocated == [said, said]


def test_open_sizes_have_no_arena() -> None:
    model = convdsl.parse(RESIDUAL)
    assert convdsl.report(model, batch=1).to_json()["total"]["arena_bytes"] is None


# The recipe


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("cpu_name", ["x86-64-v2", "x86-64-v4"])
@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x0_5", "lenet5"])
def test_packings_survive_json(name: str, cpu_name: str) -> None:
    model = convdsl.load(name)
    plan = compilation.Plan(
        model, cpu_toolchain(llvm.find_target(cpu_name, "x86_64-unknown-linux-gnu"))
    )
    lowered = plan.lower({"N": 1})
    rows = json.loads(json.dumps(packings_to_json(lowered.graph, plan.machine, lowered.packings)))
    assert packings_from_json(lowered.graph, plan.machine, rows) == lowered.packings
    again = plan.graph({"N": 1})
    assert canonical_text(again) == canonical_text(lowered.graph)
    for old, new in zip(
        lowered.packings, packings_from_json(again, plan.machine, rows), strict=True
    ):
        assert old.source.value is not None
        assert new.source.value is not None
        assert old.source.value.name == new.source.value.name


@pytest.mark.dear(share=4)
def test_weights_that_lowering_makes_are_packed_again(made: list[str]) -> None:
    """The fractions of a resize are no values of the graph."""
    layers = "x -> conv(4, 3) -> upsample(scale = 3, mode = bilinear) -> conv(2, 1) -> output y"
    plain = compiled(layers, cache=False)(images())
    for _ in range(2):
        np.testing.assert_array_equal(compiled(layers)(images()), plain)
    assert len(made) == 1 + 1


@pytest.mark.dear(share=4)
def test_reading_what_was_kept_lowers_nothing(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even in outline: only the group whose own stage is a weight is composed again."""
    chain = " -> ".join(f"conv(4, 3) as c{i} -> relu" for i in range(8))
    layers = f"x -> {chain} -> upsample(scale = 3, mode = bilinear) -> relu -> output y"
    compiled(layers)
    calls: list[str] = []

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counting(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return function(*arguments, **named)

        monkeypatch.setattr(module, name, counting)

    count(tasks.Tasks, "__init__")
    count(compose.Composer, "compose")
    count(buffers.Buffers, "__init__")
    compiled(layers)
    assert len(made) == 1
    assert calls == ["compose"]
    compiled(layers, cache=False)
    assert calls.count("compose") == 1 + 9
    assert calls.count("__init__") == 2


def test_every_form_of_packing_is_known() -> None:
    forms: set[str] = set()
    for info in pkgutil.iter_modules(cpu.__path__, f"{cpu.__name__}."):
        module = importlib.import_module(info.name)
        forms |= {
            name
            for name, item in vars(module).items()
            if isinstance(item, type) and callable(getattr(item, "pack", None)) and name != "Pack"
        }
    assert forms <= cpu_machine(llvm.find_target()).packs.keys()
    assert forms


# Convolutions with fewer products


@pytest.mark.dear(share=4)
def test_winograd_is_forbidden_by_name_and_kept_apart(made: list[str], tmp_path: Path) -> None:
    """Other code under another key, other roundings, and the artifact says so."""
    text = "model w {\n input x: f32[1, 64, 28, 28]\n x -> conv(64, 3) -> output y\n}\n"
    model, x = convdsl.parse(text), np.random.default_rng(0).standard_normal((1, 64, 28, 28))
    results: dict[bool, Any] = {}
    for allowed in (True, False, True, False):
        network = convdsl.compile(model, "random:1", threads=1, winograd=allowed)
        results[allowed] = network(x.astype(np.float32))
        network.save(tmp_path / f"{allowed}.cdsl")
        manifest = artifact.read(tmp_path / f"{allowed}.cdsl").manifest
        assert manifest["winograd"] is allowed
    assert len(made) == 2
    assert not np.array_equal(results[True], results[False])
    span = np.ptp(results[False])
    np.testing.assert_allclose(results[True], results[False], rtol=0, atol=2e-5 * span)
    with pytest.raises(InputError, match="winograd"):
        convdsl.compile(model, "random:1", winograd="no")  # type: ignore[arg-type]
