"""`convdsl diff`."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from convdsl.cli import diff
from convdsl.cli.revisions import at_revision
from convdsl.reporting.comparison import LONGEST, Change, comparison_markdown
from convdsl.tensor import symbol

N = symbol("N")


def test_equal_models(convdsl, small: Path) -> None:
    assert convdsl("diff", small, small) == (0, "", "note: the models do not differ\n")
    assert convdsl("diff", small, small, "--format", "json") == (0, "[]\n", "")


def test_differences_by_layer_and_in_total(convdsl, small: Path) -> None:
    other = small.parent / "other.cnn"
    text = (
        small.read_text().replace("conv(8, 3x3)", "conv(8, 5x5)").replace("-> relu ", "-> relu6 ")
    )
    other.write_text(text)
    said = convdsl("diff", small, other, "--batch", 1, "--format", "json")
    assert said.code == 1
    rows = {(row["layer"], row["what"]): (row["old"], row["new"]) for row in json.loads(said.out)}
    assert rows["conv1", "params"] == (8 * 27 + 8, 8 * 75 + 8)
    assert rows["conv1", "kernel"] == ("3", "5")
    assert rows["conv1", "macs"] == (8 * 27 * 64, 8 * 75 * 64)
    assert rows["relu", "layer"] == ("relu f32[1, 8, 8, 8]", None)
    assert rows["relu6", "layer"] == (None, "relu6 f32[1, 8, 8, 8]")
    old, new = rows["total", "params"]
    assert new - old == 8 * 48
    assert not any(layer == "fc" for layer, _ in rows)
    assert "conv1" in convdsl("diff", small, other).out


def test_parameters_and_symbols(convdsl, folder: Path) -> None:
    said = convdsl("diff", folder / "sized.cnn", folder / "two.cnn", "--format", "json")
    assert said.code == 1
    rows = {(row["layer"], row["what"]): row["old"] for row in json.loads(said.out)}
    assert rows["conv1", "layer"] == "conv f32[N, 2, H, W]"
    assert rows["total", "macs"] == "18*N*H*W"
    assert convdsl("diff", "resnet18", "resnet19").code == 2


def test_each_side_has_settings_of_its_own(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "net.cnn"
    path.write_text(
        "model net(width = 8, classes = 3) {\n    input x: f32[N, 2, 4, 4]\n"
        "    x -> scope body { conv(width, 3x3) -> relu -> conv(width, 1x1) } -> avgpool(global)\n"
        "      -> flatten -> linear(classes) -> output y\n}\n"
    )
    given = ("diff", path, path, "--set", "classes=5", "--batch", 1, "--format", "json")
    assert convdsl(*given).code == 0
    said = convdsl(*given, "--set-a", "width=4", "--set-b", "width=16", "--depth", 1)
    rows = {(row["layer"], row["what"]): row for row in json.loads(said.out)}
    old, new = 4 * 19 + 4 * 5, 16 * 19 + 16 * 17
    found = rows["body", "params"]
    assert (found["old"], found["new"]) == (old, new)
    assert found["change %"] == round(100 * (new - old) / old, 2)
    assert rows["body", "output"]["change %"] is None
    assert rows["linear", "params"]["new"] == 5 * 17
    assert ("body.conv", "params") not in rows
    assert next(iter(rows))[0] == "total"
    over = convdsl(*given, "--set-b", "classes=7").out
    assert any(row["what"] == "params" and row["layer"] == "linear" for row in json.loads(over))
    assert convdsl("diff", path, path, "--set-b", "widht=2").code == 2


def test_polynomials_have_a_percentage_where_one_is_a_multiple_of_the_other(
    convdsl, folder: Path
) -> None:
    path = folder / "sized.cnn"
    path.write_text(path.read_text().replace("model sized", "model sized(filters = 2)"))
    path.write_text(path.read_text().replace("conv(2,", "conv(filters,"))
    said = convdsl("diff", path, path, "--set-b", "filters=3", "--format", "json")
    rows = {(row["layer"], row["what"]): row for row in json.loads(said.out)}
    assert rows["conv1", "macs"]["new"] == "27*N*H*W"
    assert rows["conv1", "macs"]["change %"] == 50.0
    assert rows["total", "peak_activation_bytes"]["change %"] is None  # a largest of several
    flops = rows["total", "flops"]
    assert (flops["old"], flops["change %"]) == ("38*N*H*W", 50.0)
    # 1 x 1 more somewhere: no multiple
    path.write_text(path.read_text().replace("-> output", "-> linear(4) -> output"))
    said = convdsl("diff", path, path, "--set-b", "filters=3", "--format", "json")
    rows = {(row["layer"], row["what"]): row for row in json.loads(said.out)}
    assert rows["total", "activations"]["change %"] is None


@pytest.mark.parametrize(
    ("old", "new", "percent"),
    [
        (10, 0, -100.0),
        (0, 10, None),
        (1000 * N + 2, 1500 * N + 3, 50.0),
        (21_475_328 * N + 240, 41_846_784 * N + 360, 94.86),  # 94.86 of one sample, too
        (2 * N + 2, 4 * N + 2, None),  # from 50 to 100
        (2 * N + 2, 4 * N, None),
        (2 * N, 3 * N + 1, None),
        (3, "3", None),
        (N, None, None),
    ],
)
def test_growth_of_sums_is_told_where_it_hardly_depends_on_sizes(
    old: object, new: object, percent: float | None
) -> None:
    assert diff._percent(old, new) == percent


# Markdown for pull requests


def tables(text: str) -> list[list[list[str]]]:
    """The tables of Markdown, as another reader of it sees them: rows of cells."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level > 3:
            found[-1][-1].append("".join(x.content for x in token.children or ()))
    return found


