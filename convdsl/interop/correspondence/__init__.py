"""Every operator's row, and every ONNX node that is read: here and nowhere else."""

from __future__ import annotations

from convdsl.diagnostics import InputError
from convdsl.interop.correspondence import (
    activations,
    arithmetic,
    attention,
    convolution,
    fused_attention,
    fused_operators,
    joining,
    normalisation,
    padding,
    pooling,
    positions,
    products,
    quantisation,
    quantised_operators,
    recurrent,
    reductions,
    regions,
    resizing,
    sampling,
    shapes,
    signals,
)
from convdsl.interop.correspondence.row import Read, Row
from convdsl.ir.opdef import OpDef
from convdsl.ops import OPERATORS

FAMILIES = (
    convolution,
    products,
    attention,
    pooling,
    normalisation,
    activations,
    arithmetic,
    reductions,
    joining,
    positions,
    padding,
    shapes,
    resizing,
    sampling,
    regions,
    signals,
    quantisation,
    quantised_operators,
    fused_operators,
    fused_attention,
    recurrent,
)
_ROWS = tuple(row for family in FAMILIES for row in family.ROWS)

ROWS: dict[str, Row] = {row.op: row for row in _ROWS}
"""Rows by the operator's name."""

_READ = [
    *((row.kind, row.read) for row in _ROWS if row.read is not None),
    *(item for family in FAMILIES for item in family.READING.items()),
]


def row_of(op: OpDef, where: str) -> Row:
    """The row of an operator. Raises InputError for derived gradients, which neither ONNX nor
    PyTorch has."""
    row = ROWS.get(op.name)
    if row is None:
        raise InputError(f"{where}: {op.name} is a derived gradient, which cannot be exported")
    return row


READING: dict[str, Read] = dict(_READ)
"""How nodes are read, by their kind."""

if len(ROWS) < len(_ROWS) or ROWS.keys() != {op.name for op in OPERATORS}:
    raise AssertionError("an operator has no row, or two")
if len(READING) < len(_READ):
    raise AssertionError("a kind of node is read in two ways")

__all__ = ["READING", "ROWS", "Read", "Row", "row_of"]
