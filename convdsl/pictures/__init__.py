"""Pictures of networks, for slides and pages: drawings, fields, filters, maps.

    convdsl.draw("resnet50").save("resnet50.svg")
    pictures.draw_class("net.cnn", "photo.jpg", weights="net.safetensors").save("cam.png")

Every function takes a model as `convdsl.load` does and returns a Picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convdsl.analysis.cost import known_sum
from convdsl.calling import suggests
from convdsl.diagnostics import InputError, expect
from convdsl.drawing import png
from convdsl.drawing.charts import Axis, Curve, headed, spanning
from convdsl.drawing.charts import curves as chart_of
from convdsl.drawing.sheet import Sheet
from convdsl.drawing.svg import Canvas
from convdsl.ir.graph import OpNode
from convdsl.ir.model import Model
from convdsl.kernel.signature import one_sample, whole
from convdsl.loading import load
from convdsl.pictures.blocks import Part, opened, parts_at, parts_within
from convdsl.pictures.fields import field_sheet, unit_of
from convdsl.pictures.filters import filters_sheet
from convdsl.pictures.looking import sight
from convdsl.pictures.maps import class_map, class_sheet, maps_sheet
from convdsl.pictures.network import canvas
from convdsl.pictures.wiring import Network, short
from convdsl.runtime.whole_files import write_whole
from convdsl.sizes import bind

__all__ = [
    "Picture",
    "draw",
    "draw_class",
    "draw_curves",
    "draw_field",
    "draw_filters",
    "draw_maps",
]

MOST_TILES = 64
"""Filters and maps of a sheet, unless more are asked for."""


@dataclass(frozen=True, repr=False)
class Picture:
    """A drawing, as SVG; made of images also as pixels. Notebooks show it."""

    title: str
    canvas: Canvas
    theme: str = "auto"
    sheet: Sheet | None = None

    @property
    def svg(self) -> str:
        return self.canvas.document(self.title, self.theme)

    def __repr__(self) -> str:
        return f"<Picture {self.title}: {self.canvas.width:.0f} x {self.canvas.height:.0f} pixels>"

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Write .svg, or .png where it is made of images. Raises InputError."""
        expect("the path", path, str, Path)
        where = Path(path)
        if where.suffix == ".svg":
            data = self.svg.encode("utf-8")
        elif where.suffix == ".png" and self.sheet is not None:
            data = png.encode(self.sheet.pixels())
        else:
            wanted = ".svg or .png" if self.sheet else ".svg: a drawing has no pixels"
            raise InputError(f"{where} must end in {wanted}")
        try:
            write_whole(where, [data], durable=False)
        except OSError as error:
            raise InputError(f"cannot write {where}: {error.strerror or error}") from None
        return where


@suggests
def draw(
    model: Model | str | Path,
    *,
    depth: int | None = None,
    block: str | None = None,
    cost: str = "macs",
    direction: str = "down",
    theme: str = "auto",
    inputs: Any = None,
    batch: int | None = None,
) -> Picture:
    """The graph as it is written, blocks as one box.

    depth: operators whose paths begin with the same so many names are one box; by default as many
    as a page holds. block: only what is inside of this one. cost: what bars stand for, `macs`,
    `flops`, `params` or `bytes`. direction: `down` or `right`. theme: `light`, `dark`, or `auto`,
    which is what the reader prefers. inputs, batch: sizes, as for `convdsl.report`. Raises
    convdsl.Error.
    """
    model = _loaded(model)
    binding = bind(model, inputs, batch)
    one_sample(binding, (symbol.name for symbol in model.symbols))
    graph = model.settled(binding).graph.bind(binding)
    nodes = graph.op_nodes()
    network = Network.of(graph)
    heading, prefix = _heading(model, network), ""
    if block is not None:
        nodes = _inside(nodes, block)
        heading, prefix = f"{model.name}: {block}", f"{block}."
    if depth is not None:
        if whole("the depth", depth) < 1:
            raise InputError(f"a depth of {depth}: at least one leading name tells boxes apart")
        parts = parts_at(nodes, depth)
    else:
        parts = parts_within(nodes) if block is None else opened(Part(block, tuple(nodes)))
    drawn = canvas(network, parts, cost=cost, direction=direction, prefix=prefix, heading=heading)
    return _themed(Picture(heading, drawn), theme)


