"""Normalisations that a text or a file writes out, as the operators that they are.

    d = x - mean(x)
    d / sqrt(mean(d * d) + eps)            layer_norm(x), or instance_norm(x) of maps
    .. * weight + bias                     with these, where they are as large as what is normalised

So exporters write layer normalisation, which ONNX has since opset 17 only. The operators meet a row
once, while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.opdef import OpError
from convdsl.ops import BY_NAME
from convdsl.passes.idioms import inner_of, number_of, operands_of
from convdsl.passes.rewrite import Pattern, Rewriter
from convdsl.tensor import DType
from convdsl.tensor.conversion import stored


@dataclass(frozen=True, slots=True)
class _Mean:
    """x minus its mean over some axes."""

    x: Value
    axes: tuple[int, ...]


class NameNormalisations(Pattern):
    """What is divided by its deviation, and scaled and shifted -> layer_norm, instance_norm."""

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        if node.op.name not in ("div", "mul", "add") or not node.output.type.dtype.is_float:
            return False
        if node.op.name == "add":
            return _with_affine(node, rewriter)
        for apart, scale in _quotients(node.output):
            mean, spread = _deviation(apart), _spread(scale)
            if mean is None or spread is None:
                continue
            square, eps = spread
            if _squared(square) == mean and _only_here(node, (apart, scale), rewriter.graph):
                return _named(node, mean, eps, rewriter)
        return False


def _named(node: OpNode, mean: _Mean, eps: float, rewriter: Rewriter) -> bool:
    """The operator in the place of the quotient, if there is one over these axes."""
    rank, first = mean.x.type.rank, min(mean.axes)
    if mean.x.type != node.output.type or mean.axes != tuple(range(first, rank)):
        return False
    how: dict[str, Any] = {"eps": _shortest(eps, mean.x.type.dtype), "affine": False}
    op = "instance_norm" if rank > 3 and first == 2 else "layer_norm"
    if op == "layer_norm":
        how["axis"] = first
    try:
        made = rewriter.at(node)(op, mean.x, name=op, **how)
    except OpError:  # of sizes that are open where the operator has to know them
        return False
    rewriter.replace(node, made, node.name)
    return True


def _shortest(eps: float, dtype: DType) -> float:
    """A number as one writes it, where the elements' type cannot tell it from what it was rounded
    to: 1e-5, not 9.99999974738e-6."""
    short = float(f"{eps:.6g}")
    return short if dtype is DType.F32 and stored(short, dtype) == stored(eps, dtype) else eps


def _with_affine(node: OpNode, rewriter: Rewriter) -> bool:
    """norm(x) * weight + bias, of weights that are as large as what is normalised."""
    for product, bias in _either(operands_of(node.output, "add")):
        for y, weight in _either(operands_of(product, "mul")):
            norm = y.node
            if not isinstance(norm, OpNode) or norm.op is not BY_NAME["layer_norm"]:
                continue
            shape = norm.output.type.shape[norm.call["axis"] :]
            states = (weight, bias)
            fit = all(isinstance(v.node, StateNode) and v.type.shape == shape for v in states)
            if norm.call["affine"] or not fit or not _alone((y, product), rewriter.graph):
                continue
            if any(v.type.dtype is not y.type.dtype for v in states):
                continue
            given = {"weight": weight, "bias": bias}
            how: dict[str, Any] = {**norm.attributes, "affine": True}
            made = rewriter.at(node)("layer_norm", norm.inputs["x"], states=given, **how)
            rewriter.replace(node, made, node.name)
            return True
    return False


def _either(pair: tuple[Value, Value] | None) -> tuple[tuple[Value, Value], ...]:
    """Two operands in both orders."""
    return () if pair is None else (pair, (pair[1], pair[0]))


def _quotients(value: Value) -> Iterator[tuple[Value, Value]]:
    """What is divided, and the sum of variance and eps under the root that divides it."""
    shares = operands_of(value, "div")
    root = None if shares is None else _rooted(shares[1])
    if shares is not None and root is not None:
        yield shares[0], root
    for apart, factor in _either(operands_of(value, "mul")):
        under = _inverted(factor)
        if under is not None:
            yield apart, under


def _rooted(value: Value) -> Value | None:
    """v of sqrt(v)."""
    return inner_of(value, "sqrt") or _power(value, 0.5)


def _inverted(value: Value) -> Value | None:
    """v of 1 / sqrt(v)."""
    shares = operands_of(value, "div")
    if shares is not None and number_of(shares[0]) == 1.0:
        return _rooted(shares[1])
    below = inner_of(value, "reciprocal")
    if below is not None:
        return _rooted(below)
    return _power(value, -0.5)


def _power(value: Value, exponent: float) -> Value | None:
    """v of v ** exponent."""
    power = operands_of(value, "pow")
    return power[0] if power is not None and number_of(power[1]) == exponent else None


def _deviation(value: Value, turned: bool = False) -> _Mean | None:
    """x - mean(x); `turned`: or mean(x) - x."""
    pair = operands_of(value, "sub")
    for x, other in _either(pair)[: 2 if turned else 1]:
        mean = other.node
        if isinstance(mean, OpNode) and mean.op is BY_NAME["reduce_mean"] and mean.call["keepdims"]:
            return _Mean(x, tuple(mean.call["axes"])) if mean.inputs["x"] is x else None
    return None


def _spread(value: Value) -> tuple[Value, float] | None:
    """The mean of squares, and eps, of their sum."""
    for mean, eps in _either(operands_of(value, "add")):
        number = number_of(eps)
        if number is not None:
            return mean, number
    return None


def _squared(value: Value) -> _Mean | None:
    """What is squared and averaged over the same axes as its mean is taken."""
    mean = value.node
    if not isinstance(mean, OpNode) or mean.op is not BY_NAME["reduce_mean"]:
        return None
    square = mean.inputs["x"]
    factors = operands_of(square, "mul")
    base = factors[0] if factors is not None and factors[0] is factors[1] else _power(square, 2.0)
    found = None if base is None else _deviation(base, turned=True)
    fits = found is not None and mean.call["keepdims"] and tuple(mean.call["axes"]) == found.axes
    return found if fits else None


def _only_here(node: OpNode, parts: tuple[Value, Value], graph: Graph) -> bool:
    """Whether nothing but the quotient needs what it is made of, down to x."""
    x = _deviation(parts[0])
    assert x is not None
    own, pending = {node}, [value for value in node.inputs.values() if value is not x.x]
    inside: list[Value] = []
    while pending:
        value = pending.pop()
        if value is x.x or not isinstance(value.node, OpNode) or value in inside:
            continue
        own.add(value.node)
        inside.append(value)
        pending += value.node.inputs.values()
    if any(graph.is_result(value) for value in inside):
        return False
    return all(user in own for value in inside for user, _ in graph.users(value))


def _alone(values: tuple[Value, ...], graph: Graph) -> bool:
    return all(len(graph.users(v)) == 1 and not graph.is_result(v) for v in values)
