"""What one operator corresponds to elsewhere: its row.

A row says which ONNX nodes spell a call, what reads the node back, and what PyTorch calls it.
Where an operator is one node with the same operands and its attributes under other names (`same`),
the row is data and all three follow. Where it is not, the row names its rules, which stand beside
each other in the file of the family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from convdsl.interop.correspondence.wording import PyTorch, function
from convdsl.interop.reading.tensors import Tensor
from convdsl.ir.opdef import Kind
from convdsl.ops import BY_NAME

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading
    from convdsl.interop.spelling import Spelling

Result: TypeAlias = "Tensor | Sequence[Tensor | None]"
ReadRule: TypeAlias = "Callable[[Reading], Result]"
SpellRule: TypeAlias = "Callable[[Spelling], str | Sequence[str]]"


@dataclass(frozen=True, slots=True)
class Keyword:
    """An attribute of ours by the names that it has elsewhere. Its values are the same there."""

    ours: str
    onnx: str
    pytorch: str
    default: Any = None
    """What ONNX means where a node does not say; None: nodes always say, or mean what we do."""


@dataclass(frozen=True, slots=True)
class Read:
    """How nodes of one kind become operators of ours."""

    rule: ReadRule
    deciding: tuple[int, ...] = ()
    """Inputs whose values have to be known while reading, since they decide shapes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One operator in ONNX and in PyTorch.

    kind     the ONNX node that the operator is; empty where it takes several
    spell    adds the nodes of a call, returns the names of its outputs
    read     reads nodes of that kind; None where they are read as another operator
    pytorch  the call, or the layer, in source text
    newest   the newest opset whose definition of the kind is run, where the newest of all is not:
             22 defined many kinds anew for element types alone
    """

    op: str
    kind: str
    pytorch: PyTorch
    spell: SpellRule
    read: Read | None
    keywords: tuple[Keyword, ...] = ()
    newest: int | None = None


def same(
    op: str,
    kind: str,
    pytorch: PyTorch | str,
    *keywords: Keyword,
    read: ReadRule | None = None,
    spell: SpellRule | None = None,
) -> Row:
    """The row of an operator that is one node: operands in order, attributes by their names.

    `read` and `spell` replace what follows from the names where one way has more to say.
    """
    return Row(
        op,
        kind,
        function(pytorch, **{k.pytorch: k.ours for k in keywords})
        if isinstance(pytorch, str)
        else pytorch,
        spell or _spell_same(kind, keywords),
        Read(read or _read_same(op, keywords)),
        keywords,
    )


def only_spelled(op: str, kind: str, pytorch: PyTorch, spell: SpellRule) -> Row:
    """The row of an operator that no kind of node is read as; other kinds may become it."""
    return Row(op, kind, pytorch, spell, None)


def attributes_read(op: str, keywords: Sequence[Keyword], r: Reading) -> dict[str, Any]:
    """What a node says of our attributes, in our types."""
    found: dict[str, Any] = {}
    for keyword in keywords:
        value = r.attribute(keyword.onnx, keyword.default)
        ours = BY_NAME[op].attribute(keyword.ours)
        if value is None or ours is None:
            continue
        if isinstance(ours.default, float) and np.float32(ours.default) == np.float32(value):
            value = ours.default  # a sixth is no number of single precision
        found[keyword.ours] = bool(value) if ours.kind is Kind.BOOL else value
    return found


def _read_same(op: str, keywords: tuple[Keyword, ...]) -> ReadRule:
    names = [operand.name for operand in BY_NAME[op].operands]

    def rule(r: Reading) -> Tensor:
        inputs = {name: r[i] for i, name in enumerate(names)}
        if names == ["a", "b"]:
            inputs["b"] = r.aligned()
        return r.apply(op, inputs, **attributes_read(op, keywords, r))

    return rule


def _spell_same(kind: str, keywords: tuple[Keyword, ...]) -> SpellRule:
    def rule(s: Spelling) -> str:
        operands = (s[name] for name in s.call.types)
        return s(kind, *operands, **{k.onnx: s.call[k.ours] for k in keywords})

    return rule
