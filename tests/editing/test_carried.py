"""What is carried over from an earlier text is what a fresh look at the later one finds."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from convdsl import zoo
from convdsl.diagnostics import Diagnostic
from convdsl.editing import analysis
from convdsl.editing.analysis import Analysis, analyse
from convdsl.editing.carried import Match, Origin
from convdsl.editing.finding import everything
from convdsl.editing.hover import shown_result
from convdsl.editing.meanings import symbol_of
from convdsl.editing.project import Project
from convdsl.elaborate.examination import Cancelled
from editing.texts import analysed

BLOCKS = """block unit(width, act = relu) { conv(width, 3x3) -> bn -> act }
block spare { relu }
"""
NET = """convdsl 1
use "blocks.cnn": unit
labels "names.txt"
let classes = 3
default conv(bias = false)
block gate(width) { in * (in -> conv(width, 1x1) -> sigmoid) }
block pair(width) {
    in -> unit(width) -> gate(width)  # both
}
block head { avgpool(global) -> flatten -> linear(classes) }
model small(width = 4) {
    input image: f32[N, 3, 8, 8]
    image -> unit(width) -> head -> output logits
}
model middle(width = 8) {
    input image: f32[N, 3, 8, 8]
    y = image -> pair(width)
    y -> pair(width) -> head -> output logits
}
model large(width = 16) {
    input image: f32[N, 3, 16, 16]
    y = image
    for i in range(3) { y = y -> seq "s{i}" { pair(width * (i + 1)) -> maxpool(2x2) } }
    y -> head -> output logits
}
train small {
    loss = cross_entropy(logits, label)
    optimizer = sgd(lr = 0.1)
}
"""
CHANGES = (
    ("unit(width)", "unit(width + 1)"),
    ("unit(width)", "unit( width )"),
    ("gate(width)", "gate"),
    ("gate", "spare"),
    ("unit", "unitt"),
    ("y = ", "z = "),
    ("\n", "\n\n"),
    ("\n", "  # said\n"),
    ("\n", '  # "said"\n'),
    ("    ", "        "),
    ("relu", "gelu"),
    ("sigmoid", "conv(3, 9x9, pad = 0)"),
    ("head", "tail"),
    ("width", "breadth"),
    ("3", "5"),
    ("8, 8", "8, 9"),
    ("16", "3*  3"),
    ("3x3", "3 * 3"),
    ("bias = false", "bias = true"),
    ("bias", "bais"),
    ("model middle", "model small"),
    ("model middle", "model relu"),
    ("block gate", "block flatten"),
    ("block gate", "block head"),
    ("(width = 8)", "(width)"),
    ("(width = 8)", "(width = 8, width = 9)"),
    ("(width = 8)", "(width = 8, spare = 9)"),
    ("train small", "train large"),
    ("train small", "train nobody"),
    ("train small", "train"),
    ("sgd", "adam"),
    ("lr", "rl"),
    ("label)", "labels)"),
    ("logits", "scores"),
    ("let classes = 3", "let classes = 4"),
    ("    y -> head", "    let _twice = pair\n    y -> _twice(4) -> _twice(4) -> head"),
    ("    y -> head", "    let twice = pair\n    y -> twice(4) -> twice(4) -> head"),
    ("    y -> head", "    rellu\n    y -> head"),
    ("    y -> head", "    let forgotten = 1\n    y -> head"),
    ("    y -> head", "    w = y -> relu\n    y -> head"),
    ("head -> output", "head -> -> output"),
    ("}", ""),
    ("model large", "block huge { conv(4, 3x3) }\nmodel large"),
    ("model large", "model huge {\n    input x: f32[N, 3, 8, 8]\n    x -> unit(2)\n}\nmodel large"),
    ("model large", "default relu()\nmodel large"),
    ("model large", "assert classes > 3\nmodel large"),
    ('use "blocks.cnn"', 'use "others.cnn"'),
)
OTHERS = (
    BLOCKS,
    BLOCKS.replace("relu }", "rellu }"),
    BLOCKS.replace("3x3", "9x9, pad = 0"),
    BLOCKS.replace("block unit", "# here\nblock unit"),
    BLOCKS.replace("unit", "other"),
    BLOCKS.replace("}", ""),
)
NAMES = ("one\ntwo\nthree\n", "one\ntwo\n", "\n")


def told(findings: tuple[Diagnostic, ...]) -> list[object]:
    return [json.loads(json.dumps(finding.to_json())) for finding in findings]


def known(of: Analysis) -> Iterator[tuple[Any, ...]]:
    """What is known of every node of a text, and of its models."""
    for examination in of.examinations:
        made = examination.made
        yield examination.model, made and made.shares_training, list(examination.graph.outputs)
    for item in of.reading.tree.items:
        for node in everything(item):
            layers = [
                (e.model, a.name, a.first, a.last, shown_result(a.result))
                for e, a in of.applied(node)
            ]
            values = list(map(shown_result, of.values(node)))
            callees = list(map(symbol_of, of.callees(node)))
            yield type(node), node.span.start, node.span.end, layers, values, callees


def agree(of: Analysis, fresh: Analysis) -> None:
    assert told(of.findings) == told(fresh.findings), of.reading.text
    assert of.reading.text == fresh.reading.text
    assert of.asked == fresh.asked
    if of.reading.whole:
        assert list(known(of)) == list(known(fresh)), of.reading.text


class Writer:
    """Changes texts of a project one after the other, and looks at each as the server does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = Project(zoo.folder())
        self.place = folder / "net.cnn"
        self.texts = {"net.cnn": NET, "blocks.cnn": BLOCKS}
        (folder / "names.txt").write_text(NAMES[0])
        self.good: Analysis | None = None
        self.latest: Analysis | None = None
        self.origins: dict[str, Origin] = {}

    def look(self, wanted: Callable[[], bool] = lambda: True) -> Analysis:
        for name, text in self.texts.items():
            self.project.set_text(self.folder / name, text)
        before = self.good or self.latest
        *_, self.latest = analyse(self.project, self.place, before, wanted, self.origins)
        if self.latest.reading.whole:
            self.good = self.latest
        return self.latest

    def glance(self, patience: int) -> None:
        """Look, and change one's mind before it ends or after."""
        asked = itertools.count()
        with contextlib.suppress(Cancelled):
            self.look(lambda: next(asked) < patience)

    def fresh(self) -> Analysis:
        project = Project(zoo.folder())
        for name, text in self.texts.items():
            project.set_text(self.folder / name, text)
        return analysed(self.place, None, project)

    def replace(self, old: str, new: str, which: int) -> None:
        parts = self.texts["net.cnn"].split(old)
        if len(parts) > 1:
            at = which % (len(parts) - 1) + 1
            self.texts["net.cnn"] = f"{old.join(parts[:at])}{new}{old.join(parts[at:])}"


