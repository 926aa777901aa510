"""The syntax tree: one record per rule, each with its span.

Operators of one precedence are kept flat (`a + b - c` is one node), so that only brackets
nest and every walk over a tree is as deep as the limit on brackets allows.
"""

from __future__ import annotations

from typing import TypeAlias

from convdsl.diagnostics import Span
from convdsl.tensor.records import record


@record
class Node:
    """What was read, and where."""

    span: Span


# Expressions


@record
class Name(Node):
    """bottleneck"""

    id: str


@record
class Incoming(Node):
    """`in`: what flows into the block or stage."""


@record
class Literal(Node):
    """A number, a boolean, or a size such as 3x3 (a tuple)."""

    value: int | float | bool | tuple[int, ...]


@record
class Text(Node):
    """A string: literal pieces and interpolated expressions."""

    parts: tuple[str | Expression, ...]

    @property
    def plain(self) -> str | None:
        """The text, where nothing is interpolated."""
        if not self.parts:
            return ""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], str) else None


@record
class Items(Node):
    """[a, b, c]"""

    items: tuple[Expression, ...]


@record
class Arithmetic(Node):
    """first, then (operator, operand) from left to right."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]


@record
class Signed(Node):
    """-x; `negative` tells whether the signs before the operand cancel."""

    negative: bool
    operand: Expression


@record
class Power(Node):
    """a ** b ** c, grouped from the right."""

    operands: tuple[Expression, ...]


@record
class Compared(Node):
    """a < b <= c, every neighbouring pair compared."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]


@record
class Logic(Node):
    """Operands joined by `and` or `or`."""

    operator: str
    operands: tuple[Expression, ...]


@record
class Negated(Node):
    """not x; `odd` tells whether an odd number of `not` stands before the operand."""

    odd: bool
    operand: Expression


@record
class Argument(Node):
    """64, or stride = 2"""

    name: Name | None
    value: Expression


@record
class Call(Node):
    """conv(64, 3x3)"""

    callee: Expression
    arguments: tuple[Argument, ...]


@record
class Member(Node):
    """in.channels"""

    object: Expression
    name: Name


@record
class Index(Node):
    """widths[0]"""

    object: Expression
    index: Expression


@record
class Part(Node):
    """widths[1:], levels[:-1], widths[::2]"""

    object: Expression
    start: Expression | None
    stop: Expression | None
    step: Expression | None


@record
class Named(Node):
    """`value as label`"""

    value: Expression
    label: Text


@record
class Sink(Node):
    """`output label` at the end of a chain."""

    label: Text


@record
class Chain(Node):
    """head -> stage -> stage"""

    head: Expression
    stages: tuple[Expression, ...]


@record
class Body(Node):
    """{ statements }"""

    statements: tuple[Statement, ...]


@record
class Conditional(Node):
    """if c { } else if d { } else { }"""

    branches: tuple[tuple[Expression, Body], ...]
    otherwise: Body | None


@record
class Loop(Node):
    """for a, b in iterable { }"""

    targets: tuple[Name, ...]
    iterable: Expression
    body: Body


@record
class Repetition(Node):
    """repeat count { }"""

    count: Expression
    body: Body


@record
class Numbered(Node):
    """seq label { }: layers inside are called 0, 1, 2 ..."""

    label: Text | None
    body: Body


@record
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


@record
class Let(Node):
    """let width = 64; let a, b = f(x)"""

    targets: tuple[Name, ...]
    value: Expression


@record
class Assign(Node):
    """body = in -> relu; a, b = split(2)"""

    targets: tuple[Name, ...]
    value: Expression


@record
class Assertion(Node):
    """assert width > 0, and a message if there is one"""

    condition: Expression
    message: Expression | None


@record
class DefaultEntry(Node):
    """conv(bias = false)"""

    callee: Name
    arguments: tuple[Argument, ...]


@record
class Default(Node):
    """default conv(bias = false), pool(pad = 1)"""

    entries: tuple[DefaultEntry, ...]


@record
class TypeExpression(Node):
    """f32[N, 3, 224, 224]"""

    dtype: Name
    extents: tuple[Expression, ...]


@record
class Input(Node):
    """input x, y: f32[N, 3] where N > 1"""

    names: tuple[Name, ...]
    type: TypeExpression | None
    constraints: tuple[Expression, ...]


@record
class Output(Node):
    """output label = value; of `output low, high` each, whose label is the value's name."""

    label: Text
    value: Expression

    @property
    def short(self) -> bool:
        """Whether one word is both the label and the value."""
        return self.label.span == self.value.span


@record
class Preprocess(Node):
    """preprocess image: resize(256) -> center_crop(224)"""

    input: Name
    steps: Expression


@record
class Labels(Node):
    """labels, and the file that has them"""

    path: Text


@record
class Evaluation(Node):
    """An expression standing as a statement."""

    value: Expression


Statement: TypeAlias = (
    Let | Assign | Assertion | Default | Input | Output | Preprocess | Labels | Evaluation
)


# Items of a file


@record
class Version(Node):
    """convdsl 1"""

    number: int


@record
class Imported(Node):
    """bottleneck as unit"""

    name: Name
    alias: Name | None


@record
class Use(Node):
    """use "blocks.cnn": bottleneck, stage"""

    path: Text
    names: tuple[Imported, ...]


@record
class Parameter(Node):
    """width, or stride = 1"""

    name: Name
    default: Expression | None


@record
class Block(Node):
    """block bottleneck(width) { .. }"""

    name: Name
    parameters: tuple[Parameter, ...]
    body: Body


@record
class Model(Node):
    """model resnet50(classes = 1000) { .. }"""

    name: Name
    parameters: tuple[Parameter, ...]
    body: Body


@record
class Setting(Node):
    """epochs = 90"""

    name: Name
    value: Expression


@record
class Train(Node):
    """train { .. }, or train resnet50 { .. }"""

    model: Name | None
    settings: tuple[Setting, ...]


Item: TypeAlias = (
    Version | Use | Default | Let | Assertion | Preprocess | Labels | Block | Model | Train
)


@record
class File(Node):
    """A whole source, its items in order."""

    items: tuple[Item, ...]
