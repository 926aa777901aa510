"""Tables of every command on terminals of 80 and 100 columns: nothing broken, no column silent."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import convdsl
from convdsl import zoo
from convdsl.backends.llvm import objects
from convdsl.cli import bench, doctor, steps
from convdsl.cli.app import COMMANDS
from convdsl.compilation import Plan
from convdsl.ir.canonical import canonical_text
from convdsl.kernel.caches import TYPICAL
from convdsl.lowering.lower import Lowered
from convdsl.measure import card_prediction
from convdsl.measure.machine import Figures
from convdsl.measure.prediction import Team
from convdsl.reporting.drawing import draw
from convdsl.reporting.grid import Grid

PRINTED = {
    "report": ("report", "lenet5"),
    "report-depth": ("report", "googlenet", "--batch", "1", "--depth", "1"),
    "report-long-names": ("report", "mobilenet_v2", "--depth", "4"),
    "report-verbose": ("report", "lenet5", "--verbose"),
    "report-machine": ("report", "lenet5", "--machine", "a100", "--batch", "4"),
    "report-training": ("report", "classes.cnn", "--training"),
    "report-columns": ("report", "lenet5", "--columns", "layer,input,kernel/stride,params"),
    "report-artifact": ("report", "classes.cdsl"),
    "sweep": ("report", "lenet5", "--set", "classes=10,100", "--batch", "1"),
    "sweep-wide": ("report", "mobilenet_v2", "--set", "width=0.35,0.5,0.75,1.0,1.3,1.4"),
    "sweep-depth": ("report", "lenet5", "--set", "classes=10,1000", "--depth", "1"),
    "diff": ("diff", "lenet5", "mnist_cnn"),
    "diff-set": ("diff", "mobilenet_v2", "mobilenet_v2", "--set-b", "width=1.4", "--depth", "2"),
    "diff-symbols": ("diff", "unet", "unet", "--set-b", "classes=7"),
    "eval": ("eval", "classes.cnn", "--weights", "random:0", "--data", "data.npz"),
    "card": ("report", "classes.cnn", "--target", "cuda", "--machine", "a100"),
    "find-lr": ("train", "classes.cnn", "--data", "data.npz", "--find-lr", "--batch", "16"),
    "classify": ("classify", "classes.cdsl", "photo.png", "another.png"),
    "classify-few": ("classify", "classes.cdsl", "photo.png", "--top", "2"),
    "info": ("info", "classes.cdsl"),
    "info-several": ("info", "several.cdsl"),
    "passes": ("passes",),
    "passes-of": ("passes", "lenet5"),
    "run": ("run", "classes.cnn", "--weights", "random:0", "--data", "random:0", "--batch", "64"),
    "explain": ("explain",),
    "explain-code": ("explain", "E0702"),
    "ops": ("ops",),
    "ops-conv": ("ops", "conv"),
    "zoo": ("zoo",),
}
"""Commands whose output is the same everywhere, by the name of a golden file; but for digits of
those in ROUNDED."""

ROUNDED = {"eval", "card", "info", "info-several", "run", "find-lr", "classify", "classify-few"}
"""What processors, and versions of compilers, have otherwise in a digit or a name."""

LONG = {"zoo", "report-depth", "report-training", "card", "passes-of"}
"""What takes a second or more, or has a column of times where there is more room: these are looked
at on 80 columns alone."""

HALF = {"report-depth", "report-training", "sweep-wide", "diff-set", "diff-symbols", "find-lr",
        "card", "zoo"}  # fmt: skip
"""What takes most of the time of all tables: a commit draws half of these."""

NARROW = {"find-lr", "classify", "classify-few"}
"""What has nothing to leave out, and no --wide."""

LISTED = ("alexnet", "densenet121", "googlenet", "lenet5", "mobilenet_v2", "resnet18",
          "resnet50", "unet")  # fmt: skip
"""Of the zoo: what its table looks like does not follow from how many there are."""

CLASSES = """
model classes(classes = 12) {
    input image: f32[N, 1, 8, 8]
    preprocess image: resize(8x8) -> rescale(1 / 255)
    image -> conv(4, 3x3) as stem -> relu -> flatten -> linear(classes) as head -> output logits
}
train {
    loss = cross_entropy(logits, label)
    metrics = [accuracy, confusion_matrix, f1]
}
"""

MEASURED = {
    "doctor": ("doctor",),
    "bench": ("bench", "lenet5", "--runs", "1", "--no-peak"),
    "steps": ("compile", "lenet5", "--explain"),
}
"""Commands that print what they measured."""


@pytest.fixture
def terminal(convdsl, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command prints on a terminal of so many columns."""

    def call(width: int, *arguments: str) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        return convdsl(*arguments).out

    return call


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of twelve classes, data for it, and artifacts."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "classes.cnn").write_text(CLASSES)
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 255, (48, 8, 8), dtype=np.uint8)
    np.savez(folder / "data.npz", x=pixels, y=np.arange(48) % 12)
    for name in ("photo", "another"):
        Image.fromarray(draw.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{name}.png")
    made = convdsl.compile(folder / "classes.cnn", "random:0", threads=2, cpu="x86-64-v2")
    made.save(folder / "classes.cdsl")
    made.save(folder / "several.cdsl", N=(1, 8, 64))
    return folder


@pytest.fixture
def planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels of one network are made once, however wide its tables are."""
    lower, known = Plan.lower, dict[tuple[object, ...], Lowered]()

    def lowered(plan: Plan, binding: Mapping[str, int]) -> Lowered:
        graph, target = canonical_text(plan.model.graph), plan.toolchain.target
        key = (plan.model.name, graph, target, plan.team, tuple(sorted(binding.items())))
        if key not in known:
            known[key] = lower(plan, binding)
        return known[key]

    monkeypatch.setattr(Plan, "lower", lowered)
    compiled = functools.cache(card_prediction.compile_source)
    monkeypatch.setattr(card_prediction, "compile_source", compiled)


def masked(text: str) -> str:
    """Digits as 0, and what names compilers and targets as stars."""
    text = re.sub(r"(?m)^(target|made by)( +)(.*)$", lambda m: f"{m[1]}{m[2]}***", text)
    return re.sub(r"\d", "0", re.sub(r"e[+-](?=\d)", "e-", text))


def check(narrow: str, wide: str, width: int) -> None:
    """Lines fit, and every word and number is one of the wide table's, whole or up to a sign."""
    assert max(map(len, narrow.splitlines())) <= width
    words = set(wide.split())
    inside = narrow.partition("columns: without")[0]
    for word in inside.split():
        known = word in words or word.startswith("──") or word in ("figure", "value", f"({width}")
        known = known or any(w.startswith(word) and word[-1] in "./,+*=_" for w in words)
        known = known or any(re.search(rf"[./,+*=_]{re.escape(word)}", w) for w in words)
        assert known, f"{word!r} is a piece of something"


@pytest.mark.usefixtures("planned_once")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.drawn(share=2) if name in HALF else ())
        for name in PRINTED
    ],
)
def test_fixed_tables(
    terminal: Callable[..., str],
    golden: Callable[[str, str], None],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.chdir(place)
    if name == "zoo":
        few = {name: zoo.names()[name] for name in LISTED}
        monkeypatch.setattr(zoo, "names", lambda: few)
    arguments = PRINTED[name]
    if arguments[0] == "report":  # an arena is that of a processor's code
        find = objects.find_target
        monkeypatch.setattr(
            objects,
            "find_target",
            lambda cpu="native", *more: find("x86-64-v4" if cpu == "native" else cpu, *more),
        )
    narrow = terminal(80, *arguments)
    wide = terminal(80, *arguments, "--wide") if name not in NARROW else narrow
    check(narrow, wide, 80)
    if name not in LONG:
        check(terminal(100, *arguments), wide, 100)
    golden(f"tables/{name}.txt", masked(narrow) if name in ROUNDED else narrow)


@pytest.mark.parametrize("name", MEASURED)
def test_measured_tables(terminal: Callable[..., str], name: str) -> None:
    for width in (80, 100):
        said = terminal(width, *MEASURED[name])
        assert said
        assert max(map(len, said.splitlines())) <= width, said


FOUND = {
    "_software": [("convdsl", "0.1.0"), ("python", "3.11.7 on Linux x86_64")],
    "_processor": [
        ("processor", "znver5 (x86_64-unknown-linux-gnu)"),
        ("vectors", "128 bits, 4 float32 lanes"),
    ],
    "_threads": [("threads", "2 (a team of this size unless --threads)")],
    "_speed": [
        ("speed on 1 thread", "66.5 GFLOP/s; reading 35.9 GB/s from memory, 109.5 from the cache")
    ],
    "_cache": [("code cache", "off", "the folder /root/.cache/convdsl belongs to somebody else")],
    "_cards": [("card", "there is no NVIDIA driver on this machine: install it")],
}
"""What the doctor may find, on a machine where not all is well."""


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements that are the same on every machine."""
    figures = Figures(flops=66.5e9, memory_bytes=35.9e9, l2_bytes=267.4e9, l3_bytes=109.5e9)
    team = Team(1, figures, 4, TYPICAL)
    monkeypatch.setattr(steps, "_team", lambda *given: team)
    monkeypatch.setattr(bench, "_seconds", lambda call: 1.25e-3)
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    for name, rows in FOUND.items():
        findings = [doctor.Finding(*row) for row in rows]
        monkeypatch.setattr(doctor, name, lambda *given, findings=findings: findings)
    monkeypatch.setattr(doctor, "EXTRAS", {"onnx": doctor.EXTRAS["onnx"]})
    monkeypatch.setattr(doctor, "_installed", lambda *given: f"not installed: {given[2]}")


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("name", MEASURED)
def test_tables_of_measurements(
    terminal: Callable[..., str], golden: Callable[[str, str], None], name: str
) -> None:
    fixed = ("--cpu", "x86-64-v2", "--threads", "1") if name != "doctor" else ()
    narrow, wide = (terminal(80, *MEASURED[name], *fixed, *more) for more in ((), ("--wide",)))
    assert max(map(len, narrow.splitlines())) <= 80
    golden(f"tables/{name}.txt", narrow)
    assert set(re.findall(r"[a-z]{6,}", narrow)) <= set(re.findall(r"[a-z]{6,}", f"{wide} figure"))


def test_doctor_says_what_it_found(terminal: Callable[..., str]) -> None:
    said = terminal(80, "doctor")
    assert "--wide shows" not in said
    assert re.search(rf"(?m)^python +{sys.version_info[0]}\.{sys.version_info[1]}", said)


def test_notes_break_between_words(convdsl, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("NO_COLOR", "1")
    asked = ("run", "several.cdsl", "--data", "random:0", "--batch", "3")
    piped = convdsl(*asked).err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for width in (30, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        said = convdsl(*asked).err
        assert max(map(len, said.splitlines())) <= width
        assert said.split() == piped.split()


def test_artifacts_of_several_sizes_say_so(convdsl, place: Path) -> None:
    several, one = place / "several.cdsl", place / "classes.cdsl"
    said = convdsl("report", several).err
    assert "figures for N = 1; there is code for N = 8; N = 64, too; --batch chooses" in said
    assert "figures for" not in convdsl("report", several, "--batch", "8").err
    assert "figures for" not in convdsl("report", one).err


def test_numbers_keep_their_units() -> None:
    text = "reading 35.9 GB/s from memory, 12 KB or 7 % of 3 us"
    grid = Grid(("what", "value"), (("speed", text),), frozenset())
    for width in range(20, 60):
        lines = draw(grid, width, color=False).splitlines()
        for piece in ("35.9 GB/s", "12 KB", "7 %", "3 us"):
            assert any(piece in line for line in lines), width
    assert "GB/s" in draw(grid, 5, color=False)  # no room for both


def test_help_fits(convdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in COMMANDS:
        said = convdsl(command, "--help").out
        assert max(map(len, said.splitlines())) <= 80, command


def test_pipes_have_all_columns(convdsl) -> None:
    said = convdsl("report", "resnet50", "--batch", "1").out
    heading, line = said.splitlines()[13:15]
    assert "receptive field" in heading
    assert max(map(len, said.splitlines())) == len(line) > 100
    assert "columns: without" not in said


def test_pipes_of_so_many_columns(convdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    """What COLUMNS says, of tables of all commands; not of messages, nor of what is no width."""
    whole = convdsl("report", "lenet5").out
    monkeypatch.setenv("COLUMNS", "72")
    for command in (("report", "lenet5"), ("ops",), ("explain",), ("passes",)):
        said = convdsl(*command).out
        assert max(map(len, said.splitlines())) <= 72, command
    assert "(72 columns: without" in convdsl("report", "lenet5").out
    assert convdsl("report", "lenet5", "--wide").out == whole
    assert "mark=" + "x" * 60 + "\n" in convdsl("check", "--wide-of-the-mark", "x" * 60).err
    for odd in ("0", "", "-80", "eighty"):
        monkeypatch.setenv("COLUMNS", odd)
        assert convdsl("report", "lenet5").out == whole


def test_one_long_row_stands_upright(terminal: Callable[..., str]) -> None:
    said = terminal(80, "bench", "lenet5", "--runs", "1", "--no-peak").splitlines()
    assert said[0].split() == ["figure", "value"]
    assert {line.split()[0] for line in said[2:]} >= {"model", "inputs", "threads", "runs"}


@pytest.mark.dear
def test_columns_of_one_kind_go_on_below(terminal: Callable[..., str]) -> None:
    """A sweep shows every value that was asked for, however narrow the terminal is."""
    widths = ("0.35", "0.5", "0.75", "1.0", "1.3", "1.4")
    asked = ("report", "mobilenet_v2", "--set", f"width={','.join(widths)}")
    for columns in (24, 80, 300):
        said = terminal(columns, *asked)
        assert [word for word in said.split() if word.startswith("width=")] == [
            f"width={width}" for width in widths
        ]
        assert "without" not in said
        heads = [line for line in said.splitlines() if line.startswith("figure")]
        assert len(heads) == {24: 6, 80: 3, 300: 1}[columns]


def test_widths_from_one_column_up() -> None:
    """Numbers stay whole however narrow it gets; what does not fit is told."""
    lines = (("a.long.name.of_a_layer", "1,234,567", "words that may go on below", "x + y*N"),)
    grid = Grid(("layer", "count", "note", "size"), lines, frozenset({1}), ("size", "note"))
    for width in range(1, 90):
        text = draw(grid, width, color=False)
        assert "1,234,567" in text
        assert ("without" in text) == ("size" not in text.splitlines()[0])
        if width >= 24:
            assert max(len(line) for line in text.splitlines()[:2]) <= width
    assert draw(grid, None, color=False).count("\n") == 3


def test_wide_characters_count_twice() -> None:
    grid = Grid(("name", "n"), (("図書館", "1"), ("ascii", "2")), frozenset({1}))
    assert draw(grid, None, color=False).splitlines()[2] == "図書館   1"


def test_colour_of_findings(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "lost.cnn"
    path.write_text("model m {\n    input x: f32[N, 3]\n    x -> rellu # \x1b[31m\n}\n")
    plain = convdsl("check", path).out
    painted = convdsl("check", path, "--color", "always").out
    assert "\x1b[1;31merror[E0201]" in painted
    assert "\x1b[1;31m^^^^^" in painted
    assert "\x1b[31m" not in painted  # what the file holds steers nothing
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == plain
    assert "\x1b[1;31merror[E0201]" in convdsl("report", path, "--color", "always").err
