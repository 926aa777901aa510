"""The passes in their order, and running them over a graph."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Protocol, cast

from convdsl.diagnostics import InputError, expect
from convdsl.ir.graph import Graph
from convdsl.ir.verify import verify as verify_graph
from convdsl.passes.absorb_transposes import AbsorbTransposes
from convdsl.passes.cancel_transposes import CancelTransposes
from convdsl.passes.canonicalise import Canonicalise
from convdsl.passes.common_subexpressions import CommonSubexpressions
from convdsl.passes.eliminate_dead_code import EliminateDeadCode
from convdsl.passes.expand_transforms import ExpandTransforms
from convdsl.passes.fold_batchnorm import FoldBatchNorm
from convdsl.passes.fold_constants import FoldConstants
from convdsl.passes.fold_padding import FoldPadding
from convdsl.passes.fuse_elementwise import FuseElementwise
from convdsl.passes.recompute import Recompute
from convdsl.passes.rewrite import Pass

PASSES: tuple[Pass, ...] = (
    EliminateDeadCode(),
    ExpandTransforms(),
    Canonicalise(),
    CommonSubexpressions(),
    CancelTransposes(),
    AbsorbTransposes(),
    FoldPadding(),
    FoldBatchNorm(),
    FoldConstants(),
    FuseElementwise(),
    Recompute(),
)
"""Every pass, in the order of running."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one pass did: rewrites counted, time taken, the graph that it left."""

    rewrite: Pass
    graph: Graph
    changes: int
    seconds: float


class Observer(Protocol):
    """Told after each pass; the graph is to look at, not to keep."""

    def __call__(self, step: Step) -> None: ...


def check_passes(passes: object, observer: object) -> None:
    """InputError for what is no sequence of passes, or cannot be told of them."""
    expect("passes", passes, tuple, list)
    for item in cast("Sequence[object]", passes):
        expect("a pass", item, Pass)
    if not (observer is None or callable(observer)):
        raise InputError(f"the observer is a {type(observer).__name__}, which cannot be called")


def run(
    graph: Graph,
    passes: Sequence[Pass] = PASSES,
    *,
    verify: bool = False,
    observer: Observer | None = None,
) -> Graph:
    """A rewritten copy of the graph; with `verify`, checked before and after each pass."""
    graph = graph.copy()
    if verify:
        verify_graph(graph)
    for rewrite in passes:
        start = time.perf_counter()
        changes = rewrite.run(graph)
        seconds = time.perf_counter() - start
        if verify:
            verify_graph(graph)
        if observer is not None:
            observer(Step(rewrite, graph, changes, seconds))
    return graph


def select(
    disable: Collection[str] = (), options: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Pass, ...]:
    """All passes but the disabled ones, with options by pass name.

    Raises InputError for a name or an option that does not exist, and for a value of another kind.
    """
    known = {p.name: p for p in PASSES}
    for name in (*disable, *(options or {})):
        if name not in known:
            raise InputError(_unknown("pass", name, known))
    chosen: list[Pass] = []
    for name, rewrite in known.items():
        given = dict((options or {}).get(name, {}))
        accepted = [field.name for field in fields(rewrite)]
        for option in given:
            if option not in accepted:
                raise InputError(_unknown(f"option of {name}", option, accepted))
        if name not in disable:
            said = {o: _valued(f"{name}.{o}", v, getattr(rewrite, o)) for o, v in given.items()}
            chosen.append(replace(rewrite, **said))
    return tuple(chosen)


def _valued(option: str, value: Any, default: bool | float) -> Any:
    """The value of an option, of the kind of its default: yes or no, or a number from 0 up."""
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise InputError(f"{option} is true or false, not {value!r}")
    whole = isinstance(default, int)
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (fits and 0 <= value < float("inf")):
        said = "a whole number" if whole else "a number"
        raise InputError(f"{option} is {said} from 0 up, not {value!r}")
    return type(default)(value)


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"
    return f"no {what} is called {name}: {hint}"
