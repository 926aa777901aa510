"""Ranks of one machine keep large states once and replace them as one team: the same result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ranks import Meeting, Rank, together

import convdsl
from convdsl.compilation import Plan
from convdsl.kernel.joint import steps_apart
from convdsl.kernel.program import LARGE, Access, Place, is_large
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.common import Common, Turn
from convdsl.toolchain import find_toolchain
from convdsl.training.data.parts import Part
from convdsl.training.session import Session
from convdsl.training.settings import complete
from convdsl.training.step import training_step

Array = np.ndarray[Any, Any]

# Weights of 64 KB, biases of 512 bytes.
NET = """
model net {
    input x: f32[N, 128]
    x -> linear(128) -> relu -> linear(128) -> relu -> linear(3) -> output logits
}
"""
LAMB: dict[str, Any] = {"optimizer": "lamb()", "accumulate": 2}
"""Its updates make directions on the way: steps that write more than states."""

SETTINGS: list[dict[str, Any]] = [
    {"optimizer": "sgd(momentum = 0.9)", "ema": 0.9},
    {"optimizer": "adamw(weight_decay = 0.1)", "clip": 1.0},
    {"optimizer": "sgd(momentum = 0.9)", "accumulate": 2},
]


class Apart(Rank):
    """A rank with a machine of its own."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        super().__init__(meeting, rank)
        self.beside, self.local = 1, 0


def data(count: int, whole: int) -> list[dict[str, Array]]:
    draw = np.random.default_rng(whole)
    return [
        {
            "x": draw.standard_normal((whole, 128)).astype("f4"),
            "label": draw.integers(0, 3, whole),
        }
        for _ in range(count)
    ]


def run(rank: Rank, model: Any, training: Any, batches: list[dict[str, Array]]) -> dict[str, Array]:
    session = Session(model, training, "random:0", threads=1, ranks=rank)
    for batch in batches:
        whole = len(batch["x"])
        part = Part.of(whole, rank.rank, rank.size)
        mine = {key: array[part.first : part.first + part.count] for key, array in batch.items()}
        session.step(mine, 0.01, whole)
    return session.states()


@pytest.mark.dear
@pytest.mark.parametrize(
    ("said", "size"), [(SETTINGS[0], 3), (SETTINGS[1], 2), (SETTINGS[2], 2), (LAMB, 2)], ids=str
)
def test_states_are_those_of_ranks_apart(said: dict[str, Any], size: int) -> None:
    """To the bit, with parts that differ in size, and so code that may."""
    model = convdsl.parse(NET)
    training = complete(model, {"batch": 9, **said})
    batches = [*data(2, 9), *data(2, 7), *data(1, 9)]
    found = together(size, lambda rank: run(rank, model, training, batches))
    meeting = Meeting(size)
    apart = together(
        size, lambda rank: run(Apart(meeting, rank.rank), model, training, batches), meeting
    )
    for states in (*found, *apart[1:]):
        for key, array in states.items():
            assert array.tobytes() == apart[0][key].tobytes(), key


def test_large_states_are_there_once() -> None:
    """What a rank writes all see; small ones are each rank's own."""
    model = convdsl.parse(NET)
    training = complete(model, {"batch": 4})
    sessions = together(2, lambda rank: Session(model, training, "random:0", threads=1, ranks=rank))
    first, second = sessions
    for key, array in first.states().items():
        first.restore(first.states() | {key: array + 1})
        seen = bool((second.states()[key] == array + 1).all())
        assert seen == (array.nbytes >= LARGE), key


@pytest.mark.parametrize("threads", [1, 2])
def test_ranks_of_several_threads_have_states_of_their_own(threads: int) -> None:
    """They would wait for one thread of each."""
    model = convdsl.parse(NET)
    step = training_step(model, complete(model, {"batch": 4}), shared=True)

    bound = {key: np.zeros(n.type.sizes, "f4") for key, n in model.graph.states.items()}

    def held(rank: Rank) -> bool:
        convdsl.compile(step.model, step.arrays(bound), threads=threads, ranks=rank)
        return bool(rank.meeting.memory)

    assert together(2, held) == [threads == 1] * 2


