"""`check` with budgets: parameters, multiply-accumulates, memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convdsl.project.budgets import amount

# small: conv 224 + bn 16 + linear 27 parameters, and 16 statistics; 13,824 + 24 products;
# input 768 bytes, conv and bn and relu 2,048 each
PARAMS, MACS, MEMORY = 267, 13_848, 4 * (267 + 16) + 2 * 2_048


@pytest.mark.parametrize(
    ("option", "figure", "words"),
    [
        ("--max-params", PARAMS, "267 parameters; the budget is 266"),
        ("--max-macs", MACS, "13,848 multiply-accumulates; the budget is 13,847"),
        ("--max-memory", MEMORY, "bytes of weights and activations; the budget is"),
    ],
)
def test_at_the_budget_and_one_beyond(
    convdsl, small: Path, option: str, figure: int, words: str
) -> None:
    assert convdsl("check", small, option, figure).code == 0
    said = convdsl("check", small, option, figure - 1)
    assert said.code == 1
    assert words in said.out
    assert f"{small}:4:7" in said.out
    assert "most " in said.out


def test_the_most_expensive_layers_are_named(convdsl, small: Path) -> None:
    assert "most in conv1 (224), fc (27), bn1 (16)" in convdsl(
        "check", small, "--max-params", 1
    ).out  # fmt: skip


def test_all_budgets_at_once_in_json(convdsl, small: Path) -> None:
    limits = ("--max-params", 1, "--max-macs", 1, "--max-memory", "1KiB")
    said = convdsl("check", small, *limits, "--format", "json")
    assert [d["code"] for d in json.loads(said.out)] == ["E1001", "E1002", "E1003"]


def test_open_sizes_have_to_be_said(convdsl, tmp_path: Path) -> None:
    sized = tmp_path / "sized.cnn"
    sized.write_text("model m { input x: f32[N, 1, H, W]\nx -> conv(2, 3x3) }\n")
    said = convdsl("check", sized, "--max-macs", "1G")
    assert said.code == 1
    assert "say the sizes that are open" in said.out
    assert convdsl("check", sized, "--max-macs", "1G", "--input", "1x8x8").code == 0


def test_a_model_of_the_zoo(convdsl) -> None:
    assert convdsl("check", "lenet5", "--max-params", "1M").code == 0
    assert convdsl("check", "lenet5", "--max-params", "1K").code == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [("7", 7), ("1.5K", 1_500), ("25M", 25_000_000), ("4.1G", 4_100_000_000),
     ("64MiB", 64 << 20), ("2gib", 2 << 30), ("1kB", 1_000)],
)  # fmt: skip
def test_amounts(text: str, count: int) -> None:
    assert amount(text) == count


@pytest.mark.parametrize("text", ["", "M", "-1", "1x", "1 2", "1e9", "i", "5I"])
def test_no_amounts(text: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        amount(text)
