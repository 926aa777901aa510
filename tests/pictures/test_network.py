"""Drawings of networks: every operator in one box, texts inside, nothing over anything."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from graphs import Builder
from random_graphs import random_graph

import convdsl
from convdsl import zoo
from convdsl.diagnostics import InputError
from convdsl.drawing.svg import text_width
from convdsl.ir.graph import Graph, OpNode
from convdsl.ir.model import Model
from convdsl.pictures import draw
from convdsl.pictures.blocks import MOST, Part, opened, parts_at, parts_within
from convdsl.reporting.page import html_page

BOXES = {"blue", "green", "teal", "sand", "plain", "violet", "rose"}


def shapes(svg: str) -> tuple[list[ElementTree.Element], ElementTree.Element]:
    """The boxes and ports of a drawing, without the legend."""
    root = ElementTree.fromstring(svg)
    groups = [g for g in root.iter() if g.tag.endswith("}g") and "transform" in g.attrib]
    return [g for g in groups[0] if not g.tag.endswith("path")], root


def rectangles(group: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """The front of a box, its lines, and the labels of what leaves it."""
    found = []
    for e in group.iter():
        if e.tag.endswith("}rect") and e.attrib["class"] in BOXES:
            x, y, w, h = (float(e.attrib[k]) for k in ("x", "y", "width", "height"))
            found = [(x, y, x + w, y + h)]
        elif e.tag.endswith("}text"):
            size = float(e.attrib["font-size"])
            width = text_width("".join(e.itertext()), size)
            x, y = float(e.attrib["x"]), float(e.attrib["y"])
            left = x - width / 2 if "text-anchor" in e.attrib else x
            found.append((left, y - 0.8 * size, left + width, y + 0.2 * size))
    return found


def check(svg: str, width: float, height: float) -> int:
    """Texts lie in their box or beside it, on no other box or text. How many boxes there are."""
    groups, _ = shapes(svg)
    outer: list[tuple[float, float, float, float]] = []
    for group in groups:
        box, *texts = rectangles(group)
        for left, top, right, bottom in texts:
            inside = box[0] <= left and right <= box[2] and box[1] <= top and bottom <= box[3]
            beside = top >= box[3] - 0.5 or left >= box[2] - 0.5
            assert inside or beside, (box, texts)
        for a, b in combinations(texts, 2):
            assert a[2] <= b[0] + 0.5 or b[2] <= a[0] + 0.5 or a[3] <= b[1] + 1 or b[3] <= a[1] + 1
        whole = [box, *texts]
        outer.append(
            (
                *(min(r[i] for r in whole) for i in (0, 1)),
                *(max(r[i] for r in whole) for i in (2, 3)),
            )
        )
    for a, b in combinations(outer, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
    assert max(r[2] for r in outer) <= width
    assert max(r[3] for r in outer) <= height
    return len(groups)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("name", sorted(zoo.names()))
def test_the_zoo_is_drawn(name: str) -> None:
    model = convdsl.load(name)
    picture = draw(model)
    boxes = check(picture.svg, picture.canvas.width, picture.canvas.height)
    assert boxes <= MOST + len(model.inputs) + len(model.outputs) + len(model.graph.updates)
    assert picture.title.partition(": ")[0] == model.name  # what costs nothing has no figures


@pytest.mark.parametrize("direction", ["down", "right"])
@pytest.mark.parametrize("seed", range(12))
def test_drawn_graphs_in_both_directions(seed: int, direction: str) -> None:
    model = Model("drawn", random_graph(seed))
    picture = draw(model, depth=9, direction=direction, cost="bytes")
    boxes = check(picture.svg, picture.canvas.width, picture.canvas.height)
    graph = model.graph
    assert boxes == len(graph.op_nodes()) + len(graph.inputs) + len(graph.outputs)


def test_shapes_stand_beside_edges_and_bars_are_shares(tmp_path: Path) -> None:
    picture = draw("lenet5", cost="params")
    for shape in ("1x1x32x32", "1x6x28x28", "1x120"):
        assert f">{shape}<" in picture.svg
    bars = re.findall(r'width="([\d.]+)"[^>]*class="bar"[^>]*><title>([\d,]+),', picture.svg)
    sizes = {int(n.replace(",", "")): float(width) for width, n in bars}
    report = convdsl.report("lenet5", batch=1)
    assert set(sizes) == {row.cost.params for row in report.layers if row.cost.params}
    assert picture.save(tmp_path / "net.svg").read_text("utf-8") == picture.svg
    with pytest.raises(InputError, match=r"net.png must end in .svg: a drawing has no pixels"):
        picture.save("net.png")


def test_blocks_open() -> None:
    inside = draw("resnet18", block="layer2.0")
    assert ">conv1<" in inside.svg
    assert ">downsample.0<" in inside.svg or ">downsample<" in inside.svg
    assert "to layer2.1.conv1, +1" in inside.svg
    with pytest.raises(InputError, match="no block layer9; there are conv1, bn1"):
        draw("resnet18", block="layer9")


def test_sizes_may_stay_open() -> None:
    model = convdsl.parse(
        "model m {\n    input x: f32[N, 3, H, W]\n    x -> conv(4, 3x3) -> relu -> output y\n}"
    )
    assert ">1x4xHxW<" in draw(model).svg
    assert ">5x4x8x9<" in draw(model, inputs=(3, 8, 9), batch=5).svg


def test_what_is_not_there() -> None:
    for options in ({"cost": "watts"}, {"direction": "up"}, {"theme": "blue"}):
        with pytest.raises(InputError, match="there are"):
            draw("lenet5", **options)


# Parts


def named(seed: int) -> Graph:
    """A graph whose names tell of blocks that paths leave and enter again."""
    random = Random(seed)
    b = Builder()
    pool = [b.input("x", 1, 2, 4, 4)]
    for number in range(random.choice([3, 20, 60])):
        path = ".".join(random.choice("abc") for _ in range(random.randrange(3)))
        name = f"{path}.n{number}" if path else f"n{number}"
        if random.random() < 0.5:
            pool.append(b("relu", random.choice(pool[-4:]), name=name))
        else:
            pool.append(b("add", random.choice(pool), pool[-1], name=name))
    return b.output(y=pool[-1])


def check_parts(parts: list[Part], nodes: list[OpNode]) -> None:
    """Each operator once, and parts in an order in which they can run."""
    assert sorted(n.id for p in parts for n in p.nodes) == sorted(n.id for n in nodes)
    assert len({part.name for part in parts}) == len(parts)
    home = {node: number for number, part in enumerate(parts) for node in part.nodes}
    for node, number in home.items():
        for value in node.inputs.values():
            assert not isinstance(value.node, OpNode) or home.get(value.node, 0) <= number


@pytest.mark.parametrize("seed", range(40))
def test_parts_never_wait_for_each_other(seed: int) -> None:
    nodes = named(seed).op_nodes()
    for depth in (1, 2, 3):
        check_parts(parts_at(nodes, depth), nodes)
    for most in (4, 15, MOST):
        parts = parts_within(nodes, most)
        check_parts(parts, nodes)
        for part in parts:
            if part.is_block:
                inside = opened(part, most)
                check_parts(inside, list(part.nodes))
                assert len(inside) > 1


def test_blocks_that_could_be_one_box_are() -> None:
    nodes = convdsl.load("resnet50").graph.op_nodes()
    names = [part.name for part in parts_at(nodes, 1)]
    assert names == [
        *("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
        *("avgpool", "flatten", "fc"),
    ]


def test_many_operators_without_blocks_become_sections() -> None:
    b = Builder()
    value = b.input("x", 1, 2, 4, 4)
    for _ in range(2000):
        value = b("relu", value)
    nodes = b.output(y=value).op_nodes()
    waiting = [parts_within(nodes)]
    check_parts(waiting[0], nodes)
    seen = 0
    while waiting:
        parts = waiting.pop()
        assert 1 < len(parts) <= MOST
        for part in parts:
            if part.is_block:
                waiting.append(opened(part))
            else:
                seen += 1
    assert seen == 2000


def test_sections_end_where_little_passes() -> None:
    """Blocks of six with shortcuts, unnamed: no section ends inside of one."""
    b = Builder()
    value = b.input("x", 1, 2, 4, 4)
    for _ in range(40):
        start = value
        for _ in range(5):
            value = b("relu", value)
        value = b("add", value, start)
    parts = parts_within(b.output(y=value).op_nodes())
    assert len(parts) > 5
    assert {part.nodes[-1].op.name for part in parts} == {"add"}


def test_both_ends_of_a_section_are_named_within_their_block() -> None:
    text = (
        "model net {\n    input x: f32[N, 2, 8, 8]\n"
        "    x -> seq stage { for i in range(200) { seq { conv(2, 3x3) -> relu } } }"
        " -> output y\n}\n"
    )
    svg = draw(convdsl.parse(text), block="stage").svg
    names = [e.text or "" for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")]
    assert any(re.fullmatch(r"0 \.\. \d+", name) for name in names)
    assert not [name for name in names if "stage." in name]


def test_places_are_told_without_the_folders_of_this_machine(tmp_path: Path) -> None:
    place = tmp_path / "net.cnn"
    place.write_text("model net {\n    input x: f32[N, 2, 8, 8]\n    x -> relu -> output y\n}\n")
    for text in (draw(place).svg, html_page(place)):
        assert "net.cnn:3" in text
        assert str(tmp_path) not in text


def test_the_picture_of_the_page_is_what_is_drawn_today() -> None:
    """docs/pictures.md says how it was made."""
    kept = Path(__file__).parents[2] / "docs" / "images" / "draw-resnet18.svg"
    made = draw("resnet18", depth=1).svg
    assert made == kept.read_text(encoding="utf-8"), "convdsl draw resnet18 --depth 1 -o it"
