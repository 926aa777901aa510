"""Artifacts whose checksums are right and whose content is not: an error, and the process lives."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_models import CALCULATOR, RESIDUAL, compiled

from convdsl import ArtifactError, InputError
from convdsl.runtime import artifact, programs
from convdsl.runtime.saved import load_executable
from convdsl.runtime.targets import KINDS

TESTS = Path(__file__).parent.parent
DRAWN, SEED = 80, 1

Manifest = dict[str, Any]
Parts = tuple[Manifest, dict[str, bytes]]

TRY = """
import json, sys
import numpy as np
import convdsl
for path in sys.stdin.read().splitlines():
    print(path, end=" ", flush=True)
    try:
        network = convdsl.load_executable(path)
        given = [np.ones(t.sizes, t.dtype.numpy) for t in network.inputs.values()]
        network(*given)
        print("fine", flush=True)
    except convdsl.Error as error:
        print("refused", json.dumps(str(error)), flush=True)
    except Exception as error:
        print("escaped", json.dumps(repr(error)), flush=True)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "net.cdsl"
    compiled(RESIDUAL, threads=1, cpu="x86-64").save(path, H=12, W=12)
    return path


def parts(path: Path) -> Parts:
    manifest, sections = artifact.read(path)
    return manifest, {name: bytes(data) for name, data in sections.items()}


def outcomes(files: list[Path]) -> dict[str, str]:
    """What a process of its own says of each; that it dies is a failure."""
    said = subprocess.run(
        [sys.executable, "-c", TRY],
        input="\n".join(map(str, files)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, f"died at {said.stdout.splitlines()[-1]}: {said.stderr}"
    answers = dict(line.split(" ", 1) for line in said.stdout.splitlines())
    assert answers.keys() == {str(path) for path in files}
    return {Path(path).name: answer for path, answer in answers.items()}


def port(**changes: Any) -> Manifest:
    return {"name": "image", "dtype": "f32", "shape": [1, 3, 12, 12]} | changes


SENSELESS: dict[str, Manifest] = {
    "no steps": {"steps": 0},
    "fewer steps": {"steps": 1},
    "more steps": {"steps": 1 << 19},
    "absurdly many steps": {"steps": 1 << 62},
    "steps no number": {"steps": True},
    "no arena": {"arena_bytes": 0},
    "small arena": {"arena_bytes": 64},
    "private memory": {"private_bytes": 64},
    "less than no private memory": {"private_bytes": -64},
    "absurd private memory": {"private_bytes": 1 << 62},
    "fractional arena": {"arena_bytes": 1e999},
    "other function": {"entry": "main"},
    "inner function": {"entry": "conv_0"},
    "no function": {"entry": ""},
    "no input": {"inputs": [], "signature": []},
    "twice the input": {"inputs": [port(), port()], "signature": ["image", "image"]},
    "small input": {"inputs": [port(shape=[1])]},
    "large input": {"inputs": [port(shape=[1 << 40, 1 << 40])]},
    "input of bits": {"inputs": [port(dtype="bool")]},
    "no output": {"outputs": []},
    "small output": {"outputs": [port(name="logits", shape=[1])]},
    "huge output": {"outputs": [port(name="logits", shape=[1 << 62])]},
    "another output": {"outputs": [port(name="logits", shape=[1, 5]), port(name="more")]},
    "a state": {"states": [port(name="s")]},
    "another processor": {"target": {"triple": "x86_64-unknown-linux-gnu", "cpu": "x86-64-v2"}
                          | {"features": "", "vector_bytes": 16, "vector_registers": 16}},
    "no threads": {"threads": 0},
    "minus one thread": {"threads": -1},
    "threads beyond count": {"threads": 1 << 70},
    "labels no list": {"labels": 5},
    "preprocessing no object": {"preprocessing": [1]},
    "report no object": {"report": 3},
    "binding no object": {"binding": [1]},
    "values no object": {"values": {"image": 3}},
    "values of lists": {"values": {"image": {"dtype": [], "elements": [[[]]]}}},
    "no seal": {"seal": None},
}  # fmt: skip


@pytest.mark.dear(share=4)
def test_manifests_that_do_not_fit_the_code(whole: Path, tmp_path: Path) -> None:
    manifest, sections = parts(whole)
    files: list[Path] = []
    for name, changes in SENSELESS.items():
        files.append(tmp_path / name.replace(" ", "-"))
        table = json.dumps(manifest | changes)  # with Infinity, which artifact.write refuses
        artifact.write(files[-1], sections, json.loads(table.replace("Infinity", '"inf"')))
    for name, answer in outcomes(files).items():
        assert answer.startswith("refused"), (name, answer)


ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1,
        7,
        1 << 31,
        1 << 62,
        1 << 80,
        0.5,
        1e300,
        "",
        "f32",
        "x" * 5000,
        "\x1b",
    ),
    *([], [0], [[[]]], {}, {"name": "image"}, {"a": {"a": {}}}),
)


