"""The pipeline: order, options, observation, names."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from graphs import Builder, assert_same_numbers, structure

from convdsl.diagnostics import InputError
from convdsl.ir.graph import Graph
from convdsl.passes import PASSES, Step, run, select
from convdsl.passes.fold_constants import FoldConstants


def network() -> Graph:
    b = Builder()
    x = b.input("x", 2, 3, 8, 8)
    h = b("relu", b("batch_norm", b("conv", x, channels=4, kernel=3, bias=False)))
    b("relu6", h)
    return b.output(y=b("dropout", b("add", h, b("conv", h, channels=4, kernel=1))))


@pytest.mark.parametrize("rewrite", PASSES, ids=lambda p: p.name)
def test_one_name_in_three_spellings(rewrite) -> None:
    cls = type(rewrite)
    file = Path(inspect.getfile(cls)).stem
    assert file == rewrite.name.replace("-", "_")
    assert cls.__name__.lower() == rewrite.name.replace("-", "")
    assert re.fullmatch(r"[A-Z].*\.", cls.summary())


def test_names_are_unique() -> None:
    assert len({p.name for p in PASSES}) == len(PASSES)


def test_the_graph_given_is_left_alone() -> None:
    graph = network()
    before = structure(graph)
    after = run(graph, verify=True)
    assert structure(graph) == before
    assert all(node.group is None for node in graph.op_nodes())
    assert_same_numbers(graph, after)


@pytest.mark.parametrize("rewrite", PASSES, ids=lambda p: p.name)
def test_each_pass_alone_keeps_the_numbers_and_then_rests(rewrite) -> None:
    graph = network()
    steps: list[Step] = []
    once = run(graph, (rewrite,), verify=True)
    twice = run(once, (rewrite,), verify=True, observer=steps.append)
    assert_same_numbers(graph, once)
    assert structure(once) == structure(twice)


@pytest.mark.parametrize("name", [p.name for p in PASSES])
def test_any_pass_can_be_left_out(name: str) -> None:
    graph = network()
    chosen = select(disable=[name])
    assert [p.name for p in chosen] == [p.name for p in PASSES if p.name != name]
    assert_same_numbers(graph, run(graph, chosen, verify=True))


def test_observers_see_each_pass_in_order() -> None:
    steps: list[Step] = []
    run(network(), observer=steps.append)
    assert [step.rewrite.name for step in steps] == [p.name for p in PASSES]
    assert next(s.changes for s in steps if s.rewrite.name == "fold-batchnorm") == 1
    assert all(step.seconds >= 0 for step in steps)


def test_options_are_fields() -> None:
    chosen = select(options={"fold-constants": {"limit": 4}})
    assert FoldConstants(limit=4) in chosen


def test_unknown_names_are_misuse() -> None:
    with pytest.raises(InputError, match="did you mean fold-batchnorm"):
        select(disable=["fold-batchnrm"])
    with pytest.raises(InputError, match="did you mean limit"):
        select(options={"fold-constants": {"limits": 4}})
    with pytest.raises(InputError, match="there are none"):
        select(options={"eliminate-dead-code": {"limits": 4}})


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("recompute.share", "much", "a number from 0 up, not 'much'"),
        ("recompute.share", -0.1, "a number from 0 up"),
        ("recompute.share", float("nan"), "a number from 0 up"),
        ("recompute.share", float("inf"), "a number from 0 up"),
        ("recompute.share", True, "a number from 0 up, not True"),
        ("fold-constants.limit", 1.5, "a whole number from 0 up, not 1.5"),
        ("fold-constants.limit", -1, "a whole number from 0 up"),
        ("fold-constants.limit", "1k", "a whole number from 0 up"),
        ("fold-constants.limit", None, "a whole number from 0 up"),
        ("fuse-elementwise.longest", True, "a whole number from 0 up"),
        ("fold-batchnorm.expand", 1, "true or false, not 1"),
        ("fold-batchnorm.expand", "no", "true or false, not 'no'"),
    ],
)
def test_values_of_options_are_of_their_kind(option: str, value: Any, said: str) -> None:
    name, _, own = option.partition(".")
    with pytest.raises(InputError, match=f"{option} is {said}"):
        select(options={name: {own: value}})
    assert select(options={"recompute": {"share": 1}, "fold-batchnorm": {"expand": False}})
