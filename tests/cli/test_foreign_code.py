"""Code for a processor that is not here is made, shown and saved; running it is refused."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

X86, ARM = "x86_64-linux-gnu:x86-64-v3", "aarch64-linux-gnu:cortex-a76"
AWAY = ARM if platform.machine() == "x86_64" else X86


@pytest.mark.dear
@pytest.mark.parametrize(
    "command",
    [
        ("run", "lenet5", "--weights", "random:0", "--data", "random:0"),
        ("bench", "lenet5", "--runs", "1"),
        ("compile", "lenet5", "--explain", "--measure"),
        ("compile", "lenet5", "--weights", "random:0", "--tune", "1", "-o", "OUT"),
    ],
)
def test_it_is_not_run(convdsl, tmp_path: Path, command: tuple[str, ...]) -> None:
    out = tmp_path / "net.cdsl"
    said = convdsl(*(str(out) if word == "OUT" else word for word in command), "--cpu", AWAY)
    assert said.code == 2
    *_, last = said.err.splitlines()
    assert last.startswith("error: the code is made for ")
    assert last.endswith(f"this is {platform.machine()}; `native` makes code for it")
    assert not out.exists()


@pytest.mark.dear(share=4)
def test_it_is_saved_and_an_artifact_says_what_it_is_for(convdsl, tmp_path: Path) -> None:
    out = tmp_path / "net.cdsl"
    assert convdsl("compile", "lenet5", "--weights", "random:0", "--cpu", AWAY, "-o", out).code == 0
    assert AWAY.split("-")[0] in convdsl("info", out).out
    said = convdsl("run", out, "--data", "random:0")
    assert (said.code, f"this is {platform.machine()}" in said.err) == (2, True)


@pytest.mark.dear
def test_steps_are_predicted(convdsl) -> None:
    said = convdsl("compile", "lenet5", "--explain", "--cpu", AWAY)
    assert said.code == 0
    assert len(said.out.splitlines()) == 2 + 8
    assert "The figures are this machine's, with vectors of that width" in said.err