def test_markdown(convdsl, small: Path) -> None:
    other = small.parent / "other.cnn"
    other.write_text(
        small.read_text().replace("conv(8, 3x3)", "conv(8, 5x5)").replace("-> relu ", "-> relu6 ")
    )
    said = convdsl("diff", small, other, "--batch", 1, "--format", "md")
    assert (said.code, said.err) == (1, "")
    totals, layers = tables(said.out)
    assert totals[0] == ["total", "before", "after", "change"]
    rows = {row[0]: row[1:] for row in totals}
    assert rows["params"] == ["267", "651", "+143.8 %"]
    assert rows["activations"][-1] == "="
    assert ["relu", "removed", "relu f32[1, 8, 8, 8]", "–", ""] in layers
    assert ["conv1", "params", "224", "608", "+171.4 %"] in layers
    assert "<details><summary>1 layer changed, 1 added, 1 removed</summary>\n\n|" in said.out
    assert said.out.endswith("|\n\n</details>\n")
    said = convdsl("diff", small, small, "--format", "md")
    assert said.code == 0
    assert "</details>" not in said.out
    assert said.out.endswith("The layers do not differ.\n")


@pytest.mark.dear
def test_markdown_of_a_large_change_fits_a_comment(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "deep.cnn"
    path.write_text(
        "model deep(width = 8) {\n    input x: f32[N, 3, 8, 8]\n"
        '    x -> for i in range(600) { conv(width, 3x3) as "a_rather_long_name_of_layer_{i}" }\n'
        "}\n"
    )
    said = convdsl("diff", path, path, "--set-b", "width=12", "--format", "md")
    assert said.code == 1
    assert LONGEST - 200 < len(said.out) <= LONGEST
    _, layers = tables(said.out)
    left = re.search(r"^([\d,]+) more rows have no room in a comment", said.out, re.MULTILINE)
    assert left is not None
    listed = convdsl("diff", path, path, "--set-b", "width=12", "--format", "json").out
    changes = [row for row in json.loads(listed) if row["layer"] != "total"]
    assert len(layers) - 1 + int(left[1].replace(",", "")) == len(changes)
    assert "<summary>600 layers changed</summary>" in said.out


def test_markdown_of_names_that_strangers_chose() -> None:
    name = "a|b`c\n<script>@user #1 [x](y) **z**"
    change = Change(name, "layer", f"op {name}", None, None)
    text = comparison_markdown(
        (name, "n" * 999), [Change("total", "params", 1, 2, 100.0)], [change]
    )
    _, layers = tables(text)
    plain = " ".join(name.replace("`", "'").split())
    assert layers[1] == [plain, "removed", f"op {plain}", "–", ""]
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script" not in html
    assert "<strong" not in html
    assert "n" * 201 not in text


# Revisions of git


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose first commit has another block, labels, and a network in a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    (tmp_path / "convdsl.toml").write_text("")
    nets = tmp_path / "nets ü"
    nets.mkdir()
    (tmp_path / "blocks.cnn").write_text("block body(w) { conv(w, 3x3) as c -> relu }\n")
    (nets / "names.lst").write_text("cat\ndog\n")
    (nets / "net.cnn").write_text(
        'use "../blocks.cnn": body\nmodel net {\n    labels "names.lst"\n'
        "    input x: f32[N, 3, 8, 8]\n"
        "    x -> body(4) -> avgpool(global) -> flatten -> linear(2) as head -> output y\n}\n"
    )
    git("init", "-q", "-b", "main")
    commit("first")
    git("tag", "v1")
    (tmp_path / "blocks.cnn").write_text("block body(w) { conv(w, 5x5) as c -> relu }\n")
    return tmp_path


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def commit(message: str) -> None:
    git("add", "-A")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    git(*who, "commit", "-q", "-m", message)


def differing(convdsl: Any, *arguments: object) -> dict[tuple[str, str], tuple[Any, Any]]:
    said = convdsl("diff", *arguments, "--format", "json")
    rows = {(r["layer"], r["what"]): (r["old"], r["new"]) for r in json.loads(said.out)}
    assert (said.code, said.err) == (1 if rows else 0, "")
    return rows


@pytest.mark.dear(share=4)
def test_against_a_revision(convdsl, history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = "nets ü/net.cnn"
    for revision in ("main", "HEAD", "v1", "v1^{commit}"):
        rows = differing(convdsl, "--against", revision, net)
        assert rows["body.c", "kernel"] == ("3", "5")  # of what it imports
        assert rows["body.c", "params"] == (4 * 28, 4 * 76)
    commit("second")
    assert differing(convdsl, "--against", "HEAD", net) == {}
    assert differing(convdsl, "--against", "HEAD~1", f"{net}:net") == rows
    monkeypatch.chdir(history / "nets ü")
    assert differing(convdsl, "--against", "v1", "net.cnn") == rows
    said = convdsl("diff", "--against", "v1", "net.cnn", "--format", "md")
    assert said.out.startswith("### `v1:net.cnn` → `net.cnn`\n")
    git("status", "--porcelain")
    assert not list(history.glob("**/convdsl-*"))


def test_every_model_of_a_file_against_a_revision(convdsl, history: Path) -> None:
    text = "".join(
        f"model m{i} {{\n    input x: f32[N, 3, 8, 8]\n    x -> conv(4, 3x3) as c\n}}\n"
        for i in range(3)
    )
    Path("three.cnn").write_text(text.split("model m2")[0])
    commit("two")
    Path("three.cnn").write_text(text.replace("conv(4", "conv(8", 1))
    said = convdsl("diff", "--against", "HEAD", "three.cnn", "--format", "json")
    assert said.err == "note: three.cnn:m2 is new\n"
    assert {(r["model"], r["layer"]) for r in json.loads(said.out)} == {
        ("m0", "total"),
        ("m0", "c"),
    }
    said = convdsl("diff", "--against", "HEAD", "three.cnn", "--format", "md", "-q")
    assert re.findall("^### .*", said.out, re.MULTILINE) == [
        f"### `HEAD:three.cnn:{name}` → `three.cnn:{name}`" for name in ("m0", "m1")
    ]
    said = convdsl("diff", "--against", "HEAD", "three.cnn")
    assert said.out.startswith("three.cnn:m0:\nlayer ")
    assert "three.cnn:m1: the models do not differ" in said.err
    assert convdsl("diff", "--against", "HEAD", "three.cnn:m1").code == 0
    said = convdsl("diff", "--against", "HEAD", "blocks.cnn")
    assert said == (0, "", "note: blocks.cnn holds no model\nnote: nothing was compared\n")


def test_what_is_wrong_in_the_revision_has_its_place_there(convdsl, history: Path) -> None:
    (history / "blocks.cnn").write_text("block body(w) { conv(w, 5x5) as c -> rellu }\n")
    commit("wrong")
    (history / "blocks.cnn").write_text("block body(w) { conv(w, 5x5) as c -> relu }\n")
    said = convdsl("diff", "--against", "HEAD", "nets ü/net.cnn")
    assert said.code == 2
    assert "--> HEAD:blocks.cnn:1:" in said.err
    assert "at HEAD:nets ü/net.cnn:5" in said.err
    assert str(history) not in said.err.replace("HEAD:", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--against", "mian", "nets ü/net.cnn"), "git knows no revision mian"),
        (("--against", "--output=x", "nets ü/net.cnn"), "no option --output=x; did you mean"),
        (("--against", "--xyzzy", "nets ü/net.cnn"), "a value is missing: --against REV"),
        (("--against=--output=x", "nets ü/net.cnn"), "git knows no revision --output=x"),
        (("--against=-h", "nets ü/net.cnn"), "git knows no revision -h"),
        (("--against", "main", "new.cnn"), "main has no new.cnn"),
        (("--against", "main", "lenet5"), "--against compares a file; lenet5 is none"),
        (("--against", "main", "new.cnn", "blocks.cnn"), "or with --against REV one file"),
        (("new.cnn",), "diff takes two models"),
    ],
)
def test_mistakes_with_revisions(
    convdsl, history: Path, arguments: tuple[str, ...], words: str
) -> None:
    Path("new.cnn").write_text("model m { input x: f32[N, 3]\nx -> relu }\n")
    said = convdsl("diff", *arguments)
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert not Path("x").exists()


def test_links_and_large_files_of_a_revision_stay_there(
    convdsl, history: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    Path("weights.bin").write_bytes(bytes(1 << 21))
    Path("link.cnn").symlink_to("/etc/hostname")
    commit("more")
    git("rm", "-q", "weights.bin")
    with at_revision("nets ü/net.cnn", "HEAD") as place:
        top = Path(place).parent.parent
        names = {p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file()}
    assert names == {"blocks.cnn", "convdsl.toml", "nets ü/net.cnn", "nets ü/names.lst"}
    assert not top.exists()


def test_outside_of_a_checkout(convdsl, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(small.parent.parent))
    said = convdsl("diff", "--against", "HEAD", small)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: git: not a git repository")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "needs git, which is not installed" in convdsl("diff", "--against", "HEAD", small).err
