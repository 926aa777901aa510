"""Activations that a text or a file writes out, as the operators that they are.

    x * 0.5 * (1 + erf(x / sqrt(2)))                                  gelu(x)
    x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))        gelu(x, approximate = tanh)
    x * tanh(softplus(x))                                             mish(x)

So exporters write GELU, which ONNX has since opset 20 only. The operators take fewer operations,
and are exact in the tail, where 1 + erf(..) cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, pi, sqrt
from typing import Any

from convdsl.ir.graph import Graph, Node, OpNode, StateNode, Value
from convdsl.ops import BY_NAME
from convdsl.passes.rewrite import Pattern, Rewriter
from convdsl.tensor import DType

_SAME = {DType.F64: 1e-14}  # relative, of numbers that are rounded to the elements' type; others:
_ROUNDED = 2e-7
_DEEPEST = 6  # multiplications and divisions, one in another


@dataclass(frozen=True, slots=True)
class _Product:
    """scale * factors[0] * factors[1] * .., as far as nothing else needs a part of it."""

    scale: float
    factors: tuple[Value, ...]


class NameActivations(Pattern):
    """Products of a tensor and a function of it -> the activation that they are."""

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        if node.op.name not in ("mul", "div") or not node.output.type.dtype.is_float:
            return False
        product = _product(node.output, rewriter.graph, whole=True)
        if len(product.factors) != 2:
            return False
        first, second = product.factors
        for x, gate in ((first, second), (second, first)):
            found = _named(x, gate, product.scale, rewriter.graph)
            if found is not None and x.type == node.output.type:
                op, how = found
                made = rewriter.at(node)(op, x, **how, name=op)
                rewriter.replace(node, made, node.name)
                return True
        return False


def _named(x: Value, gate: Value, scale: float, graph: Graph) -> tuple[str, dict[str, Any]] | None:
    """The activation that scale * x * gate is, with its attributes."""
    inner = inner_of(gate, "tanh")
    if scale == 1.0 and inner is not None and inner_of(inner, "softplus") is x:
        return ("mish", {}) if _is_plain(inner.node) else None
    function = _from_minus_one(gate, scale, graph)
    if function is None:
        return None
    same = _SAME.get(x.type.dtype, _ROUNDED)
    inner = inner_of(function, "erf")
    if inner is not None:
        u = _product(inner, graph)
        if u.factors == (x,) and isclose(u.scale, sqrt(0.5), rel_tol=same):
            return "gelu", {}
    inner = inner_of(function, "tanh")
    if inner is not None and _is_cubic(inner, x, graph, same):
        return "gelu", {"approximate": "tanh"}
    return None


def _from_minus_one(gate: Value, scale: float, graph: Graph) -> Value | None:
    """f where scale * gate is (1 + f) / 2."""
    terms = operands_of(gate, "add")
    for number, other in (terms, terms[::-1]) if terms is not None else ():
        product = _product(other, graph)
        c = number_of(number)
        if c is not None and c * scale == 0.5 and product.scale == c:
            return product.factors[0] if len(product.factors) == 1 else None
    return None


def _is_cubic(value: Value, x: Value, graph: Graph, same: float) -> bool:
    """Whether a value is sqrt(2 / pi) * (x + 0.044715 * x**3), or with x before the sum."""
    outer = _product(value, graph)
    if not isclose(outer.scale, sqrt(2 / pi), rel_tol=same):
        return False
    *before, inner = sorted(outer.factors, key=lambda factor: factor is not x)
    terms = operands_of(inner, "add")
    if terms is None or before not in ([], [x]):
        return False
    for least, other in (terms, terms[::-1]):
        rest = _product(other, graph)
        is_least = number_of(least) == 1.0 if before else least is x
        cubic = isclose(rest.scale, 0.044715, rel_tol=same)
        if is_least and cubic and _degree(rest, x) == 3 - len(before):
            return True
    return False


def _degree(product: _Product, x: Value) -> float | None:
    """The n of x**n, of a product of nothing but x and powers of it."""
    total = 0.0
    for factor in product.factors:
        power = operands_of(factor, "pow")
        exponent = number_of(power[1]) if power is not None and power[0] is x else None
        if factor is not x and exponent is None:
            return None
        total += 1.0 if exponent is None else exponent
    return total


def _product(value: Value, graph: Graph, whole: bool = False, depth: int = 0) -> _Product:
    """A value as a product. What other nodes read, too, is a factor, unless it is the `whole`; so
    is what lies deeper than any formula: chains of thousands are walked by a few at a time."""
    number = number_of(value)
    if number is not None:
        return _Product(number, ())
    factors = operands_of(value, "mul")
    shares = operands_of(value, "div") if factors is None else None
    whole = whole or ((factors or shares) is not None and _is_alone(value, graph))
    if not whole or depth == _DEEPEST:
        return _Product(1.0, (value,))
    if factors is not None:
        a, b = (_product(part, graph, depth=depth + 1) for part in factors)
        return _Product(a.scale * b.scale, (*a.factors, *b.factors))
    divisor = number_of(shares[1]) if shares is not None else None
    if shares is not None and divisor:
        product = _product(shares[0], graph, depth=depth + 1)
        return _Product(product.scale / divisor, product.factors)
    return _Product(1.0, (value,))


def _is_alone(value: Value, graph: Graph) -> bool:
    """Whether one operand of one operator is all that a value is."""
    return len(graph.users(value)) == 1 and not graph.is_result(value)


def inner_of(value: Value, op: str) -> Value | None:
    """x of op(x)."""
    node = value.node
    if isinstance(node, OpNode) and node.op is BY_NAME[op]:
        return node.inputs["x"]
    return None


def operands_of(value: Value, op: str) -> tuple[Value, Value] | None:
    """a and b of op(a, b)."""
    node = value.node
    if isinstance(node, OpNode) and node.op is BY_NAME[op] and len(node.inputs) == 2:
        a, b = node.inputs.values()
        return a, b
    return None


def _is_plain(node: Node) -> bool:
    """Whether an operator's attributes are what they are by default."""
    assert isinstance(node, OpNode)
    return all(node.attributes.get(a.name, a.default) == a.default for a in node.op.attributes)


def number_of(value: Value) -> float | None:
    """The number that a constant of one element is."""
    node = value.node
    if isinstance(node, StateNode) and node.data is not None and node.data.size == 1:
        return float(node.data.reshape(()))
    return None