def draw_field(
    model: Model | str | Path,
    unit: str,
    data: Any,
    weights: Any = None,
    *,
    theme: str = "auto",
) -> Picture:
    """The receptive field of a unit (`layer`, its middle, or `layer[3, 4]`) over an image; with
    weights its effective field, by gradients, beside it."""
    seen = sight(_loaded(model), data, weights)
    return _of_sheet(field_sheet(seen, unit_of(seen, unit), weights), f"field of {unit}", theme)


def draw_filters(
    model: Model | str | Path,
    weights: Any,
    layer: str | None = None,
    *,
    most: int = MOST_TILES,
    theme: str = "auto",
) -> Picture:
    """Filters of a layer, by default of the first."""
    return _of_sheet(filters_sheet(_loaded(model), weights, layer, most), "filters", theme)


def draw_maps(
    model: Model | str | Path,
    layer: str,
    data: Any,
    weights: Any,
    *,
    most: int = MOST_TILES,
    theme: str = "auto",
) -> Picture:
    """What a layer, or the last one of a block, puts out for an image: a tile for each channel."""
    seen = sight(_loaded(model), data, weights)
    return _of_sheet(maps_sheet(seen, layer, weights, most), f"maps of {layer}", theme)


def draw_class(
    model: Model | str | Path,
    data: Any,
    weights: Any,
    chosen: str | int | None = None,
    *,
    layer: str | None = None,
    of: str | None = None,
    theme: str = "auto",
) -> Picture:
    """Where a class (its number or label; by default the likeliest) was seen: Grad-CAM.

    layer: whose maps, by default the last that has space. of: which value is the scores, by default
    the first output; scores before a softmax are what the method means.
    """
    seen = sight(_loaded(model), data, weights)
    wanted = None if chosen is None else str(chosen)
    found = class_map(seen, weights, wanted, layer, of)
    return _of_sheet(class_sheet(seen, found), f"class {found.index}", theme)


def draw_curves(
    curves: Mapping[str, Sequence[float]],
    title: str,
    *,
    x: str = "step",
    y: str = "loss",
    log: bool = False,
    level: tuple[str, float] | None = None,
    theme: str = "auto",
) -> Picture:
    """Numbers by name as curves: losses of several runs, norms by layer.

    log: powers of ten upwards. level: a line across, with its name. What is not finite is left out.
    """
    if not curves:
        raise InputError("there are no curves to draw")
    longest = max(len(values) for values in curves.values())
    every = [value for values in curves.values() for value in values]
    upwards = spanning(y, [*every, *([level[1]] if level else [])], log=log)
    found = [Curve(name, list(enumerate(values))) for name, values in curves.items()]
    across = Axis(x, 0, max(longest - 1, 1))
    drawn = chart_of(found, across, upwards, level=level, width=760.0)
    return _themed(Picture(title, headed(drawn, title)), theme)


def _loaded(model: Model | str | Path) -> Model:
    return model if isinstance(model, Model) else load(model)


def _of_sheet(sheet: Sheet, title: str, theme: str) -> Picture:
    return _themed(Picture(sheet.heading or title, sheet.canvas(), sheet=sheet), theme)


def _themed(picture: Picture, theme: str) -> Picture:
    made = replace(picture, theme=theme)
    _ = made.svg  # complains of themes that there are not
    return made


def _heading(model: Model, network: Network) -> str:
    """The model and its size: `resnet50: 25.6 M parameters, 4.09 G MACs`."""
    params = known_sum(cost.params for cost in network.costs.values())
    macs = network.totals["macs"]
    said = [f"{short(params)} parameters"] if params else []
    said += [f"{short(macs)} MACs"] if macs else []
    return f"{model.name}: {', '.join(said)}" if said else model.name


def _inside(nodes: list[OpNode], block: str) -> list[OpNode]:
    found = [node for node in nodes if node.name == block or node.name.startswith(f"{block}.")]
    if not found:
        known = list(dict.fromkeys(node.name.split(".")[0] for node in nodes))
        more = ", ..." if len(known) > 8 else ""
        raise InputError(f"there is no block {block}; there are {', '.join(known[:8])}{more}")
    return found
