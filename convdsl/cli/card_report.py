"""`convdsl report --target cuda --machine NAME`: predicted times of the kernels on a card, and what
they take where such a card is here."""

from __future__ import annotations

import argparse

from convdsl.analysis.machine import MACHINES, find_machine
from convdsl.bound import bind_weights_of
from convdsl.cli import console, listing
from convdsl.cli.building import load_model
from convdsl.cli.options import batch_of, input_shapes
from convdsl.compilation import Plan
from convdsl.diagnostics import InputError
from convdsl.kernel.signature import one_sample
from convdsl.measure.card_prediction import Made, Predicted, predict_on_card
from convdsl.measure.machine import this_machine
from convdsl.runtime.cuda.card import Card, find_card
from convdsl.runtime.cuda.launching import nearest_architecture
from convdsl.sizes import bind
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
    one_sample(binding, (symbol.name for symbol in model.symbols))
    chain = find_toolchain("cuda", machine.arch, options.precision)
    made = Made.of(Plan(model, chain).lower(binding), chain.target)
    found = predict_on_card(made, machine)
    card = _card_here()
    times: list[float] | list[None] = [None] * len(found)
    if card is not None and nearest_architecture(card) == machine.arch:
        from convdsl.measure.card_timing import time_on_card

        times = time_on_card(made, bind_weights_of(model, "random:0"), card)
    listing.show([_row(one, time) for one, time in zip(found, times, strict=True)], options.format)
    total = sum(one.seconds for one in found)
    console.note(
        f"a prediction from code for {machine.arch}, not a measurement: {total * 1e3:.3f} ms in"
        f" {len(found)} kernels on {machine.name} ({machine.source}), launches not counted"
    )
    measured = sum(time for time in times if time is not None)
    if card is not None and nearest_architecture(card) == machine.arch:
        console.note(
            f"measured on {card.name} (cuda:{card.number}): {measured * 1e3:.3f} ms, each kernel by"
            " itself, of random weights, its data in the card's cache where they fit"
        )
    elif card is not None:
        console.note(f"not measured: the card here, {card.name}, is {card.arch}")


def _card_here() -> Card | None:
    """The card of this machine, if one can be used."""
    try:
        return find_card()
    except InputError:
        return None


def _row(one: Predicted, measured: float | None) -> dict[str, object]:
    return {
        "layers": ", ".join(one.launch.nodes),
        "kernel": one.launch.function,
        "predicted us": one.seconds * 1e6,
        **({} if measured is None else {"measured us": measured * 1e6}),
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
