"""What `convdsl report` says of tables that are long."""

from __future__ import annotations

from pathlib import Path

import pytest

from convdsl.cli import main

UNROLLED = """block cell {{
    input frame, state
    a = concat(frame, state) -> conv(4, 3x3) -> sigmoid
    b = concat(frame, state) -> conv(4, 3x3) -> tanh
    out = state * (1 - a) + a * b
}}
model clip {{
    input clip: f32[N, 3, {frames}, 8, 8]
    let step = cell()
    state = parameter([1], weight = 0.0) -> expand([clip.batch, 4, 8, 8])
    for frame in clip -> split({frames}, axis = 2) {{ state = step(frame -> squeeze([2]), state) }}
    state -> output last
}}
"""


def said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], frames: int, *more: str
) -> tuple[str, str]:
    path = tmp_path / "clip.cnn"
    path.write_text(UNROLLED.format(frames=frames))
    assert main(["report", str(path), *more]) == 0
    found = capsys.readouterr()
    return found.out, found.err


def test_rows_of_repeated_layers_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(tmp_path, capsys, 16)
    # a first state, a split and the frames; a round has ten operators, two of them with weights
    assert "179 rows, 30 of layers that are counted above; `--depth 1` sums them up in 35" in err
    assert len(said(tmp_path, capsys, 16, "--depth", "1")[0].splitlines()) < len(out.splitlines())


@pytest.mark.parametrize(
    "more", [("--depth", "1"), ("--depth", "2"), ("--format", "json"), ("--format", "csv")]
)
def test_nothing_is_said_where_blocks_or_programs_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, str]
) -> None:
    assert said(tmp_path, capsys, 16, *more)[1] == ""


def test_nothing_is_said_of_a_short_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(tmp_path, capsys, 4)[1] == ""
