"""Single calls of operators as ONNX models, spelled as `convdsl export` spells them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from convdsl.interop.element_types import TO_ONNX
from convdsl.interop.onnx_export import spell
from convdsl.interop.spelling import Spelling, Writer
from convdsl.ir.opdef import Call

OPSET = 21


def spelled(call: Call) -> onnx.ModelProto:
    """A model of one call; its inputs are called as the operands."""
    writer = Writer(call.types)
    names = spell(Spelling(writer, call, {name: name for name in call.types}, "call"))
    graph = helper.make_graph(
        writer.nodes,
        call.op.name,
        _ports(call.types, call.types.values()),
        _ports(names, call.outputs),
        writer.initialisers,
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def _ports(names: Sequence[str], types) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TO_ONNX[type.dtype], type.shape)
        for name, type in zip(names, types, strict=True)
    ]


RUN_BY_ONNXRUNTIME = {
    "max_pool": "the reference counts other windows with ceil_mode",
    "avg_pool": "the reference counts other windows with ceil_mode",
    "lp_pool": "the reference counts other windows with ceil_mode and lacks the global one",
    "max_pool_with_positions": "the reference prefers the last of equal values",
    "max_unpool": "the reference misses its shape where windows leave a rest",
    "conv_transpose": "the reference fails on groups with output padding",
    "lrn": "the reference sums over other channels at the borders",
    "erf": "the reference computes in single precision",
    "gelu": "the reference computes erf in single precision",
    "grid_sample": "the reference computes in single precision, and divides by an extent of 0",
    "deform_conv": "the reference samples as it does for grid_sample",
    "roi_pool": "there is no reference",
    "take_along": "the reference wants the shape of x but for the axis",
}
"""Operators whose reference evaluation is wrong, and how."""
