"""Run a model on arrays.

Inputs come from --data: an .npy file for a model of one input, an .npz with one array per
input name, or random:SEED (normally distributed). With -o the outputs are written the same
way, otherwise summarised, and shown whole where they are small.

With --tile an image may be larger than memory: it is read, and the network run, in overlapping
tiles, and the result is that of one run. Where a network has an element for each pixel but none
for the border, the image is mirrored there. Networks that see all of an image are refused.

An artifact is machine code, and its checksums are no signature: run only those of people you
would run programs of. The same holds wherever else an artifact can be named.
"""

from __future__ import annotations

import argparse

from convdsl.cli import console, listing
from convdsl.cli.building import network
from convdsl.cli.files import plain_path
from convdsl.cli.options import add_building, add_format, add_model, completes, positive

SPARE = ("dtype", "mean")
"""Columns that narrow terminals do without."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser, artifacts=True)
    completes(
        parser.add_argument(
            "--data", required=True, metavar="FILE", help="x.npy, x.npz or random:SEED"
        )
    )
    completes(
        parser.add_argument("-o", "--output", metavar="FILE", help="y.npy, or y.npz by output name")
    )
    parser.add_argument(
        "--tile", type=positive, metavar="T", help="run on tiles of at most TxT pixels"
    )
    add_format(parser)
    add_building(parser, batch=None)


def run(options: argparse.Namespace) -> int:
    from convdsl.cli import arrays

    if options.tile:
        from convdsl.cli import tiles

        outputs, types = tiles.run(options)
    else:
        made = network(options)
        outputs, types = made.run(arrays.load(options.data, made)), made.executable.outputs
    if options.output:
        arrays.save(plain_path(options.output), outputs)
        console.note(f"wrote {options.output}")
    else:
        rows = [arrays.summary(name, a, types[name].dtype) for name, a in outputs.items()]
        small = [name for name, a in outputs.items() if 0 < a.size <= arrays.SMALL]
        if options.format == "json":
            for row in rows:
                name = row["output"]
                row["values"] = (
                    arrays.plain(outputs[name], types[name].dtype) if name in small else None
                )
        listing.show(rows, options.format, spare=SPARE)
        if options.format == "table":
            for name in small:
                console.result(f"\n{arrays.values(name, outputs[name], types[name].dtype)}")
    return 0