def program(said: dict[str, Any], batch: int = 4) -> Any:
    model = convdsl.parse(NET)
    step = training_step(model, complete(model, {"batch": 4, **said}), shared=True)
    return Plan(step.model, find_toolchain("cpu")).lower({"N": batch}).program


@pytest.mark.dear
def test_shares_are_done_once() -> None:
    """Of three that come at different times, each takes what the others have not."""
    model = convdsl.parse(NET.replace("linear(128)", "linear(512)"))
    training = complete(model, {"batch": 6, "optimizer": "sgd(momentum = 0.9)"})
    batches = data(6, 6)

    class Late(Rank):
        turns = 0

        def agree(self, memory: Array) -> None:
            super().agree(memory)
            time.sleep(1e-3 * ((self.rank + self.turns) % 3))
            self.turns += 1

    meeting = Meeting(3)
    found = together(
        3, lambda rank: run(Late(meeting, rank.rank), model, training, batches), meeting
    )
    meeting = Meeting(3)
    apart = together(
        3, lambda rank: run(Apart(meeting, rank.rank), model, training, batches), meeting
    )
    for key, array in apart[0].items():
        assert all(states[key].tobytes() == array.tobytes() for states in found), key


def test_joint_steps_do_not_wait_for_each_other() -> None:
    """But for the last one, and where one reads what another writes."""
    made = program(SETTINGS[0])
    assert made.joint is not None
    ((first, last),) = made.joint.runs
    assert steps_apart(made) == {*range(first, last - 1)}
    written = next(a for a in made.steps[last - 1].arguments if a.place is Place.STATE)
    reading = replace(written, access=Access.READ)
    changed = replace(made.steps[first], arguments=(*made.steps[first].arguments, reading))
    steps = (*made.steps[:first], changed, *made.steps[first + 1 :])
    assert steps_apart(replace(made, steps=steps)) == set()
    assert steps_apart(replace(made, joint=None)) == set()


def test_what_does_more_is_no_joint_step() -> None:
    assert program(LAMB).joint is None


@pytest.mark.dear
@pytest.mark.parametrize("said", SETTINGS, ids=str)
def test_programs_know_the_work_that_is_shared(said: dict[str, Any]) -> None:
    """All that writes large states, and nothing else, in one or two runs; the same whatever the
    size of a part."""
    made = program(said)
    assert made.joint is not None
    assert len(made.joint.runs) <= 2
    joint = {number for run in made.joint.runs for number in range(*run)}
    for number, step in enumerate(made.steps):
        for argument in step.arguments:
            if argument.access is Access.READ:
                continue
            large = argument.place is Place.STATE and is_large(made.states[argument.slot])
            assert large == (number in joint)
    assert len(joint) >= 2
    other = program(said, 5).joint
    assert other is not None
    assert other.digest == made.joint.digest


@pytest.mark.parametrize("digests", [(5, 5, 5), (5, 5, 6), (5, 0, 5), (0, 0, 0), (1, 2, 3)])
def test_all_come_to_the_same_answer(digests: tuple[int, ...]) -> None:
    def agree(rank: Rank) -> tuple[bool, bool]:
        return Common(rank, np.zeros(64, np.uint8)).agree(digests[rank.rank])

    assert together(3, agree) == [(len({*digests}) == 1, 0 not in digests)] * 3


@pytest.mark.dear
@pytest.mark.parametrize("who", ["nobody", "rank 0", "rank 1", "another digest"])
def test_programs_that_differ(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all have the same joint steps, or any: the states are the same at the end."""
    model = convdsl.parse(NET)
    training = complete(model, {"batch": 8, "optimizer": "adamw()", "accumulate": 2})
    batches = data(5, 8)
    wanted = together(2, lambda rank: run(rank, model, training, batches))[0]
    begin = Turn.__init__

    def changed(self: Turn, common: Common, code: Code, states: Sequence[Array]) -> None:
        joint, rank = code.joint, common.ranks.rank
        assert joint is not None
        if who == "another digest":
            joint = replace(joint, digest=joint.digest + rank)
        elif who in ("nobody", f"rank {rank}"):
            joint = None
        begin(self, common, replace(code, joint=joint), states)

    monkeypatch.setattr(Turn, "__init__", changed)
    for states in together(2, lambda rank: run(rank, model, training, batches)):
        assert all(a.tobytes() == wanted[key].tobytes() for key, a in states.items())
