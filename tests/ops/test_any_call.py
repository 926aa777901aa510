"""Whatever an operator is applied to, it answers or objects: no other exception, no wrong types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import ONE_PASS

from convdsl.ir.opdef import REQUIRED, Attribute, Call, Kind, OpDef, OpError
from convdsl.kernel.expr import flops
from convdsl.ops import OPERATORS
from convdsl.tensor import Dim, DType, TensorType, bounds, substitute, symbol

N, H, W = symbol("N"), symbol("H", minimum=4), symbol("W", minimum=8, divisor=8)
SIZES = {"N": 1, "H": 4, "W": 8}

extents: st.SearchStrategy[Dim] = st.sampled_from(
    [1, 2, 3, 4, 6, 8, 12, N, H, W, W // 8, (H + 1) // 2, H * 2]
)
shapes = st.lists(extents, min_size=0, max_size=5).map(tuple) | st.tuples(
    st.just(N), st.sampled_from([1, 4, 6, 8]), extents, extents
)
dtypes = st.sampled_from([DType.F32] * 6 + [DType.F64, DType.I64, DType.BOOL])
small = st.integers(-2, 5)
lists = st.lists(small, min_size=1, max_size=4).map(tuple)


def values(attribute: Attribute) -> st.SearchStrategy[Any]:
    """What the language lets through for an attribute."""
    low = -2 if attribute.minimum is None else attribute.minimum
    number = st.integers(low, 5)
    several = st.lists(number, min_size=1, max_size=4).map(tuple)
    floats = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 1e-3, 1 / 3])
    pairs = st.lists(st.tuples(number, number) | number, min_size=1, max_size=4).map(tuple)
    by_kind: dict[Kind, st.SearchStrategy[Any]] = {
        Kind.INT: number,
        Kind.FLOAT: floats,
        Kind.BOOL: st.booleans(),
        Kind.STRING: st.nothing(),
        Kind.SIZES: number | several,
        Kind.PADDING: number | several | pairs,
        Kind.INTS: number | several,
        Kind.SHAPE: st.lists(extents | st.just(-1) | small, max_size=5).map(tuple),
        Kind.ARRAY: floats | st.lists(floats, min_size=1, max_size=6).map(tuple),
    }
    return by_kind[attribute.kind] | st.sampled_from(attribute.choices or (attribute.default,))


@st.composite
def calls(draw: st.DrawFn, op: OpDef) -> tuple[dict[str, TensorType], dict[str, Any]]:
    names = [o.name for o in op.data_operands]
    if names and op.data_operands[-1].variadic:
        names[-1:] = [f"{names[-1]}{i}" for i in range(draw(st.integers(1, 3)))]
    common = draw(shapes)
    dtype = draw(dtypes)
    types = {
        name: TensorType(draw(st.just(dtype) | dtypes), draw(st.just(common) | shapes))
        for name in names
    }
    given_attributes = {
        a.name: draw(values(a))
        for a in op.attributes
        if a.default is REQUIRED or draw(st.booleans())
    }
    return types, {name: v for name, v in given_attributes.items() if v is not REQUIRED}


def consistent(call: Call) -> None:
    """Outputs are tensors; the expression defines them; cost and field can be told."""
    outputs, kernel = call.outputs, call.kernel
    assert len(outputs) == len(call.output_names)
    for name, type in zip(call.output_names, outputs, strict=True):
        assert kernel.stage(name).target.type == type
        for extent in type.shape:
            assert (bounds(extent)[1] or 1) >= 1
    counted, executed = call.op.cost(call).flops, flops(kernel)
    if call.op.name in ONE_PASS:
        assert substitute(counted, SIZES) <= substitute(executed, SIZES)
    else:
        assert counted == executed
    call.op.window(call)
    assert str(kernel)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
@settings(max_examples=25)
@given(st.data())
def test_answers_or_objects(op: OpDef, data: st.DataObject) -> None:
    types, attributes = data.draw(calls(op))
    if any(a.default is REQUIRED and a.name not in attributes for a in op.attributes):
        return
    try:
        call = op.call(types, attributes)
        full = {**types, **{spec.name: spec.type for spec in op.state(call)}}
        call = op.call(full, call.attributes)
        consistent(call)
    except OpError as error:
        blamed = {*error.operands, *error.attributes}
        unknown = blamed - {*types, *(a.name for a in op.attributes)}
        if unknown or not error.message:
            pytest.fail(f"{error} blames {unknown}")
