"""One call on its way to PyTorch source text, and what PyTorch calls an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, isnan, lcm
from typing import Any, TypeAlias

from convdsl.diagnostics import InputError
from convdsl.ir.opdef import Call
from convdsl.tensor import DType, SymDim
from convdsl.tensor.dim import Atom, Extremum, Floor, Symbol

WordRule: TypeAlias = "Callable[[Wording], str]"


class Lacking(InputError):
    """PyTorch has no words for a configuration of an operator that has them otherwise."""


@dataclass(frozen=True, slots=True)
class Wording:
    """A call: its operands by their names in `forward`, and the module that holds its weights."""

    call: Call
    operands: Mapping[str, str]
    layer: str = ""

    def __getitem__(self, operand: str) -> str:
        return self.operands[operand]

    @property
    def rank(self) -> int:
        """How many axes of space x has, one at least. PyTorch counts to three."""
        rank = max(self.call.type("x").rank - 2, 1)
        if rank > 3:
            raise Lacking(f"PyTorch has {self.call.op.name} for one to three axes of space only")
        return rank

    def named(self, name: str) -> str:
        return name.format(rank=self.rank) if "{rank}" in name else name

    @property
    def dtype(self) -> tuple[str, str, str]:
        """The keyword for the element type of what is made."""
        return ("dtype", torch_dtype(self.call.outputs[0].dtype), "torch.float32")


@dataclass(frozen=True, slots=True)
class PyTorch:
    """How PyTorch says an operator.

    name     what it is called there; `{rank}` stands for the number of axes of space
    call     the expression in `forward`
    layer    the arguments of the constructor, for an operator that is a module
    lacks    what it cannot say: reasons that `call` and `layer` may raise `Lacking` with
    numbers  whether numbers may stand among the operands as they are
    made     what is constructed, where that is not always what `name` says
    loose    the expression where weights are tensors that `forward` has, and there is no module
    """

    name: str
    call: WordRule
    layer: WordRule | None = None
    lacks: tuple[str, ...] = ()
    numbers: bool = False
    made: WordRule | None = None
    loose: WordRule | None = None

    def construction(self, w: Wording) -> str | None:
        """The module that holds the weights, as it is set up; None of what has no module."""
        if self.layer is None:
            return None
        return f"{self.made(w) if self.made else w.named(self.name)}({self.layer(w)})"

    @property
    def title(self) -> str:
        """The name as PyTorch's manual has it: `nn.ConvNd`."""
        return self.name.format(rank="N") if "{rank}" in self.name else self.name


def function(name: str, **keywords: str) -> PyTorch:
    """name(operands in order, PyTorch's keywords = our attributes)"""

    def call(w: Wording) -> str:
        options = "".join(f", {theirs}={text(w.call[ours])}" for theirs, ours in keywords.items())
        return f"{name}({', '.join(w.operands.values())}{options})"

    return PyTorch(name, call)


def infix(sign: str) -> PyTorch:
    """The operands with a sign between them."""
    return PyTorch(sign, lambda w: f"{w['a']} {sign} {w['b']}", numbers=True)


def module(
    name: str,
    layer: WordRule,
    call: WordRule | None = None,
    *lacks: str,
    loose: WordRule | None = None,
) -> PyTorch:
    """A module made with the arguments that `layer` says, and applied to x unless `call` says."""
    return PyTorch(name, call or (lambda w: f"{w.layer}({w['x']})"), layer, lacks, loose=loose)


# Text


def text(value: Any) -> str:
    """A value as source; a tuple of equal ones as the one that PyTorch repeats. A free size is
    made of the symbols that `forward` reads from its arguments."""
    if isinstance(value, SymDim):
        return _size(value)
    if type(value) in (tuple, list):
        items: Sequence[Any] = value
        if len(items) > 0 and all(item == items[0] for item in items):
            return text(items[0])
        return f"({', '.join(map(text, items))}{',' if len(items) == 1 else ''})"
    if isinstance(value, float) and (value in (inf, -inf) or isnan(value)):
        return f'float("{value}")'
    return repr(value)


def _size(value: SymDim) -> str:
    """A free size in Python's whole numbers: what is divided is divided once, at the end."""
    below = lcm(*(Fraction(coefficient).denominator for _, coefficient in value.terms))
    words = ""
    for monomial, coefficient in value.terms:
        count = int(coefficient * below)
        powers = (f"{_atom(a)}**{n}" if n > 1 else _atom(a) for a, n in monomial)
        factors = [*([str(abs(count))] if abs(count) != 1 or not monomial else []), *powers]
        sign = "-" if count < 0 else "+"
        spaced = f" {sign} " if words else sign.strip("+")
        words += spaced + " * ".join(factors)
    return words if below == 1 else f"({words}) // {below}"


def _atom(atom: Atom) -> str:
    match atom:
        case Symbol():
            return atom.name
        case Floor():
            return f"(({text(atom.numerator)}) // ({text(atom.denominator)}))"
        case Extremum():
            return f"{atom.kind}({', '.join(map(text, atom.arguments))})"


def listed(values: Sequence[Any]) -> str:
    """Values as a list, repeated ones too."""
    return f"[{', '.join(listed(v) if isinstance(v, list | tuple) else text(v) for v in values)}]"  # pyright: ignore[reportUnknownArgumentType]


def keywords(*given: tuple[str, str, str]) -> str:
    """Those (name, text, default) that differ from the default."""
    return "".join(f", {name}={words}" for name, words, default in given if words != default)


def torch_dtype(dtype: DType) -> str:
    """PyTorch calls element types as NumPy does, and has one that NumPy lacks."""
    return "torch.bfloat16" if dtype is DType.BF16 else f"torch.{dtype.numpy}"
