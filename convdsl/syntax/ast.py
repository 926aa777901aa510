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
    """What was read, and where."""

    span: Span


# Expressions


@dataclass(frozen=True, slots=True)
class Name(Node):
    """bottleneck"""

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
    """64, or stride = 2"""

    name: Name | None
    value: Expression


@dataclass(frozen=True, slots=True)
class Call(Node):
    """conv(64, 3x3)"""

    callee: Expression
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Member(Node):
    """in.channels"""

    object: Expression
    name: Name


@dataclass(frozen=True, slots=True)
class Index(Node):
    """widths[0]"""

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
    """let width = 64; let a, b = f(x)"""

    targets: tuple[Name, ...]
    value: Expression


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """body = in -> relu; a, b = split(2)"""

    targets: tuple[Name, ...]
    value: Expression


@dataclass(frozen=True, slots=True)
class Assertion(Node):
    """assert width > 0, and a message if there is one"""

    condition: Expression
    message: Expression | None


@dataclass(frozen=True, slots=True)
class DefaultEntry(Node):
    """conv(bias = false)"""

    callee: Name
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Default(Node):
    """default conv(bias = false), pool(pad = 1)"""

    entries: tuple[DefaultEntry, ...]


@dataclass(frozen=True, slots=True)
class TypeExpression(Node):
    """f32[N, 3, 224, 224]"""

    dtype: Name
    extents: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Input(Node):
    """input x, y: f32[N, 3] where N > 1"""

    names: tuple[Name, ...]
    type: TypeExpression | None
    constraints: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Output(Node):
    """output label = value; of `output low, high` each, whose label is the value's name."""

    label: Text
    value: Expression

    @property
    def short(self) -> bool:
        """Whether one word is both the label and the value."""
        return self.label.span == self.value.span


@dataclass(frozen=True, slots=True)
class Preprocess(Node):
    """preprocess image: resize(256) -> center_crop(224)"""

    input: Name
    steps: Expression


@dataclass(frozen=True, slots=True)
class Labels(Node):
    """labels, and the file that has them"""

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
    """convdsl 1"""

    number: int


@dataclass(frozen=True, slots=True)
class Imported(Node):
    """bottleneck as unit"""

    name: Name
    alias: Name | None


@dataclass(frozen=True, slots=True)
class Use(Node):
    """use "blocks.cnn": bottleneck, stage"""

    path: Text
    names: tuple[Imported, ...]


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """width, or stride = 1"""

    name: Name
    default: Expression | None


@dataclass(frozen=True, slots=True)
class Block(Node):
    """block bottleneck(width) { .. }"""

    name: Name
    parameters: tuple[Parameter, ...]
    body: Body


@dataclass(frozen=True, slots=True)
class Model(Node):
    """model resnet50(classes = 1000) { .. }"""

    name: Name
    parameters: tuple[Parameter, ...]
    body: Body


@dataclass(frozen=True, slots=True)
class Setting(Node):
    """epochs = 90"""

    name: Name
    value: Expression


@dataclass(frozen=True, slots=True)
class Train(Node):
    """train { .. }, or train resnet50 { .. }"""

    model: Name | None
    settings: tuple[Setting, ...]


Item: TypeAlias = (
    Version | Use | Default | Let | Assertion | Preprocess | Labels | Block | Model | Train
)


@dataclass(frozen=True, slots=True)
class File(Node):
    """A whole source, its items in order."""

    items: tuple[Item, ...]
