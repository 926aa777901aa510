"""Which graph inputs decide shapes: an Executable is made for their values."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx

_REDUCTIONS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip

SHAPE_OPERANDS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys((*_REDUCTIONS, "Reshape", "Expand", "Squeeze", "Unsqueeze"), (1,)),
    **dict.fromkeys(("Tile", "TopK", "Split", "Upsample", "Gather"), (1,)),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 2, 3),
    "Resize": (1, 2, 3),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "MaxUnpool": (2,),
    "Dropout": (1, 2),
}
"""Inputs of operators whose values have to be known while reading."""

MOST_INDICES = 4096
"""Elements of an input of indices in several axes."""

_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)

_SHAPES_ONLY = ("Shape", "Size")
"""What looks at shapes, not at elements: nothing above it decides by its values."""


def deciding_inputs(graph: onnx.GraphProto) -> list[str]:
    """Graph inputs, in order, from which operands that decide shapes are computed.

    Numbers, lists and a few indices only: what depends on an image's elements has no program.
    """
    stored = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output if name}
    pending = [
        node.input[index]
        for node in graph.node
        for index in SHAPE_OPERANDS.get(node.op_type, ())
        if index < len(node.input)
    ]
    reached: set[str] = set()
    while pending:
        name = pending.pop()
        if name in reached or name in stored:
            continue
        reached.add(name)
        maker = makers.get(name)
        if maker is not None and maker.op_type not in _SHAPES_ONLY:
            pending += maker.input
    return [info.name for info in graph.input if info.name in reached and _is_list(info)]


def _is_list(info: onnx.ValueInfoProto) -> bool:
    """Whether an input is a number or a list, as sizes and axes are, or a few indices."""
    type = info.type.tensor_type
    sizes = [dim.dim_value for dim in type.shape.dim]
    is_small = type.elem_type in _INTEGERS and 0 < prod(sizes) <= MOST_INDICES
    return type.HasField("shape") and (len(sizes) <= 1 or is_small)
