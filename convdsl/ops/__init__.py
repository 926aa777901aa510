"""The operator table: one record per operator, one file per family."""

from __future__ import annotations

from convdsl.ir.opdef import OpDef
from convdsl.ops import (
    activation,
    adaptive,
    conv,
    einsum,
    elementwise,
    extent,
    fourier,
    identity,
    joining,
    linear,
    normalisation,
    parameter,
    patches,
    permutation,
    pooling,
    putting,
    reduction,
    regions,
    resize,
    rms,
    running,
    sampling,
    selection,
    shape,
    softmax,
    standardisation,
    taking,
    transposed,
    triangle,
    trigonometry,
    unpooling,
)

FAMILIES = (
    conv,
    transposed,
    linear,
    einsum,
    fourier,
    pooling,
    adaptive,
    unpooling,
    normalisation,
    standardisation,
    rms,
    activation,
    softmax,
    elementwise,
    trigonometry,
    reduction,
    selection,
    running,
    identity,
    parameter,
    joining,
    extent,
    shape,
    permutation,
    triangle,
    taking,
    putting,
    patches,
    sampling,
    regions,
    resize,
)

OPERATORS: tuple[OpDef, ...] = tuple(op for family in FAMILIES for op in family.OPERATORS)

BY_NAME: dict[str, OpDef] = {op.name: op for op in OPERATORS}
"""Operators by canonical name."""

SPELLINGS: dict[str, OpDef] = BY_NAME | {a: op for op in OPERATORS for a in op.aliases}
"""Operators by every name the language accepts."""

if len(SPELLINGS) != sum(1 + len(op.aliases) for op in OPERATORS):
    raise AssertionError("two operators share a name")
