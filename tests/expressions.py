"""A tensor expression as an operator of its own: run by the oracle, the loops and machine code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from executors import graph_of, interpreted, machine_code, run_graph

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.opdef import (
    DERIVED,
    Call,
    OpDef,
    Operand,
    Role,
    derived,
    no_contraction,
    no_state,
    resolve_as_given,
)
from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import TensorExpr

Array = np.ndarray[Any, Any]
_numbers = count()

CPUS = ("x86-64-v2", "x86-64-v3", "native")
"""Vectors of 16 and 32 bytes, and of as many as there are."""


def call_of(expr: TensorExpr, weights: Collection[str] = ()) -> Call:
    """The expression as a call of an operator; its inputs are data, but for the weights."""
    targets = {stage.target.name: stage.target.type for stage in expr.stages}
    op = OpDef(
        name=f"expression{next(_numbers)}",
        aliases=(),
        doc="An expression of a test.",
        operands=tuple(
            Operand(x.name, Role.PARAMETER if x.name in weights else Role.DATA) for x in expr.inputs
        ),
        attributes=(),
        outputs=expr.outputs,
        resolve=resolve_as_given,
        state=no_state,
        infer=lambda _: tuple(targets[name] for name in expr.outputs),
        window=derived,
        cost=no_contraction,
        kernel=lambda _: expr,
        gradient=DERIVED,
    )
    return op.call({x.name: x.type for x in expr.inputs})


def run_everywhere(
    expr: TensorExpr,
    arrays: Mapping[str, Array],
    cpus: tuple[str, ...] = CPUS,
    weights: Collection[str] = (),
) -> dict[str, dict[str, Array]]:
    """Outputs by name from each execution, by its name."""
    graph = graph_of(call_of(expr, weights))
    slow = {"oracle": evaluate(expr, arrays), "loops": run_graph(graph, arrays, interpreted)}
    return slow | run_machine_code(expr, arrays, cpus, weights)


def run_machine_code(
    expr: TensorExpr,
    arrays: Mapping[str, Array],
    cpus: tuple[str, ...] = CPUS,
    weights: Collection[str] = (),
) -> dict[str, dict[str, Array]]:
    """Outputs by name from the code for each processor, by one thread, two and three."""
    graph = graph_of(call_of(expr, weights))
    found: dict[str, dict[str, Array]] = {}
    for cpu in cpus:
        target = find_target(cpu)
        found[cpu] = run_graph(graph, arrays, partial(machine_code, target=target), target)
    return found
