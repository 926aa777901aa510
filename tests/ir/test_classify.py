"""Classes of operators follow from their arithmetic."""

from __future__ import annotations

import pytest
from graphs import Builder

from convdsl.ir.classify import OpClass, classify, copied_operand, reads_in_place
from convdsl.ir.graph import OpNode, Value
from convdsl.tensor import symbol


def kernel(value: Value):
    node = value.node
    assert isinstance(node, OpNode)
    return node.call.kernel


def apply(op: str, x=(2, 4, 6, 6), other=None, **attributes) -> Value:
    b = Builder()
    operands = [b.input("x", *x)]
    if other is not None:
        operands.append(b.input("z", *other))
    return b(op, *operands, **attributes)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (apply("relu"), OpClass.MAP),
        (apply("relu", (symbol("N"), 4, symbol("H"), 1)), OpClass.MAP),
        (apply("batch_norm"), OpClass.MAP),
        (apply("add", other=(2, 4, 6, 6)), OpClass.MAP),
        (apply("mul", other=(2, 4, 1, 1)), OpClass.MAP),
        (apply("dropout"), OpClass.MAP),
        (apply("concat", other=(2, 3, 6, 6)), OpClass.MOVEMENT),
        (apply("flatten"), OpClass.MOVEMENT),
        (apply("reshape", shape=(2, 4, 6, 6)), OpClass.MAP),
        (apply("max_pool", kernel=3), OpClass.WINDOW),
        (apply("avg_pool", kernel=2), OpClass.WINDOW),
        (apply("avg_pool", kernel="global"), OpClass.REDUCTION),
        (apply("softmax"), OpClass.REDUCTION),
        (apply("conv", channels=8, kernel=3), OpClass.CONTRACTION),
        (apply("conv", channels=4, kernel=3, groups=4), OpClass.CONTRACTION),
        (apply("conv", channels=8, kernel=1), OpClass.CONTRACTION),
        (apply("linear", (2, 4), channels=8), OpClass.CONTRACTION),
    ],
    ids=lambda v: v.node.op.name if isinstance(v, Value) else v.value,
)
def test_class_follows_from_the_expression(value: Value, expected: OpClass) -> None:
    assert classify(kernel(value)) is expected


def test_operands_read_at_the_outputs_position() -> None:
    product = kernel(apply("mul", other=(2, 4, 1, 1)))
    assert reads_in_place(product, "a")
    assert not reads_in_place(product, "b")
    assert not reads_in_place(kernel(apply("max_pool", kernel=3, stride=1, pad=1)), "x")
    assert reads_in_place(kernel(apply("relu", (1, 4, 1, 1))), "x")


def test_copies_are_seen() -> None:
    assert copied_operand(kernel(apply("dropout"))) == "x"
    assert copied_operand(kernel(apply("identity"))) == "x"
    assert copied_operand(kernel(apply("flatten", (2, 5)))) == "x"
    assert copied_operand(kernel(apply("flatten", (2, 5, 1)))) is None  # another shape
    assert copied_operand(kernel(apply("relu"))) is None
