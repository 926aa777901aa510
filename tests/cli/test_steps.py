"""compile --explain: what is predicted of each step, and how its time is measured."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from convdsl.kernel.caches import Caches
from convdsl.kernel.nodes import Buffer, Kernel
from convdsl.kernel.program import Access, Argument, Place, Port, Program, Step
from convdsl.measure import machine, steps
from convdsl.measure.machine import Figures
from convdsl.measure.prediction import Moved, Prediction, Team, main_type, moved_by, predict
from convdsl.tensor import DType, TensorType

TOY = Figures(flops=64e9, memory_bytes=1e9, l2_bytes=8e9, l3_bytes=4e9)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SECONDS", 0.0)
    monkeypatch.setattr(machine, "measure_peak", lambda threads, cpu, dtype: TOY.flops / 1e9)
    monkeypatch.setattr(machine, "measure_memory", lambda threads, cpu: TOY.memory_bytes)
    monkeypatch.setattr(machine, "measure_l2", lambda threads, cpu: TOY.l2_bytes)
    monkeypatch.setattr(machine, "measure_l3", lambda threads, cpu: TOY.l3_bytes)


PREDICTED = {"predicted kcycles", "MB weights", "MB values", "bound", "predicted us"}
MEASURED = {"us", "us / predicted", "GFLOP/s", "% of peak"}


def test_explain(convdsl, small: Path) -> None:
    said = convdsl("compile", small, "--explain", "--threads", 1, "--format", "json")
    rows = json.loads(said.out)
    assert said.code == 0
    assert rows[0]["step"].startswith("conv1")
    for row in rows:
        assert set(row) >= PREDICTED
        assert not set(row) & MEASURED
        assert row["predicted us"] > 0
        assert row["bound"] in ("compute", "memory")
    (fc,) = [row for row in rows if row["step"].startswith("fc")]
    assert fc["bound"] == "memory"  # a gigabyte a second: weights are all that counts
    assert fc["predicted us"] == pytest.approx(fc["MB weights"] / 1e-3)
    assert "on 1 thread with 64.0 GFLOP/s, 1.0 GB/s from memory and 4.0 GB/s" in said.err
    assert "measured" not in said.err


@pytest.mark.parametrize(("threads", "which"), [(1, "best"), (2, "median")])
def test_explain_and_measure(convdsl, small: Path, threads: int, which: str) -> None:
    options = ["--explain", "--measure", "--threads", threads, "--format", "csv"]
    said = convdsl("compile", small, *options)
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert said.code == 0
    assert f"the {which} of each step" in said.err
    for row in rows:
        assert set(row) >= PREDICTED | MEASURED
        ratio = float(row["us"]) / float(row["predicted us"])
        assert float(row["us / predicted"]) == pytest.approx(ratio)
        share = 100 * float(row["GFLOP/s"]) / 64
        assert float(row["% of peak"]) == pytest.approx(share)


@pytest.mark.dear
def test_the_table_fits_a_terminal(convdsl) -> None:
    """The ten slowest steps, in eighty columns."""
    for options in ([], ["--measure"]):
        said = convdsl("compile", "shufflenet_v2_x1_0", "--explain", "--threads", 1, *options)
        lines = said.out.splitlines()
        assert len(lines) == 2 + 10
        assert max(map(len, lines)) <= 80
        share = [float(line.split()[-1]) for line in lines[2:]]
        assert share == sorted(share, reverse=True)
        assert re.search(r"10 of 1\d\d steps", said.err)


def test_rows_and_columns_are_chosen(convdsl, small: Path) -> None:
    said = convdsl("compile", small, "--explain", "--rows", "all", "--columns", "step, MMACs")
    heading, _, *lines = said.out.splitlines()
    assert heading.split() == ["step", "MMACs"]
    told = json.loads(convdsl("compile", small, "--explain", "--format", "json").out)
    assert len(lines) == len(told)
    assert convdsl("compile", small, "--explain", "--rows", 1).out.count("\n") == 3
    assert sum(row["% of time"] for row in told) == pytest.approx(100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--explain", "--columns", "time"], "no column is called time; there are step, schedule"),
        (["--explain", "--rows", "0"], "not a whole number"),
        (["--rows", "3"], "--rows and --columns go with --explain"),
        (["--columns", "all", "--emit", "loops"], "--rows and --columns go with --explain"),
    ],
)
def test_mistakes_with_rows_and_columns(
    convdsl, small: Path, options: list[str], message: str
) -> None:
    said = convdsl("compile", small, *options)
    assert said.code == 2
    assert message in said.err


def test_the_best_run_of_one_thread_the_median_of_several() -> None:
    """Of two threads, the first may find a step already done, in no time at all."""
    clocks = np.array([[0, 100, 101], [0, 60, 160], [0, 70, 140]])
    elapsed = np.array([2.0, 0.32, 0.5])  # the second has nothing around it: 2 ms a tick
    assert steps.seconds_of_steps(clocks, elapsed, 1) == pytest.approx([0.12, 0.002])
    assert steps.seconds_of_steps(clocks, elapsed, 2) == pytest.approx([0.14, 0.14])


def program() -> Program:
    buffers = (
        Buffer("x", DType.F32, 1000),
        Buffer("w", DType.F32, 50),
        Buffer("y", DType.F32, 10, written=True),
    )
    out = Argument(Place.OUTPUT, access=Access.WRITE)
    arguments = (Argument(Place.ARENA), Argument(Place.WEIGHTS), out)
    port = Port("y", TensorType(DType.F32, (10,)))
    kernel = Kernel("k", buffers, (), ())
    return Program("p", (kernel,), (Step("k", arguments, ("a",)),), (), (port,), 200, 4000)


def test_what_comes_from_afar() -> None:
    (step,), (kernel,) = program().steps, program().kernels
    assert moved_by(step, kernel, 4000) == Moved(200, 0)
    assert moved_by(step, kernel, 3999) == Moved(200, 4000)
    assert moved_by(step, kernel, 0) == Moved(200, 4040)


def test_what_is_updated_comes_and_goes() -> None:
    """Weights and states however small, values that are large."""
    kernel = Kernel("k", (Buffer("y", DType.F32, 10, written=True),), (), ())

    def moved(place: Place, near: int) -> Moved:
        step = Step("k", (Argument(place, access=Access.UPDATE),), ("a",))
        return moved_by(step, kernel, near)

    assert moved(Place.STATE, 40) == Moved(80, 0)
    assert moved(Place.ARENA, 40) == Moved(0, 0)
    assert moved(Place.ARENA, 39) == Moved(0, 80)


def test_the_longer_of_computing_and_moving() -> None:
    team = Team(2, TOY, lanes=16, caches=Caches(1 << 10, 3 << 10))  # values up to 3 KB are near
    assert TOY.clock(2, 16) == 0.5e9
    (short,) = predict(program(), [100.0], team)
    assert short == Prediction(
        moved=Moved(200, 4000), compute_seconds=1e-7, memory_seconds=200 / 1e9 + 4000 / 4e9
    )
    assert (short.bound, short.seconds) == ("memory", short.memory_seconds)
    (long,) = predict(program(), [1e6], team)
    assert (long.bound, long.seconds) == ("compute", 1e-3)


def test_the_type_of_a_program() -> None:
    def typed(*dtypes: DType) -> DType:
        ports = tuple(Port("p", TensorType(dtype, (1,))) for dtype in dtypes)
        return main_type(Program("p", (), (), ports, (), 0, 0))

    assert typed(DType.I64, DType.F64, DType.F32) is DType.F64
    assert typed(DType.I64) is DType.F32


@pytest.mark.parametrize(("end", "way"), [("so", "library"), ("o", "object"), ("LL", "llvm")])
def test_an_artifact_is_not_called_like_something_else(
    convdsl, small: Path, tmp_path: Path, end: str, way: str
) -> None:
    path = tmp_path / f"net.{end}"
    said = convdsl("compile", small, "--weights", "random:0", "-o", path)
    assert said.code == 2
    assert f"add `--emit {way}`" in said.err
    assert not path.exists()
