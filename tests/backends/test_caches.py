"""Cache sizes as Linux tells them, and what is taken where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from convdsl.backends.llvm.caches import caches_of_system
from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.caches import TYPICAL, Caches

Index = tuple[str, str, str, str]  # level, type, size, processors

XEON: list[Index] = [
    ("1", "Data", "48K", "0"),
    ("1", "Instruction", "32K", "0"),
    ("2", "Unified", "1280K", "0"),
    ("3", "Unified", "49152K", "0-1"),
]


def write(folder: Path, indices: list[Index]) -> Path:
    for number, (level, kind, size, processors) in enumerate(indices):
        place = folder / f"index{number}"
        place.mkdir()
        told = {"level": level, "type": kind, "size": size, "shared_cpu_list": processors}
        for name, text in told.items():
            (place / name).write_text(text + "\n")
    return folder


def test_of_a_core(tmp_path: Path) -> None:
    assert caches_of_system(write(tmp_path, XEON)) == Caches(48 << 10, 1280 << 10)


@pytest.mark.parametrize(
    ("l1_users", "l2_users", "l2"),
    [("0,4", "0,4", 2 << 20), ("0", "0-3", 512 << 10), ("0-1", "0-3,8-11", 512 << 10)],
)
def test_threads_share_and_clusters_divide(
    tmp_path: Path, l1_users: str, l2_users: str, l2: int
) -> None:
    indices = [("1", "Data", "32K", l1_users), ("2", "Unified", "2M", l2_users)]
    assert caches_of_system(write(tmp_path, indices)) == Caches(32 << 10, l2)


@pytest.mark.parametrize(
    "indices",
    [
        [],
        XEON[:2],
        XEON[1:],
        [("1", "Data", "0K", "0"), XEON[2]],
        [("1", "Data", "48", "0"), XEON[2]],
        [("1", "Data", "much", "0"), XEON[2]],
        [XEON[0], ("2", "Unified", "16K", "0")],
        [XEON[0], ("2", "Unified", "1280K", "")],
        [XEON[0], ("2", "Unified", "9999999K", "0")],
    ],
)
def test_what_cannot_be_true_is_not_believed(tmp_path: Path, indices: list[Index]) -> None:
    assert caches_of_system(write(tmp_path, indices)) == TYPICAL


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, XEON)
    (tmp_path / "index2" / "size").unlink()
    assert caches_of_system(tmp_path) == TYPICAL
    assert caches_of_system(tmp_path / "none") == TYPICAL


def test_targets() -> None:
    """Code for a named processor is the same wherever it is made."""
    assert find_target().caches == caches_of_system()
    assert find_target("x86-64-v3", "x86_64-unknown-linux-gnu").caches == TYPICAL
