"""`convdsl report --target cuda --machine NAME`: predicted times of the kernels on a card."""

from __future__ import annotations

import argparse

from convdsl.analysis.machine import MACHINES, find_machine
from convdsl.cli import console, listing
from convdsl.cli.building import load_model
from convdsl.cli.options import batch_of, input_shapes
from convdsl.compilation import Plan
from convdsl.diagnostics import InputError
from convdsl.driver import bind
from convdsl.measure.card_prediction import Predicted, predict_on_card
from convdsl.measure.machine import this_machine
from convdsl.toolchain import find_toolchain


def show(options: argparse.Namespace) -> None:
    """A row per launch, and what they come to."""
    cards = [name for name, machine in MACHINES.items() if machine.arch]
    if options.machine is None:
        raise InputError(f"--target cuda goes with --machine: {', '.join(cards)}")
    machine = find_machine(options.machine, this_machine)
    if not machine.arch:
        raise InputError(f"{machine.name} is no card that code is made for: {', '.join(cards)} are")
    model = load_model(options)
    binding = bind(model, input_shapes(options), batch_of(model, options))
    binding.setdefault("N", 1)
    chain = find_toolchain("cuda", machine.arch, options.precision)
    found = predict_on_card(Plan(model, chain).lower(binding), chain.target, machine)
    listing.show([_row(one) for one in found], options.format)
    total = sum(one.seconds for one in found)
    console.note(
        f"a prediction from code for {machine.arch}, not a measurement: {total * 1e3:.3f} ms in"
        f" {len(found)} kernels on {machine.name} ({machine.source}), launches not counted"
    )


def _row(one: Predicted) -> dict[str, object]:
    return {
        "layers": ", ".join(one.launch.nodes),
        "kernel": one.launch.function,
        "predicted us": one.seconds * 1e6,
        "bound": one.bound,
        "unit": one.unit,
        "MFLOP": one.flops / 1e6,
        "MB": one.bytes / 1e6,
        "registers": one.resources.registers,
        "shared": one.resources.shared + one.launch.shared_bytes,
        "blocks/SM": one.blocks,
        "fill": one.fill,
        "issue": one.issue,
    }
