"""Checkpoints of torchvision load unchanged: every key and shape, and torchvision's own figures.

tests/golden/zoo/states.json was recorded from torchvision 0.29.1 by make_golden.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import convdsl
from convdsl import zoo
from convdsl.analysis.report import analyse
from convdsl.ir.opdef import Role

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "zoo" / "states.json").read_text()
)


def test_what_is_recorded_is_in_the_zoo() -> None:
    assert len(RECORDED) == 50
    assert sum("states" in recorded for recorded in RECORDED.values()) == 36
    assert RECORDED.keys() <= zoo.names().keys()


HELD = {"inception_v3": {"auxiliary": True}}
"""What torchvision holds and counts as parameters, though it does not run at inference."""


@pytest.mark.dear
@pytest.mark.drawn(share=2)
@pytest.mark.parametrize("name", RECORDED)
def test_torchvision(name: str) -> None:
    recorded = RECORDED[name]
    model = convdsl.load(name, **HELD.get(name, {}))
    states = model.graph.states.items()
    held = {key: list(s.type.shape) for key, s in states if s.role is not Role.CONSTANT}
    assert held == recorded.get("states", held)
    assert analyse(model, "torchvision", {"N": 1}).totals["params"] == recorded["params"]
    run = analyse(convdsl.load(name) if name in HELD else model, "torchvision", {"N": 1}).totals
    assert round(run["macs"] / 1e9, 3) == recorded["gmacs"]