@pytest.mark.drawn(share=12)
@pytest.mark.parametrize("change", CHANGES)
def test_one_change_and_back(tmp_path: Path, change: tuple[str, str]) -> None:
    """Of every change at the places where it can be made, up to three of them."""
    writer = Writer(tmp_path.resolve())
    agree(writer.look(), writer.fresh())
    for which in range(min(3, NET.count(change[0]))):
        writer.texts["net.cnn"] = NET
        writer.replace(*change, which)
        broken = writer.look()
        if broken.reading.whole:
            agree(broken, writer.fresh())
        writer.texts["net.cnn"] = NET
        agree(writer.look(), writer.fresh())


@pytest.mark.dear
@pytest.mark.parametrize("seed", range(8))
def test_changes_upon_changes(tmp_path: Path, seed: int) -> None:
    """Changes of the text, of what it imports, and of the names of its classes."""
    draw = random.Random(seed)
    writer = Writer(tmp_path.resolve())
    for step in range(60):
        if draw.random() < 0.15:
            writer.texts["blocks.cnn"] = draw.choice(OTHERS)
        elif draw.random() < 0.1:
            (writer.folder / "names.txt").write_text(draw.choice(NAMES))
        elif draw.random() < 0.25:
            writer.texts = {"net.cnn": NET, "blocks.cnn": BLOCKS}
        else:
            writer.replace(*draw.choice(CHANGES), draw.randrange(9))
        if draw.random() < 0.4:
            writer.glance(draw.randrange(200))
            continue
        found = writer.look()
        if found.reading.whole and step % 2:
            agree(found, writer.fresh())


