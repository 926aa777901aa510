"""The syntax tree: one frozen dataclass per rule, each with its span.

Operators of one precedence are kept flat (`a + b - c` is one node), so that only brackets
nest and every walk over a tree is as deep as the limit on brackets allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from convdsl.diagnostics import Span


@dataclass(frozen=True, slots=True)
class Node:
    span: Span


# Expressions


@dataclass(frozen=True, slots=True)
class Name(Node):
    id: str


@dataclass(frozen=True, slots=True)
class Incoming(Node):
    """`in`: what flows into the block or stage."""


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A number, a boolean, or a size such as 3x3 (a tuple)."""

    value: int | float | bool | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Text(Node):
    """A string: literal pieces and interpolated expressions."""

    parts: tuple[str | Expression, ...]

    @property
    def plain(self) -> str | None:
        """The text, where nothing is interpolated."""
        if not self.parts:
            return ""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], str) else None


@dataclass(frozen=True, slots=True)
class Items(Node):
    """[a, b, c]"""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    """first, then (operator, operand) from left to right."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True, slots=True)
class Signed(Node):
    """-x; `negative` tells whether the signs before the operand cancel."""

    negative: bool
    operand: Expression


@dataclass(frozen=True, slots=True)
class Power(Node):
    """a ** b ** c, grouped from the right."""

    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Compared(Node):
    """a < b <= c, every neighbouring pair compared."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True, slots=True)
class Logic(Node):
    """Operands joined by `and` or `or`."""

    operator: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Negated(Node):
    """not x; `odd` tells whether an odd number of `not` stands before the operand."""

    odd: bool
    operand: Expression


@dataclass(frozen=True, slots=True)
class Argument(Node):
    name: Name | None
    value: Expression


@dataclass(frozen=True, slots=True)
class Call(Node):
    callee: Expression
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Member(Node):
    object: Expression
    name: Name


@dataclass(frozen=True, slots=True)
class Index(Node):
    object: Expression
    index: Expression


@dataclass(frozen=True, slots=True)
class Named(Node):
    """`value as label`"""

    value: Expression
    label: Text


@dataclass(frozen=True, slots=True)
class Sink(Node):
    """`output label` at the end of a chain."""

    label: Text


@dataclass(frozen=True, slots=True)
class Chain(Node):
    """head -> stage -> stage"""

    head: Expression
    stages: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Body(Node):
    """{ statements }"""

    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Conditional(Node):
    """if c { } else if d { } else { }"""

    branches: tuple[tuple[Expression, Body], ...]
    otherwise: Body | None


@dataclass(frozen=True, slots=True)
class Loop(Node):
    """for a, b in iterable { }"""

    targets: tuple[Name, ...]
    iterable: Expression
    body: Body


@dataclass(frozen=True, slots=True)
class Repetition(Node):
    """repeat count { }"""

    count: Expression
    body: Body


@dataclass(frozen=True, slots=True)
class Numbered(Node):
    """seq label { }: layers inside are called 0, 1, 2 ..."""

    label: Text | None
    body: Body


@dataclass(frozen=True, slots=True)
class Scoped(Node):
    """scope label { }: one more part in the names of the layers inside."""

    label: Text
    body: Body


Expression: TypeAlias = (
    Name
    | Incoming
    | Literal
    | Text
    | Items
    | Arithmetic
    | Signed
    | Power
    | Compared
    | Logic
    | Negated
    | Call
    | Member
    | Index
    | Named
    | Sink
    | Chain
    | Conditional
    | Loop
    | Repetition
    | Numbered
    | Scoped
)


# Statements


@dataclass(frozen=True, slots=True)
class Let(Node):
    targets: tuple[Name, ...]
    value: Expression


@dataclass(frozen=True, slots=True)
class Assign(Node):
    targets: tuple[Name, ...]
    value: Expression


@dataclass(frozen=True, slots=True)
class Assertion(Node):
    condition: Expression
    message: Expression | None


@dataclass(frozen=True, slots=True)
class DefaultEntry(Node):
    callee: Name
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Default(Node):
    entries: tuple[DefaultEntry, ...]


@dataclass(frozen=True, slots=True)
class TypeExpression(Node):
    """f32[N, 3, 224, 224]"""

    dtype: Name
    extents: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Input(Node):
    names: tuple[Name, ...]
    type: TypeExpression | None
    constraints: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Output(Node):
    """output label = value"""

    label: Text
    value: Expression


@dataclass(frozen=True, slots=True)
class Preprocess(Node):
    input: Name
    steps: Expression


@dataclass(frozen=True, slots=True)
class Labels(Node):
    path: Text


@dataclass(frozen=True, slots=True)
class Evaluation(Node):
    """An expression standing as a statement."""

    value: Expression


Statement: TypeAlias = (
    Let | Assign | Assertion | Default | Input | Output | Preprocess | Labels | Evaluation
)


# Items of a file


@dataclass(frozen=True, slots=True)
class Version(Node):
    number: int


@dataclass(frozen=True, slots=True)
class Imported(Node):
    name: Name
    alias: Name | None


@dataclass(frozen=True, slots=True)
class Use(Node):
    path: Text
    names: tuple[Imported, ...]


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    name: Name
    default: Expression | None


@dataclass(frozen=True, slots=True)
class Block(Node):
    name: Name
    parameters: tuple[Parameter, ...]
    body: Body


@dataclass(frozen=True, slots=True)
class Model(Node):
    name: Name
    parameters: tuple[Parameter, ...]
    body: Body


@dataclass(frozen=True, slots=True)
class Setting(Node):
    name: Name
    value: Expression


@dataclass(frozen=True, slots=True)
class Train(Node):
    model: Name | None
    settings: tuple[Setting, ...]


Item: TypeAlias = (
    Version | Use | Default | Let | Assertion | Preprocess | Labels | Block | Model | Train
)


@dataclass(frozen=True, slots=True)
class File(Node):
    items: tuple[Item, ...]
