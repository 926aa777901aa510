"""Sums over ranks by NCCL, on a card that is not there; the other rank has the same samples."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cuda.fake_driver import Card, Fake, Stream, there_is

import convdsl
from convdsl.diagnostics import InputError
from convdsl.ranks import DONE, Pending
from convdsl.runtime.cuda.sums import CardSums
from convdsl.training.session import Session
from convdsl.training.settings import complete

NET = """
model small {
    input image: f32[N, 1, 8, 8]
    x = image -> conv(4, 3x3, bias = false) -> bn -> relu -> conv(6, 3x3)
    x -> relu -> avg_pool(global) -> flatten -> linear(3) -> output logits
}
"""
NAME = b"a name of NCCL's"
STEPS = 3


class Mirrored:
    """The first of two ranks, the second of which does the same on the same samples."""

    rank, size, local, sharing = 0, 2, 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value, value]

    def broadcast(self, value: Any) -> Any:
        return value

    def all_reduce(self, memory: np.ndarray[Any, Any]) -> Pending:
        memory *= 2
        return DONE


@dataclass
class Nccl:
    """What cupy.cuda.nccl does of it."""

    fake: Fake
    streams: dict[int, Stream] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    made: int = 0

    def module(self, *, available: bool = True) -> ModuleType:
        module = ModuleType("cupy.cuda.nccl")
        module.__dict__.update(
            available=available,
            NCCL_SUM=0,
            NCCL_FLOAT32=7,
            NCCL_FLOAT64=8,
            get_unique_id=lambda: NAME,
            NcclCommunicator=self.communicator,
        )
        return module

    def communicator(self, size: int, name: bytes, rank: int) -> Nccl:
        assert (size, name, rank) == (2, NAME, 0)
        self.made += 1
        return self

    def allReduce(
        self, send: int, receive: int, count: int, kind: int, operation: int, stream: int
    ) -> None:
        assert (send, operation) == (receive, 0)
        assert stream, "beside the kernels"
        self.counts.append(count)
        dtype = np.dtype({7: np.float32, 8: np.float64}[kind])

        def work() -> None:
            memory = self.fake.bytes_at(receive)[: count * dtype.itemsize].view(dtype)
            memory *= 2

        self.streams[stream].put(work)


def put_in_place(fake: Fake, patch: pytest.MonkeyPatch, *, available: bool = True) -> Nccl:
    nccl, usual = Nccl(fake), Stream.__init__

    def remembered(self: Stream, *given: Any, **named: Any) -> None:
        usual(self, *given, **named)
        nccl.streams[self.ptr] = self

    patch.setattr(Stream, "__init__", remembered)
    cuda = ModuleType("cupy.cuda")
    cuda.__dict__["nccl"] = nccl.module(available=available)
    patch.setitem(sys.modules, "cupy.cuda", cuda)
    return nccl


@pytest.mark.dear
@pytest.mark.parametrize(("synchronised", "checked"), [(True, "0"), (False, "1")])
def test_steps_are_those_of_the_whole_batch(
    synchronised: bool, checked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By graphs, a graph for each phase, and launch by launch."""
    model = convdsl.parse(NET)
    said = {"batch": 8, "optimizer": "sgd(lr = 0.1)", "sync_batch_norm": synchronised}
    training = complete(model, {**said, "clip": 0.5})
    draw = np.random.default_rng(0)
    x = draw.standard_normal((STEPS, 4, 1, 8, 8)).astype("f4")
    y = draw.integers(0, 3, (STEPS, 4))
    plain = Session(model, training, "random:0", threads=1, cache=False)
    for image, label in zip(x, y, strict=True):
        whole = {"image": np.concatenate([image] * 2), "label": np.concatenate([label] * 2)}
        plain.step(whole, 0.1)
    monkeypatch.setenv("CONVDSL_CUDA_CHECK", checked)
    with there_is(Card()) as fake, monkeypatch.context() as patch:
        nccl = put_in_place(fake, patch)
        session = Session(model, training, "random:0", device="cuda", cache=False, ranks=Mirrored())
        for image, label in zip(x, y, strict=True):
            session.step({"image": image, "label": label}, 0.1)
        found, graphs = session.states(), fake.card.count("graph")
        captured = fake.card.count("captured")
    variance = {"bn.running_var"}  # unbiased: n / (n - 1) of so many elements as a rank has
    for key, array in plain.states().items():
        close = 1e-2 if key in variance and not synchronised else 1e-4
        np.testing.assert_allclose(found[key], array, rtol=close, atol=2e-6, err_msg=key)
    sums = len(nccl.counts) // STEPS
    assert (nccl.made, len(nccl.counts) % STEPS) == (1, 0)
    assert sums >= (6 if synchronised else 3)
    if checked == "0":
        assert graphs == STEPS * captured
        assert captured > 2


def test_without_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    with there_is(Card()) as fake:
        put_in_place(fake, monkeypatch, available=False)
        with pytest.raises(InputError, match="pip install nvidia-nccl-cu13"):
            CardSums(fake.module(), Mirrored())
