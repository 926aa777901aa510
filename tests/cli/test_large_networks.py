"""What commands cost grows with the network, and no faster: counted in calls of functions."""

from __future__ import annotations

import cProfile
from pathlib import Path

import pytest

from convdsl.cli import main

COMMANDS = {
    "check": ("check", "NET"),
    "report --batch": ("report", "NET", "--batch", "1"),
    "report --html": ("report", "NET", "--batch", "1", "--html", "OUT.html"),
    "diff": ("diff", "NET", "NET"),
    "draw": ("draw", "NET", "--depth", "9", "--output", "OUT.svg"),
}
ROUNDS = 20


def calls(command: tuple[str, ...], folder: Path, rounds: int) -> int:
    """Calls of functions, Python's and C's, while a command looks at so many rounds."""
    path = folder / "net.cnn"
    body = f"x -> repeat {rounds} {{ conv(4, 3x3) -> bn -> relu }} -> output y"
    path.write_text(f"model m {{\n    input x: f32[N, 4, 8, 8]\n    {body}\n}}\n")
    given = [word.replace("NET", str(path)).replace("OUT", str(folder / "out")) for word in command]
    with cProfile.Profile() as profile:
        code = main(given)
    assert code == 0
    return sum(entry.callcount for entry in profile.getstats())


@pytest.mark.dear
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.usefixtures("capsys")
def test_twice_the_operators_cost_twice_as_much(command: tuple[str, ...], tmp_path: Path) -> None:
    calls(command, tmp_path, 3)  # what is done once for all: first, inner and last rounds
    one, two, four = (calls(command, tmp_path, ROUNDS * times) for times in (1, 2, 4))
    assert four - two < 1.1 * 2 * (two - one)
