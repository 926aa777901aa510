"""Which code that was made here this processor runs: what it cannot run is refused, not entered."""

from __future__ import annotations

import numpy as np
import pytest

import convdsl
from convdsl import ArtifactError
from convdsl.backends.llvm.objects import find_target
from convdsl.runtime.cpu import engine, processor

X86 = "x86_64-unknown-linux-gnu"


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AVX2 and no more."""
    has = processor.LEVELS["x86-64-v2"] | processor.LEVELS["x86-64-v3"]
    monkeypatch.setattr(engine, "host", lambda: ("x86_64", "znver3", dict.fromkeys(has, True)))
    monkeypatch.setattr(processor, "_flags", frozenset)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("cpu", ["x86-64-v4", "skylake-avx512", "znver4"])
def test_vectors_wider_than_there_are(cpu: str) -> None:
    """They were entered: an illegal instruction ended the process."""
    assert cpu in processor.refusal(find_target(cpu, X86))
    made = convdsl.compile("lenet5", "random:0", cpu=cpu, batch=1)
    with pytest.raises(ArtifactError, match=f"made for {cpu}.*`native` makes code for it"):
        made(np.zeros((1, 1, 32, 32), np.float32))


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3", "haswell", "nehalem", "znver2"])
def test_vectors_that_are_no_wider(cpu: str) -> None:
    assert processor.refusal(find_target(cpu, X86)) == ""


@pytest.mark.usefixtures("narrow")
def test_another_architecture() -> None:
    arm = find_target("cortex-a76", "aarch64-unknown-linux-gnu")
    assert "aarch64" in processor.refusal(arm)


def test_what_is_here() -> None:
    assert processor.refusal(find_target()) == ""