MODEL = "model {} {{\n    input x: f32[N, 3, 8, 8]\n    x -> conv(4, 3x3) -> output {}\n}}\n"
TRAIN = "train {\n    loss = mse(first, target)\n    optimizer = sgd(lr = 0.1)\n}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            MODEL.format("a", "first") + MODEL.format("b", "first") + TRAIN,
            MODEL.format("b", "first") + TRAIN,
            id="what all models share binds the one that is left",
        ),
        pytest.param(
            MODEL.format("a", "first"),
            MODEL.format("a", "first") + 2 * "block c { relu }\n",
            id="two blocks of one name that nothing uses",
        ),
        pytest.param(
            MODEL.format("a", "first") + "block c(d, e) { conv(d, e) }\n",
            MODEL.format("a", "first") + "block c(d, d) { conv(d, d) }\n",
            id="two parameters of one name of a block that nothing uses",
        ),
        pytest.param(
            MODEL.format("a", "first") + "block c { let t = relu\n t -> t }\nblock d { relu }\n",
            MODEL.format("a", "first") + "block c { let t = d\n t -> t }\nblock d { conv(4) }\n",
            id="a block by its bare name",
        ),
    ],
)
def test_what_is_said_of_all_models(tmp_path: Path, before: str, after: str) -> None:
    writer = Writer(tmp_path.resolve())
    for text in (before, after, before, after):
        writer.texts["net.cnn"] = text
        agree(writer.look(), writer.fresh())


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (("\n", "  # said\n"), []),
        (("y = image -> pair", "y = image -> relu -> pair"), ["middle"]),
        (("range(3)", "range(2)"), ["large"]),
        (("block gate(width) {", "block gate(width) { relu ->"), ["middle", "large"]),
        (("sgd", "adam"), ["small", "middle", "large"]),
    ],
)
def test_what_is_looked_at_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[str, str],
    again: list[str],
) -> None:
    """The models that a change concerns, and no other."""
    writer = Writer(tmp_path.resolve())
    writer.look()
    looked: list[str | None] = []
    examine = analysis.examine

    def counted(source: Any, tree: Any, model: str | None, *rest: Any) -> Any:
        looked.append(model)
        return examine(source, tree, model, *rest)

    monkeypatch.setattr(analysis, "examine", counted)
    writer.replace(*change, 5)
    writer.look()
    assert sorted(map(str, looked)) == sorted(again)


def test_what_was_found_before_it_was_ended_is_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone types while the last of three models is looked at."""
    writer = Writer(tmp_path.resolve())
    looked: list[str | None] = []
    examine = analysis.examine

    def examined(source: Any, tree: Any, model: str | None, *rest: Any) -> Any:
        looked.append(model)
        if len(looked) == 3:
            raise Cancelled
        return examine(source, tree, model, *rest)

    monkeypatch.setattr(analysis, "examine", examined)
    with pytest.raises(Cancelled):
        writer.look()
    writer.replace("\n", "  # said\n", 5)
    now = writer.look()
    assert looked[2:] == [looked[2]] * 2
    agree(now, writer.fresh())


def test_comments_and_spaces_say_nothing() -> None:
    """And what looks like a comment inside of a text does."""
    project = Project(None)
    old = project.parsed(Path("/a.cnn"), 'block b { conv(2) as "a# b" -> relu }\n')
    for text, alike in (
        ('block  b  { conv(2) as "a# b" -> relu }  # so\n', True),
        ('block b {\n# x\n  conv(2) as "a# b" -> relu }\n', False),
        ('block b { conv(2) as "a# c" -> relu }\n', False),
        ('block b { conv(2) as "a#  b" -> relu }\n', False),
        ('block b { conv(3) as "a# b" -> relu }\n', False),
    ):
        new = project.parsed(Path("/a.cnn"), text)
        assert Match(old, new).alike(old.tree.items[0], new.tree.items[0]) is alike, text
