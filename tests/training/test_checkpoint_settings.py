"""A checkpoint of another run says what differs, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from convdsl.diagnostics import InputError
from convdsl.training.checkpoint import check_same_run

ADAM = "adamw(lr = 0.01, betas = [0.9, 0.999], amsgrad = False)"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (ADAM.replace("0.01", "0.02"), "adamw(lr = 0.01), is adamw(lr = 0.02)"),
        (
            ADAM.replace("0.999", "0.99"),
            "adamw(betas = [0.9, 0.999]), is adamw(betas = [0.9, 0.99]",
        ),
        ("sgd(lr = 0.01)", f"{ADAM}, is sgd(lr = 0.01)"),
        ("adamw", f"{ADAM}, is adamw"),
        ("adamw()", f"{ADAM}, is adamw()"),
    ],
)
def test_what_differs_is_said(now: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        check_same_run(
            Path("run"), {"optimizer": ADAM, "seed": "0"}, {"optimizer": now, "seed": "0"}
        )
    assert f"optimizer was {said}" in str(caught.value)
    assert "seed" not in str(caught.value)
