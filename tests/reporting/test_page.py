"""The HTML report: whole, by itself, and readable without scripts."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from graphs import Builder

import convdsl
from convdsl import zoo
from convdsl.analysis.machine import Machine
from convdsl.analysis.memory import alive_bytes
from convdsl.diagnostics import InputError
from convdsl.ir.model import Model
from convdsl.reporting.page import html_page, write_page

MACHINE = Machine("small", 140e9, 12e9, "as given")
HEADINGS = ("Graph", "Costs by layer", "Memory over time", "Receptive field", "Roofline", "Layers")
VOID = {"meta"}
OPTIONAL = {"td", "th", "tr"}


class Read(HTMLParser):
    """A page taken apart: what is where, and whether all that opens closes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.places: list[str] = []
        self.cells: list[list[str]] = []
        self.headings: list[str] = []
        self.tags: set[str] = set()
        self.urls: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        if tag == "a":
            self.links.append(given["href"] or "")
        if "id" in given:
            self.places.append(given["id"] or "")
        self.urls += [v or "" for k, v in attrs if k in ("src", "href", "action", "xlink:href")]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.urls += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in OPTIONAL:
            assert self.open.pop() == tag
        if tag == "table":
            self.cells.append([])

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "tbody" and self.cells[-1]:
            self.cells[-1][-1] += data.strip()
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.mark.dear
@pytest.mark.parametrize("name", ["resnet18", "lenet5", "unet_small"])
def test_a_page_is_whole_and_alone(name: str) -> None:
    model = convdsl.load(name)
    page = html_page(model, machine=MACHINE)
    read = Read(page)
    assert tuple(read.headings[:6]) == HEADINGS
    assert all(url.startswith("#") for url in read.urls)
    assert not read.tags & {"link", "img", "iframe", "object"}
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", page)
    assert "@import" not in page
    assert {link.removeprefix("#") for link in read.links} <= set(read.places)
    assert len(set(read.places)) == len(read.places)
    rows = [cells for cells in read.cells if len(cells) == 9 and cells[0]]
    assert [cells[0] for cells in rows] == [node.name for node in model.graph.op_nodes()]
    report = convdsl.report(model, batch=1)
    params = sum(int(cells[3].replace(",", "")) for cells in rows)
    assert params == report.totals["params"]


@pytest.mark.dear(share=4)
def test_every_operator_is_drawn_once_in_some_block() -> None:
    model = convdsl.load("resnet50")
    page = html_page(model)
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL)[: page.count("<details>")])
    for node in model.graph.op_nodes():
        assert drawings.count(f"<title>{node.name}\n") == 1, node.name


@pytest.mark.dear
def test_the_peak_is_the_report_s() -> None:
    for name in ("resnet18", "squeezenet1_1"):
        model = convdsl.load(name)
        graph = model.graph.bind({"N": 1})
        report = convdsl.report(model, batch=1)
        assert max(total for _, total in alive_bytes(graph)) == report.peak.bytes
        assert report.peak.at is not None
        assert f"{report.peak.at.name}: {report.peak.bytes:,} B" in html_page(model)


def test_names_of_strangers_do_nothing() -> None:
    odd = "<script>alert(1)</script>'\"&"
    b = Builder()
    x = b.input("x", 1, 2, 4, 4)
    y = b("relu", b("conv", x, channels=2, kernel=3, name=f"{odd}.a"), name=f"{odd}.b")
    b.output(**{odd: b("relu", y, name="last")})
    page = html_page(Model(odd, b.graph), machine=MACHINE)
    assert page.count("<script>") == 1
    Read(page)


def test_open_sizes_leave_out_what_needs_them() -> None:
    text = "model m {\n    input x: f32[N, 3, H, W]\n    x -> conv(40, 3x3) -> relu -> output y\n}"
    page = html_page(convdsl.parse(text), machine=MACHINE)
    read = Read(page)
    assert "Memory over time" not in read.headings
    assert "1x40xHxW" in page
    assert page.count(">1,080*H*W<") == 2, "in the sums and in the table"
    assert "All sizes must be known" in page
    sized = Read(html_page(convdsl.parse(text), inputs=(3, 8, 9), batch=2, machine=MACHINE))
    assert tuple(sized.headings[:6]) == HEADINGS


def test_weights_alone_are_a_page() -> None:
    b = Builder()
    x = b.input("x", 1, 4)
    Read(html_page(Model("m", b.output(y=x)), machine=MACHINE))


@pytest.mark.dear(share=4)
def test_many_operators_stay_usable() -> None:
    """A table that is closed, drawings of at most 60 boxes, and a size in proportion."""
    b = Builder()
    value = b.input("x", 1, 2, 4, 4)
    for number in range(800):
        value = b("relu", value, name=f"n{number}")
    page = html_page(Model("deep", b.output(y=value)))
    Read(page)
    assert "<details><summary>800 operators" in page
    assert len(page) < 800 * 1500
    boxes = [svg.count("<title>n") for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    assert max(boxes[:-3]) <= 60


@pytest.mark.dear
def test_the_zoo_has_pages() -> None:
    """The smallest of every file, quickly."""
    names = {entry.path: entry.model for entry in reversed(zoo.names().values())}
    for name in list(names.values())[::8]:
        Read(html_page(name))


def test_no_room(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write "):
        write_page(tmp_path / "no" / "page.html", "")
