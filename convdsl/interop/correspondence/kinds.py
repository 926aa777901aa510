"""Rules of nodes by their kind, for nodes that hold another one inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convdsl.interop.correspondence.activations import READING as ACTIVATIONS_READ
from convdsl.interop.correspondence.activations import ROWS as ACTIVATIONS
from convdsl.interop.correspondence.arithmetic import ROWS as ARITHMETIC
from convdsl.interop.correspondence.normalisation import ROWS as NORMALISATION
from convdsl.interop.correspondence.pooling import READING as GLOBAL_POOLING
from convdsl.interop.correspondence.pooling import ROWS as POOLING
from convdsl.interop.correspondence.row import Result
from convdsl.interop.reading.tensors import Known, ReadError, Tensor
from convdsl.ir.graph import Value

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading

MICROSOFT = "com.microsoft."
"""The domain of ONNX Runtime's own kinds."""

_RULES = {
    row.kind: row.read.rule
    for row in (*ACTIVATIONS, *ARITHMETIC, *NORMALISATION, *POOLING)
    if row.read is not None
} | {kind: read.rule for kind, read in {**GLOBAL_POOLING, **ACTIVATIONS_READ}.items()}


def read_as(kind: str, r: Reading) -> Tensor:
    """The first output of a node as one of another kind reads its inputs."""
    if kind not in _RULES:
        raise ReadError(f"{kind} inside another node is not supported")
    return first_of(_RULES[kind](r))


def first_of(found: Result) -> Tensor:
    """The first output that a rule has made."""
    if isinstance(found, Value | Known):
        return found
    first = found[0]
    assert first is not None
    return first
