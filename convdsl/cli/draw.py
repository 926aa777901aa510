"""Draw a network, or what it sees, as a file for a slide or a page.

Without more, the graph: a box for every block or operator, shapes beside the edges, bars and widths
for costs. --depth and --block open blocks. With --data an image: --receptive-field UNIT, the pixels
that a unit (LAYER, its middle, or LAYER[3,4]) depends on, and with --weights those that it depends
on much, by its gradient; --maps LAYER, what a layer puts out; --cam [CLASS], where a class, by
default the likeliest, was seen (Grad-CAM). --filters [LAYER] shows weights, by default those of the
first layer. Images are prepared as the model declares; --data may also be the input itself, x.npy
or random:SEED.

-o says the form: .svg, of what is made of images also .png, which has no texts. `-o -` is SVG on
stdout.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from convdsl.cli import console
from convdsl.cli.building import load_model
from convdsl.cli.files import plain_path
from convdsl.cli.options import (
    add_model,
    add_shapes,
    add_weights,
    batch_of,
    completes,
    input_shapes,
    positive,
    weights_of,
)
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from convdsl.pictures import Picture


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    completes(
        parser.add_argument(
            "-o", "--output", metavar="FILE", help="where to write (default MODEL.svg)"
        )
    )
    add_shapes(parser, batch=1)
    graph = parser.add_argument_group("the graph")
    graph.add_argument(
        "--depth", type=positive, metavar="D", help="a box for what shares D leading names"
    )
    graph.add_argument("--block", metavar="NAME", help="only what is inside of this block")
    graph.add_argument(
        "--cost", choices=("macs", "flops", "params", "bytes"), default="macs", help="of bars"
    )
    graph.add_argument("--direction", choices=("down", "right"), default="down", help="of edges")
    seen = parser.add_argument_group("what it sees").add_mutually_exclusive_group()
    seen.add_argument("--receptive-field", metavar="UNIT", help="LAYER or LAYER[3,4]")
    seen.add_argument("--maps", metavar="LAYER", help="what a layer puts out")
    seen.add_argument("--cam", nargs="?", const="", metavar="CLASS", help="where a class was seen")
    seen.add_argument("--filters", nargs="?", const="", metavar="LAYER", help="weights")
    more = parser.add_argument_group("for what it sees")
    completes(more.add_argument("--data", metavar="FILE", help="an image, x.npy or random:SEED"))
    add_weights(more)
    more.add_argument("--layer", metavar="LAYER", help="with --cam: whose maps")
    more.add_argument("--of", metavar="VALUE", help="with --cam: the scores, before a softmax")
    more.add_argument(
        "--most", type=positive, default=64, metavar="N", help="filters or maps (default 64)"
    )
    parser.add_argument(
        "--theme",
        choices=("auto", "light", "dark"),
        default="auto",
        help="colours; auto are what the reader of the file prefers",
    )


def run(options: argparse.Namespace) -> int:
    picture = _picture(options)
    if options.output == "-":
        console.put(picture.svg)
        return 0
    path = picture.save(plain_path(options.output or f"{_stem(options)}.svg"))
    console.note(f"{path}: {path.stat().st_size:,} bytes, {_size(picture, path)}")
    return 0


def _picture(options: argparse.Namespace) -> Picture:
    from convdsl import pictures

    asked = _asked(options)
    _check(options, asked)
    model = load_model(options)
    weights, theme = weights_of(options), options.theme
    if asked == "receptive_field":
        unit: str = options.receptive_field
        return pictures.draw_field(model, unit, options.data, weights, theme=theme)
    if asked == "filters":
        layer = options.filters or None
        return pictures.draw_filters(model, weights, layer, most=options.most, theme=theme)
    if asked == "maps":
        layer = options.maps
        return pictures.draw_maps(
            model, layer, options.data, weights, most=options.most, theme=theme
        )
    if asked == "cam":
        chosen = options.cam or None
        where = {"layer": options.layer, "of": options.of}
        return pictures.draw_class(model, options.data, weights, chosen, **where, theme=theme)
    return pictures.draw(
        model,
        depth=options.depth,
        block=options.block,
        cost=options.cost,
        direction=options.direction,
        theme=theme,
        inputs=input_shapes(options),
        batch=batch_of(model, options),
    )


_NEEDS = {
    "receptive_field": ("data",),
    "filters": ("weights",),
    "maps": ("data", "weights"),
    "cam": ("data", "weights"),
}


_GRAPH = {"depth": None, "block": None, "cost": "macs", "direction": "down"}
_SEEN = {"weights": None, "key": None, "layer": None, "of": None, "most": 64}
_DEFAULTS: dict[str, Any] = _GRAPH | _SEEN
_USES = {
    None: set(_GRAPH),
    "receptive_field": {"weights", "key"},
    "filters": {"weights", "key", "most"},
    "maps": {"weights", "key", "most"},
    "cam": {"weights", "key", "layer", "of"},
}
"""What plays a part, by what is asked for."""


def _asked(options: argparse.Namespace) -> str | None:
    return next((name for name in _NEEDS if getattr(options, name) is not None), None)


def _check(options: argparse.Namespace, asked: str | None) -> None:
    """InputError for what is missing."""
    missing = [name for name in _NEEDS.get(asked or "", ()) if getattr(options, name) is None]
    if missing:
        flag = (asked or "").replace("_", "-")
        raise InputError(f"--{flag} needs {' and '.join(f'--{name}' for name in missing)}")
    if asked is None and options.data is not None:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in _NEEDS if name != "filters")
        raise InputError(f"--data says what the network sees; what of it to draw: {flags}")
    of = f"--{asked.replace('_', '-')}" if asked else "the graph"
    for name, default in _DEFAULTS.items():
        if getattr(options, name) != default and name not in _USES[asked]:
            console.note(f"--{name} plays no part in drawing {of}")


def _stem(options: argparse.Namespace) -> str:
    name: str = options.model.rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return name.removesuffix(".cnn").removesuffix(".onnx")


def _size(picture: Picture, path: Path) -> str:
    width, height = picture.canvas.width, picture.canvas.height
    if picture.sheet is not None and path.suffix == ".png":
        height, width, _ = picture.sheet.pixels().shape
    return f"{width:.0f} x {height:.0f} pixels"
