"""What a card computes at `medium`, said as a graph of f32: the factors of products on the tensor
units are cast to bf16 and back, so that any backend shows what rounding alone does to a network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.rules import kernel_of
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.mma import BF16
from convdsl.lowering.buffers import Buffers
from convdsl.lowering.lower import lower
from convdsl.ops import BY_NAME
from convdsl.schedules.contraction import find_contraction
from convdsl.schedules.cuda.machine import cuda_machine
from convdsl.schedules.cuda.plan import plan_for
from convdsl.tensor import DType

SUMMED = 3e-7
"""By how much of themselves sums of f32 differ that are taken in another order, about."""


def with_rounded_products(graph: Graph, target: CudaTarget, nudged: int = 0) -> Graph:
    """The same network, its products those of rounded factors, as the card's program has them.
    `nudged`: a seed by which values are moved before they are rounded, as much as sums in another
    order would move them."""
    rounded = graph.copy()
    build = Build(rounded, BY_NAME, Names())
    random = np.random.default_rng(nudged)
    made: dict[Value, Value] = {}
    nodes = {node.id: node for node in rounded.op_nodes()}
    moving = _of_the_call(rounded)
    for node, operand in list(_rounded_operands(graph, target)):
        mine = nodes[node.id]
        value = mine.inputs[operand]
        if value not in made:
            number, given = len(made), value
            if nudged and value in moving:
                almost = 1 + SUMMED * random.standard_normal(value.type.sizes)
                factor = build.constant(almost, DType.F32, name=f"almost{number}")
                given = build("mul", value, factor, name=f"nudged{number}")
            half = build("cast", given, dtype="bf16", name=f"rounded{number}")
            made[value] = build("cast", half, dtype="f32", name=f"widened{number}")
        rounded.set_input(mine, operand, made[value])
    return rounded


def _of_the_call(graph: Graph) -> set[Value]:
    """What operators compute from inputs, rather than from weights alone."""
    found, made = set(graph.inputs.values()), set[Value]()
    for node in graph.op_nodes():
        if not found.isdisjoint(node.inputs.values()):
            found |= set(node.outputs)
            made |= set(node.outputs)
    return made


def _rounded_operands(graph: Graph, target: CudaTarget) -> Iterator[tuple[OpNode, str]]:
    """What lies in memory in bf16, whoever reads it; and what tensor units read: which products run
    on them, the chosen schedules say."""
    machine = cuda_machine(target)
    narrowed = Buffers(graph, machine).narrowed
    on_units: set[str] = set()
    kernels: dict[str, int] = {}
    for number, choice in enumerate(lower(graph, machine, "rounded").choices):
        kernels |= dict.fromkeys(choice.nodes, number)
        plan = plan_for(choice.task, target) if choice.schedule == "implicit_gemm" else None
        if choice.schedule == "phases" or (plan is not None and plan.tile.form is BF16):
            on_units |= set(choice.nodes)
    for node in graph.op_nodes():
        operands = {
            name
            for name, value in node.inputs.items()
            if narrowed.operand(node, name).dtype is not value.type.dtype
            and kernels.get(value.node.name) != kernels.get(node.name, -1)
        }
        if node.name in on_units:
            for stage in kernel_of(node.call).stages:
                if (product := find_contraction(stage)) is not None:
                    operands |= {product.a.tensor.name, product.b.tensor.name}
        yield from ((node, name) for name in sorted(operands))
