"""Single layers stand for layers within networks here: what they make is not the caller's alone."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _maps_stay_blocked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution that ends a graph may make planes instead of blocks (`handed_out`), which would
    leave the schedules of blocks without tests. Those of planes say so."""
    if request.node.get_closest_marker("handed_out") is None:
        never = "convdsl.schedules.cpu.machine.is_handed_out_plain"
        monkeypatch.setattr(never, lambda *_: False)