def places(table: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values stand in a manifest."""
    if isinstance(table, dict):
        return [p for k, v in table.items() for p in (*places(v, (*path, k)), (*path, k))]
    if isinstance(table, list):
        return [p for k, v in enumerate(table) for p in (*places(v, (*path, k)), (*path, k))]
    return []


def changed(manifest: Manifest, draw: random.Random) -> Manifest:
    """One or two of its values others, or gone; the checksums are made anew around it."""
    copy: Manifest = json.loads(json.dumps(manifest))
    for _ in range(draw.randint(1, 2)):
        *path, last = draw.choice(places(copy))
        inner: Any = copy
        for key in path:
            inner = inner[key]
        if draw.random() < 0.2:
            del inner[last]
        else:
            inner[last] = draw.choice(ODD)
    return copy


@pytest.mark.dear(share=4)
def test_manifests_of_odd_values(whole: Path, tmp_path: Path) -> None:
    """CONVDSL_MANIFESTS=10000 tries so many."""
    manifest, sections = parts(whole)
    draw = random.Random(SEED)
    wanted = int(os.environ.get("CONVDSL_MANIFESTS", "100"))
    for start in range(0, wanted, 500):
        files: list[Path] = []
        for number in range(start, min(start + 500, wanted)):
            files.append(tmp_path / f"{number}.cdsl")
            artifact.write(files[-1], sections, changed(manifest, draw), durable=False)
        for name, answer in outcomes(files).items():
            assert answer.startswith(("fine", "refused")), (name, answer)
        for file in files:
            file.unlink()


@pytest.mark.dear
def test_sections_that_do_not_fit_the_manifest(whole: Path, tmp_path: Path) -> None:
    manifest, sections = parts(whole)
    other = tmp_path / "other.cdsl"
    compiled(CALCULATOR, threads=1, cpu="x86-64").save(other)
    code, weights = sections["object"], sections["weights"]
    wrong: dict[str, dict[str, bytes]] = {
        "another-s-code": sections | {"object": parts(other)[1]["object"]},
        "no-code": sections | {"object": b""},
        "text-as-code": sections | {"object": b"x" * len(code)},
        "no-object": {"weights": weights},
        "no-weights": {"object": code},
        "short-weights": sections | {"weights": weights[:-1]},
        "long-weights": sections | {"weights": weights + b"\0"},
        "longer-code": sections | {"object": code + b"\0"},
    }
    for end in range(1, len(code), len(code) // 40):
        wrong[f"cut-{end}"] = sections | {"object": code[:end]}
    draw = random.Random(0)
    for number in range(300):
        damaged = bytearray(code)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(code) - 8)
            damaged[at : at + draw.choice((1, 2, 4, 8))] = draw.randbytes(1)
        if damaged != code:
            wrong[f"damaged-{number}"] = sections | {"object": bytes(damaged)}
    for name, content in wrong.items():
        artifact.write(tmp_path / name, content, manifest, durable=False)
    for name, answer in outcomes([tmp_path / name for name in wrong]).items():
        assert answer.startswith("refused"), (name, answer)


@pytest.mark.dear
@pytest.mark.parametrize("damage", ["cut", "headers"])
def test_code_that_is_sealed_and_no_code(whole: Path, tmp_path: Path, damage: str) -> None:
    """Whoever seals what is no sound object file gets no further than its first fault; what our
    linker declines ends no process in LLVM's."""
    manifest, sections = parts(whole)
    code = sections["object"]
    draw = random.Random(SEED)
    files: list[Path] = []
    for number in range(DRAWN):
        if damage == "cut":
            changed = code[: draw.randrange(len(code))]
        else:  # the table of sections becomes noise
            start = int.from_bytes(code[40:48], "little") + 64
            at = draw.randrange(start, len(code) - 8)
            changed = code[:at] + draw.randbytes(8) + code[at + 8 :]
        if not refused_by_the_linker(changed, manifest["entry"]):
            continue
        files.append(tmp_path / str(number))
        sealed = manifest | {"seal": seal_of(manifest, changed)}
        artifact.write(files[-1], sections | {"object": changed}, sealed, durable=False)
    assert len(files) > 20
    for name, answer in outcomes(files).items():
        assert answer.startswith(("fine", 'refused "the machine code')), (name, answer)


def refused_by_the_linker(code: bytes, entry: str) -> bool:
    from convdsl.runtime.cpu.mapping import link

    try:
        return link(code, entry) is None
    except ArtifactError:
        return True


def seal_of(manifest: Manifest, code: bytes) -> str:
    target = KINDS["cpu"].from_json(manifest["target"])
    return programs.seal(programs.read_code(manifest, memoryview(code)), target)


@pytest.mark.dear(share=4)
def test_what_is_whole_still_runs(whole: Path) -> None:
    assert outcomes([whole]) == {"net.cdsl": "fine"}


# Threads

ASKERS: dict[str, Callable[[Path, Any], object]] = {
    "load_executable": lambda path, threads: load_executable(path, threads=threads),
    "compile": lambda _, threads: compiled(RESIDUAL, threads=threads),
    "assigned": lambda path, threads: setattr(load_executable(path), "threads", threads),
}


@pytest.mark.parametrize("asker", ASKERS)
@pytest.mark.parametrize("threads", [0, -1, -(1 << 40), 1 << 16 | 1, 1 << 80, True, 1.5, "2", []])
def test_impossible_numbers_of_threads(whole: Path, asker: str, threads: Any) -> None:
    with pytest.raises(InputError, match="threads"):
        ASKERS[asker](whole, threads)


@pytest.mark.dear
def test_the_largest_team(whole: Path) -> None:
    """In a process of its own: its helpers would stay with the tests that follow."""
    script = f"""
    import numpy as np
    from convdsl import load_executable
    from small_models import images

    large, usual = (load_executable({str(whole)!r}, threads=n) for n in (1 << 16, None))
    print(np.array_equal(large(images()), usual(images())))
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent)))},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert said.stdout.strip() == "True"
