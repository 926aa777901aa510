"""What the ladder of evidence for cards has looked at (docs/gpu.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cuda.fake_driver import Card, Fake, there_is
from resource_gate import Gate


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the gate of resources has looked at, in all workers together."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    gates = [
        Gate(**json.loads(str(told)))
        for report in reports
        for name, told in report.user_properties
        if name == "gate"
    ]
    if gates:
        terminalreporter.write_line(f"resources: {Gate.of_all(gates)}")


@pytest.fixture
def fake() -> Iterator[Fake]:
    with there_is(Card()) as fake:
        yield fake
