"""The machine's figures: measured once, kept under all that they depend on."""

from __future__ import annotations

import json
from dataclasses import astuple, replace

import pytest

from convdsl.backends.llvm import objects as llvm
from convdsl.measure import machine, peak
from convdsl.measure.machine import Figures, figures, remembered
from convdsl.runtime.cache import ObjectCache, default_directory
from convdsl.tensor import DType


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, DType]]:
    """What has been measured; each time the machine seems to have become faster."""
    calls: list[tuple[int, str, DType]] = []

    def measure_peak(threads: int, cpu: str, dtype: DType) -> float:
        calls.append((threads, cpu, dtype))
        return 100.0 * len(calls)

    monkeypatch.setattr(machine, "measure_peak", measure_peak)
    monkeypatch.setattr(machine, "measure_memory", lambda threads, cpu: 12e9)
    monkeypatch.setattr(machine, "measure_l2", lambda threads, cpu: 60e9)
    monkeypatch.setattr(machine, "measure_l3", lambda threads, cpu: 20e9)
    return calls


def test_measured_once(measured: list[object]) -> None:
    assert remembered(2) is None
    assert figures(2) == figures(2) == remembered(2) == Figures(100e9, 12e9, 60e9, 20e9)
    assert len(measured) == 1
    assert figures(2, anew=True) == remembered(2) == Figures(200e9, 12e9, 60e9, 20e9)
    assert ObjectCache().entries() == []  # --clear-cache forgets code, not figures


def test_figures_by_threads_processor_and_type(measured: list[object]) -> None:
    figures(1)
    figures(2)
    figures(1, "x86-64-v2")
    figures(1, dtype=DType.F64)
    assert len(measured) == 4
    figures(1, "x86-64-v2")
    assert len(measured) == 4


def test_another_machine_or_version(
    measured: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home folder may be shared by several machines."""
    target = llvm.find_target()
    for owner, name, other in [
        (machine, "identity", lambda: "another processor"),
        (machine, "identity", lambda: ""),
        (machine, "available_threads", lambda: 99),
        (machine, "__version__", "0.0.0"),
        (machine.llvm, "llvm_version", lambda: "another"),
        (machine.llvm, "find_target", lambda cpu: replace(target, features="+none")),
    ]:
        figures(1)
        before = len(measured)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, other)
            figures(1)
            assert len(measured) == before + 1
        figures(1)
        assert len(measured) == before + 1


FIELDS = {"flops": 1.0, "memory_bytes": 1.0, "l2_bytes": 1.0, "l3_bytes": 1.0}


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"{",
        b"[1.0, 2.0, 3.0]",
        b'{"flops": 1.0}',
        json.dumps(FIELDS | {"flops": 0.0}).encode(),
        json.dumps(FIELDS | {"flops": "fast"}).encode(),
        json.dumps(FIELDS | {"l2_bytes": float("inf")}).encode(),
        json.dumps(FIELDS | {"l2_bytes": float("nan")}).encode(),
        json.dumps(FIELDS | {"more": 1.0}).encode(),
        b"\xff\xfe",
    ],
)
def test_what_is_no_measurement_is_made_anew(
    measured: list[object], monkeypatch: pytest.MonkeyPatch, entry: bytes
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ObjectCache, "get", lambda self, key: entry)
        assert figures(1).flops == 100e9
    assert len(measured) == 1


def test_a_damaged_file_is_made_anew(measured: list[object]) -> None:
    figures(1)
    (path,) = ObjectCache(default_directory().parent / "machine").entries()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert remembered(1) is None
    assert figures(1) == remembered(1) == Figures(200e9, 12e9, 60e9, 20e9)


def test_the_clock_follows_from_the_peak() -> None:
    """Two multiply-adds a cycle: the figure that makes the peak kernel's cycles its time."""
    assert Figures(4 * 16 * 3e9 * 2, 1.0, 1.0, 1.0).clock(threads=2, lanes=16) == 3e9


def test_this_machine(measured: list[object]) -> None:
    found = machine.this_machine()
    assert (found.name, found.operations, found.bandwidth) == ("measured", 100e9, 12e9)
    assert "multiply-adds" in found.source


def test_kernels_that_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_SECONDS", 0.0)
    monkeypatch.setattr(peak, "MEMORY_BYTES", 8 << 20)
    found = figures(2, "x86-64-v2", DType.F64)
    assert min(astuple(found)) > 0


def test_doctor_measures(convdsl, measured: list[object]) -> None:
    def speeds(*options: str) -> list[str]:
        rows = json.loads(convdsl("doctor", *options, "--format", "json").out)
        return [row["value"] for row in rows if row["what"].startswith("speed on")]

    assert all("not measured yet" in value for value in speeds())
    for _ in range(2):
        found = speeds("--measure")
        assert all("GFLOP/s; reading 12.0 GB/s from memory" in value for value in found)
        assert speeds() == found
    assert len(measured) == 2 * len(speeds())


def test_report_on_this_machine(convdsl, small, measured: list[object]) -> None:
    said = convdsl("report", small, "--machine", "measured", "--format", "json")
    told = json.loads(said.out)
    assert told["machine"]["name"] == "measured"
    assert told["machine"]["operations_per_second"] == 100e9
    assert told["machine"]["bytes_per_second"] == 12e9
    assert told["total"]["seconds"] == sum(kernel["seconds"] for kernel in told["kernels"])
    convdsl("report", small, "--machine", "measured")
    assert len(measured) == 1
