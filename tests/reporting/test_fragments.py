"""What notebooks show of objects: small, by itself, and touching nothing else of the page."""

from __future__ import annotations

import itertools
import re

import pytest
from graphs import Builder
from reporting.test_page import Read

import convdsl
from convdsl import zoo
from convdsl.diagnostics import CompileError
from convdsl.ir.model import Model
from convdsl.reporting import fragments
from convdsl.reporting.page_style import embedded_style

WRONG = "model m {\n    input x: f32[N, 3, 8, 8]\n    x + (x -> conv(5, 3x3)) -> output y\n}\n"


def shown(thing: object) -> str:
    """What a notebook gets, taken apart and looked at."""
    page: str = thing._repr_html_()  # type: ignore[attr-defined]
    read = Read(page)
    assert page.startswith('<div class="convdsl"><style>')
    assert "<script" not in page
    assert all(url.startswith("#") for url in read.urls)
    assert {link.removeprefix("#") for link in read.links} <= set(read.places)
    return page


def selectors(css: str) -> list[str]:
    """What the rules of a sheet are for, outside of `@media`; nested ones belong to their rule."""
    found, depth, start = list[str](), 0, 0
    css = re.sub(r"@media[^{]*{((?:[^{}]*{[^{}]*})*)\s*}", r"\1", css)
    for at, letter in enumerate(css):
        if letter == "{":
            if depth == 0:
                found.append(css[start:at].strip())
            depth += 1
        elif letter == "}":
            depth -= 1
            start = at + 1
    assert depth == 0
    return found


def test_its_style_is_its_own() -> None:
    for selector in selectors(embedded_style()):
        assert re.match(r"(:is\(.*\) )?\.convdsl(\.convdsl)?( |$)", selector), selector


def test_every_colour_has_a_light_and_a_dark_side() -> None:
    sheet = embedded_style()
    used = set(re.findall(r"var\(--(\w+)\)", sheet))
    hosts = [line for line in sheet.splitlines() if line.startswith(":is(")]
    plain = [line for line in sheet.splitlines() if re.match(r"\.convdsl { --|@media", line)]
    for lines in (hosts, plain):
        declared = [set(re.findall(r"--(\w+):", line)) for line in lines]
        assert sum(used <= names for names in declared) == 2


@pytest.mark.dear
@pytest.mark.parametrize("name", ["lenet5", "resnet50", "unet_small"])
def test_a_model(name: str) -> None:
    model = convdsl.load(name)
    page = shown(model)
    assert f"<h3>{name}</h3>" in page
    assert len(page) < 300_000
    for block in {node.name.split(".")[0] for node in model.graph.op_nodes()}:
        assert block in page
    params = convdsl.report(model).totals["params"]
    assert f"<dd title='{params:,}'>" in page
    assert repr(model).startswith(f"<Model {name}: ")
    assert len(repr(model)) < 200


@pytest.mark.dear
def test_it_stays_small_however_large_the_network() -> None:
    """The largest of the zoo, and one of 1,000 operators in blocks of blocks."""
    b = Builder()
    value = b.input("x", 1, 2, 4, 4)
    for stage, unit, layer in itertools.product(range(5), range(20), range(10)):
        value = b("relu", value, name=f"stage{stage}.unit{unit}.r{layer}")
    deep = Model("deep", b.output(y=value))
    for model in (deep, convdsl.load("densenet121")):
        assert len(shown(model)) < 300_000
        report = convdsl.report(model, batch=None)
        assert len(shown(report)) < 150_000
        rows = fragments.summed_up(report)
        assert 1 < len(rows) <= fragments.MOST_ROWS
        assert sum(row.cost.flops for row in rows) == report.totals["flops"]  # type: ignore[misc]
    assert "<b>stage0</b>" in shown(deep)


@pytest.mark.dear(share=4)
def test_a_long_row_of_operators_is_cut() -> None:
    b = Builder()
    value = b.input("x", 1, 2, 4, 4)
    for number in range(1000):
        value = b("relu", value, name=f"n{number}")
    model = Model("long", b.output(y=value))
    assert len(fragments.summed_up(convdsl.report(model))) == fragments.MOST_ROWS
    assert len(shown(model)) < 300_000


@pytest.mark.dear(share=4)
def test_a_report_has_its_figures() -> None:
    model = convdsl.load("resnet18")
    page = shown(convdsl.report(model, batch=2))
    read = Read(page)
    rows = [cells for cells in read.cells if len(cells) == 9 and cells[0]]
    assert [cells[0] for cells in rows] == [node.name for node in model.graph.op_nodes()]
    assert "f32[2, 3, 224, 224]" in page


def test_a_graph_has_no_figures_of_a_model() -> None:
    graph = convdsl.load("lenet5").graph
    page = shown(graph)
    assert "<dl" not in page
    assert "conv1" in page
    assert repr(graph) == "<Graph of 12 operators: image f32[N, 1, 32, 32] -> logits f32[N, 10]>"


@pytest.mark.dear
def test_places_are_of_one_output_alone() -> None:
    model = convdsl.load("resnet18")
    first, second = Read(shown(model)), Read(shown(model))
    assert first.places
    assert not set(first.places) & set(second.places)


def test_open_sizes() -> None:
    page = shown(convdsl.parse("model m {\n    input x: f32[N, 3, H, W]\n    x -> relu\n}"))
    assert "1x3xHxW" in page
    assert "H*W" in page


def test_a_finding_has_its_carets_in_colour() -> None:
    with pytest.raises(CompileError) as caught:
        convdsl.parse(WRONG)
    for thing in (caught.value, caught.value.diagnostics[0]):
        page = shown(thing)
        assert "<span class='said-error'>error[E0501]</span>" in page
        assert re.search(r"<span class='said-error'>\^+</span>", page)
        text = re.sub(r"<[^>]*>", "", page[page.index("<pre>") :])
        assert "x + (x -&gt; conv(5, 3x3)) -&gt; output y" in text
        assert "\x1b" not in page


def test_warnings_stand_below_the_model() -> None:
    text = "model m {\n    input x: f32[N, 3, 8, 8]\n    y = x -> conv(4, 3x3)\n    x -> relu\n}"
    model = convdsl.parse(text)
    assert model.warnings
    assert "said-warning" in shown(model)


def test_names_of_strangers_do_nothing() -> None:
    odd = "<script>alert(1)</script>'\"&"
    b = Builder()
    x = b.input("x", 1, 2, 4, 4)
    y = b("relu", b("conv", x, channels=2, kernel=3, name=f"{odd}.a"), name=f"{odd}.b")
    b.output(**{odd: b("relu", y, name="last")})
    model = Model(odd, b.graph)
    for thing in (model, model.graph, convdsl.report(model)):
        shown(thing)


def test_what_waits_for_sizes_says_so() -> None:
    b = Builder()
    b.input("x", 1, 2)
    model = Model("later", b.graph, obstacle="sizes of x decide what there is", deciding=("x",))
    model.reread = lambda sizes, values: model
    assert "sizes of x decide what there is" in shown(model)


def test_other_things_have_no_picture() -> None:
    with pytest.raises(TypeError, match="no picture of a int"):
        fragments.html(3)


@pytest.mark.slow
def test_the_zoo_is_shown() -> None:
    for name in zoo.names():
        assert len(shown(convdsl.load(name))) < 300_000
