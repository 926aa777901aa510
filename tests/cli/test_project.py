"""convdsl.toml: budgets by model and size, the list of models, mistakes in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import convdsl as package
from convdsl.project.budgets import FIGURES

# small, as test_budgets has it: 267 parameters and 16 statistics; 13,824 products of the
# convolution and 24 of the linear layer; the convolution sees 3 x 3
PARAMS, MACS, WEIGHTS = 267, 13_848, 4 * (267 + 16)
MEMORY = WEIGHTS + 2 * 2_048


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def found(convdsl: Any, *arguments: object) -> list[dict[str, Any]]:
    said = convdsl("check", *arguments, "--format", "json")
    rows = json.loads(said.out)
    assert said.code == (1 if rows else 0)
    assert said.err == ""
    return rows


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("params", PARAMS),
        ("macs", MACS),
        ("memory", MEMORY),
        ("weights", WEIGHTS),
        ("flops", 0),
        ("receptive_field", 3),
    ],
)
def test_at_the_budget_and_one_beyond(convdsl, project: Path, name: str, figure: int) -> None:
    model = "small.cnn"
    if name == "flops":  # of a network from elsewhere: this one has none so simple to add up
        model = "lenet.cnn"
        figure = package.report(package.zoo.find("lenet5").path, batch=1).totals["flops"]
        Path(model).write_text(package.zoo.find("lenet5").path.read_text())
    for limit, count in ((figure, 0), (figure + 1 if FIGURES[name].is_least else figure - 1, 1)):
        Path("convdsl.toml").write_text(f'[budget."*"]\n\n{name} = {limit}\n')
        rows = found(convdsl, model)
        assert len(rows) == count
        for row in rows:
            assert (row["file"], row["line"]) == ("convdsl.toml", 3)
            assert f"{figure:,}" in row["message"]
            assert f"{limit:,}" in row["message"]
            assert row["labels"][1]["file"] == model
            assert row["help"]


def test_shown_with_both_places(convdsl, project: Path) -> None:
    Path("convdsl.toml").write_text("[budget.small]\nparams = 100 # few\n")
    said = convdsl("check", "small.cnn")
    assert said.out == (
        "error[E1001]: `small` has 267 parameters; the budget is 100\n"
        " --> convdsl.toml:2:10\n"
        "  |\n"
        "2 | params = 100 # few\n"
        "  |          ^^^ the budget\n"
        " ::: small.cnn:4\n"
        "4 | model small(classes = 3) {\n"
        "  |       ----- this model\n"
        "  |\n"
        "   = help: most in conv1 (224), fc (27), bn1 (16)\n"
    )


def test_every_size_of_a_model_has_its_own(convdsl, project: Path) -> None:
    Path("convdsl.toml").write_text(
        '[[budget."sized.cnn:sized"]]\ninput = "1x8x8"\nmacs = 1152\n'
        '[[budget."sized.cnn:sized"]]\ninput = { image = "1x16x8" }\nbatch = 2\nmacs = "4.6K"\n'
        "[[budget.small]]\nset = { classes = 9 }\nparams = 321\n"
        "[[budget.small]]\nset = { classes = 10 }\nparams = 321\n"
    )
    small = Path("small.cnn").read_text()
    Path("small.cnn").write_text(small.replace('labels "names.txt"', ""))  # which are three
    rows = found(convdsl, "sized.cnn", "small.cnn")
    assert [(row["code"], row["line"]) for row in rows] == [("E1002", 7), ("E1001", 13)]
    assert "4,608" in rows[0]["message"]  # 2 filters of 9 taps at 2 x 128 places
    assert "330" in rows[1]["message"]  # 9 x 8 + 9 more in the linear layer


def test_what_the_command_line_says_stands_over_the_file(convdsl, project: Path) -> None:
    Path("convdsl.toml").write_text("[budget.small]\nparams = 1\nmacs = 1\nbatch = 2\n")
    assert [row["code"] for row in found(convdsl, "small.cnn")] == ["E1001", "E1002"]
    assert f"{2 * MACS:,}" in found(convdsl, "small.cnn")[1]["message"]
    rows = found(convdsl, "small.cnn", "--max-params", "1K", "--batch", "3")
    assert [row["code"] for row in rows] == ["E1002"]
    assert f"{3 * MACS:,}" in rows[0]["message"]
    rows = found(convdsl, "small.cnn", "--max-params", "2", "--max-macs", "1G")
    assert [(row["code"], row["file"]) for row in rows] == [("E1001", "small.cnn")]


def test_it_is_found_upward(convdsl, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("convdsl.toml").write_text("[budget.small]\nparams = 1\n")
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    (project / "small.cnn").rename(deep / "small.cnn")
    (project / "names.txt").rename(deep / "names.txt")
    (row,) = found(convdsl, "a/b/small.cnn")
    assert row["file"] == "convdsl.toml"
    monkeypatch.chdir(deep)
    (row,) = found(convdsl, "small.cnn")
    assert row["file"] == "../../convdsl.toml"
    (deep / "convdsl.toml").write_text("")  # the nearest one counts
    assert found(convdsl, "small.cnn") == []


def test_all_models_of_the_list(convdsl, project: Path) -> None:
    toml = Path("convdsl.toml")
    toml.write_text('models = ["s*.cnn", "small.cnn"]\n')
    said = convdsl("check")
    assert said == (0, "", "note: 2 files checked, nothing found\n")
    toml.write_text('models = ["small.cnn", "miss*.cnn"]\n[budget.smal]\nparams = 1\n')
    rows = found(convdsl)
    assert [(row["code"], row["line"], row["help"]) for row in rows] == [
        ("E1104", 1, ["there are sized.cnn, small.cnn, two.cnn"]),
        ("E1104", 2, ["did you mean `small`?"]),
    ]
    assert found(convdsl, "convdsl.toml") == rows  # and so do hooks, of a file that has changed
    (Path("sub")).mkdir()
    assert [row["file"] for row in found(convdsl, "sub/../convdsl.toml")] == ["convdsl.toml"] * 2
    # of one file alone, too: the list says which models there are besides
    assert found(convdsl, "small.cnn") == rows[1:]
    toml.write_text("[budget.smal]\nparams = 1\n[budget.other]\nparams = 1\n")
    told = found(convdsl, "small.cnn")  # `other` may be in some folder
    assert [(row["line"], row["help"]) for row in told] == [(1, ["did you mean `small`?"])]
    Path("more.cnn").write_text(
        "model smal { input x: f32[N, 3] x -> output y }\n".replace("] ", "]\n")
    )
    assert found(convdsl, "small.cnn") == []


def test_without_a_file_something_has_to_say_which(convdsl, project: Path) -> None:
    said = convdsl("check")
    assert (said.code, said.out) == (2, "")
    assert "no FILE is named" in said.err
    Path("convdsl.toml").write_text("")
    assert 'convdsl.toml lists no models: models = ["net.cnn"]' in convdsl("check").err
    assert convdsl("fmt").code == 2
    Path("convdsl.toml").write_text('models = ["small.cnn"]')
    assert convdsl("fmt", "--check") == (0, "", "")


def test_an_artifact_has_a_size(convdsl, project: Path) -> None:
    made = package.compile("small.cnn", "random:0")
    made.save("small.cdsl")
    size = Path("small.cdsl").stat().st_size
    for limit, count in ((size, 0), (size - 1, 1)):
        Path("convdsl.toml").write_text(f"[budget.small]\nartifact = {limit}\n")
        said = convdsl("check", "small.cdsl", "--format", "json", "--quiet")
        assert [row["code"] for row in json.loads(said.out)] == ["E1007"] * count
        assert said.code == count
    assert convdsl("check", "small.cdsl", "--max-artifact", "1GB", "--quiet") == (0, "", "")


MISTAKES = {
    "no TOML": ("[budget.small\n", "E1101", 1, "this is no TOML: expected ']' at the end"),
    "unfinished": ('models = ["a"', "E1101", 1, "this is no TOML: unclosed array"),
    "an amount as a word": ("[budget.small]\nparams = 5M # most\n", "E1101", 2, 'params = "5M"'),
    "a path as a word": ("[budget]\nmodels = a/b.cnn\n", "E1101", 2, 'models = "a/b.cnn"'),
    "typo of a table": ("[budgets.small]\nparams = 1\n", "E1102", 1, "did you mean `budget`?"),
    "typo of a limit": ("[budget.small]\nparms = 1\n", "E1102", 2, "did you mean `params`?"),
    "unlike anything": ("[budget.small]\nzzz = 1\n", "E1102", 2, "there are params, macs"),
    "no amount": ('[budget.small]\nparams = "5 X"\n', "E1103", 2, 'params = 5000000, or "5M"'),
    "negative": ("[budget.small]\nmacs = -1\n", "E1103", 2, "a number from 0 up"),
    "a fraction": ("[budget.small]\nmacs = 1.5\n", "E1103", 2, "a number from 0 up"),
    "a limit of true": ("[budget.small]\nmacs = true\n", "E1103", 2, "a number from 0 up"),
    "no batch": ("[budget.small]\nbatch = 0\n", "E1103", 2, "a whole number from 1 up"),
    "no size": ('[budget.small]\ninput = "3x"\n', "E1103", 2, 'input = "3x224x224"'),
    "no size of one": (
        '[budget.small]\ninput = { image = 3 }\n', "E1103", 2, 'input = "3x224x224"'
    ),
    "a size that does not fit": (
        '[budget.small]\nparams = 9\ninput = "4x8x8"\n', "E1103", 3, "image"
    ),
    "set is no table": ("[budget.small]\nset = 3\n", "E1103", 2, "a table of parameters"),
    "a limit without a model": ("[budget]\nparams = 1\n", "E1103", 2, "under a model's name"),
    "no tables": ("budget = 1\n", "E1103", 1, "a table for each model"),
    "models outside": ('models = ["../x.cnn"]\n', "E1103", 1, "below here"),
    "models of the root": ('models = ["/net.cnn"]\n', "E1103", 1, "below here"),
    "no pattern": ('models = ["**.cnn"]\n', "E1103", 1, "below here"),
    "no path": ('models = ["a\\u0000"]\n', "E1103", 1, "below here"),
    "without end": (f"a = {'[' * 9_999}{']' * 9_999}", "E1101", 1, "brackets within brackets"),
    "too much of a number": ("[budget.small]\nmacs = 9" + "9" * 30, "E1103", 2, "from 0 up"),
    "a time": ("[budget.small]\nbatch = 07:32:00\n", "E1103", 2, "from 1 up"),
    "an empty key": ('"" = 1\n', "E1102", 1, "no table or list is called ``"),
    "models of numbers": ('models = ["small.cnn",\n 3]\n', "E1103", 2, "below here"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code", "line", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(convdsl, project: Path, text: str, code: str, line: int, words: str) -> None:
    Path("convdsl.toml").write_text(text)
    rows = found(convdsl, "small.cnn")
    assert [(r["code"], r["file"], r["line"]) for r in rows] == [(code, "convdsl.toml", line)]
    assert words in "\n".join([rows[0]["message"], *rows[0]["help"]])


def test_all_mistakes_at_once_and_the_models_too(convdsl, project: Path) -> None:
    Path("convdsl.toml").write_text('model = "x"\n[budget.small]\nparms = 1\nmacs = "x"\n')
    Path("wrong.cnn").write_text("model wrong { input x: f32[N, 3]\nx -> relv }\n")
    rows = found(convdsl, "small.cnn", "wrong.cnn")
    assert [row["code"] for row in rows] == ["E1102", "E1102", "E1103", "E0201"]


def test_a_parameter_that_is_set_wrongly_is_shown_with_its_line(convdsl, project: Path) -> None:
    Path("convdsl.toml").write_text("[budget.small]\nparams = 1\nset = { clases = 3 }\n")
    (row,) = found(convdsl, "small.cnn")
    assert row["code"] == "E0605"
    assert [(x["file"], x["line"]) for x in row["labels"]][-1] == ("convdsl.toml", 3)


def test_a_budget_that_changed_is_held_against_its_models(convdsl, project: Path) -> None:
    Path("convdsl.toml").write_text('models = ["small.cnn"]\n[budget.small]\nparams = 1\n')
    (row,) = found(convdsl, "convdsl.toml")
    assert (row["code"], row["line"]) == ("E1001", 3)
    assert found(convdsl, "convdsl.toml", "small.cnn") == [row]


def test_files_that_are_no_text_are_findings_each(convdsl, project: Path) -> None:
    for name in ("a.cnn", "b.cnn"):
        Path(name).write_bytes(b"\xff")
    assert [r["code"] for r in found(convdsl, "a.cnn", "b.cnn", "small.cnn")] == ["E0704"] * 2


def test_a_file_that_is_no_text(convdsl, project: Path) -> None:
    Path("convdsl.toml").write_bytes(b"\xff\xfe")
    (row,) = found(convdsl, "small.cnn")
    assert (row["code"], row["message"]) == ("E1101", "convdsl.toml is not UTF-8 text")


def test_a_receptive_field_of_what_has_none(convdsl, project: Path) -> None:
    Path("convdsl.toml").write_text('[budget."*"]\nreceptive_field = 1\n')
    Path("flat.cnn").write_text("model flat { input x: f32[N, 3]\nx -> linear(2) }\n")
    Path("whole.cnn").write_text(
        "model whole { input x: f32[N, 3, H, W]\nx -> resize(scale = 2) -> output y }\n"
    )
    (row,) = found(convdsl, "flat.cnn", "whole.cnn")
    assert "`flat` has a receptive field of unknown" in row["message"]


def test_open_sizes_have_to_be_said(convdsl, project: Path) -> None:
    Path("convdsl.toml").write_text("[budget.sized]\nmacs = 1000\n")
    (row,) = found(convdsl, "sized.cnn")
    assert row["help"] == ['say the sizes that are open: input = "CxHxW"']
