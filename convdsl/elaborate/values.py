"""What expressions evaluate to.

Plain values are Python's int, float, bool and str, sizes (`3x3`) tuples of int, symbolic
sizes `SymDim`, tensors `ir.graph.Value`; the rest is here. POISON stands for a value whose
computation failed and was reported: whatever touches it is poison too, silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from convdsl.diagnostics import Span
from convdsl.elaborate import limits, signatures
from convdsl.elaborate.scope import Context, Defaults, Scope
from convdsl.elaborate.signatures import Signature
from convdsl.ir.graph import Value
from convdsl.ir.opdef import OpDef
from convdsl.ops import SPELLINGS
from convdsl.syntax import ast
from convdsl.tensor import SymDim, format_shape


class Poison:
    """The only instance is POISON."""

    def __repr__(self) -> str:
        return "POISON"


POISON = Poison()


class Nothing:
    """The value of a body that ends with no value; the only instance is NOTHING."""

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING = Nothing()


@dataclass(frozen=True, slots=True, eq=False)
class ListValue:
    """A list. `weight` counts elements at all levels, shared ones every time."""

    items: tuple[Any, ...]
    weight: int

    @staticmethod
    def of(items: tuple[Any, ...]) -> ListValue:
        weight = len(items) + sum(i.weight for i in items if isinstance(i, ListValue))
        return ListValue(items, weight)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ListValue) and self.items == other.items

    def __hash__(self) -> int:
        return hash(self.items)


@dataclass(frozen=True, slots=True)
class Record:
    """Several named results."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator's name standing alone: every use makes a new layer."""

    op: OpDef
    spelling: str

    @property
    def name(self) -> str:
        return self.spelling

    @property
    def signature(self) -> Signature:
        return signatures.of_operator(self.op)


SPELLED = {spelling: Operator(op, spelling) for spelling, op in SPELLINGS.items()}


@dataclass(frozen=True, slots=True)
class BlockValue:
    """A block, or a model used like one, with the scope it was written in."""

    definition: ast.Block | ast.Model
    scope: Scope
    defaults: Defaults
    signature: Signature = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", signatures.of_definition(self.definition))

    @property
    def name(self) -> str:
        return self.definition.name.id


@dataclass(slots=True, eq=False)
class Given:
    """An argument's value and where it stands; `span` is None for defaults. Never changed; not
    frozen, since elaboration makes more of these than of anything else."""

    value: Any
    span: Span | None


@dataclass(slots=True, eq=False)
class Usual(Given):
    """What a weight starts from, as a default says: where the layer has that weight."""


@dataclass(frozen=True, slots=True)
class Said:
    """What `default` statements say of an operator: attributes, and what its weights start from."""

    arguments: Mapping[str, Given] = field(default_factory=dict[str, Given])
    starts: Mapping[str, Usual] = field(default_factory=dict[str, Usual])

    def over(self, other: Said) -> Said:
        """Both, and this where both say something: without biases none starts anywhere."""
        arguments = {**other.arguments, **self.arguments}
        starts = {**other.starts, **self.starts}
        return Said(arguments, left_of(starts, self.arguments))


NO_DEFAULTS = Said()


def left_of(starts: Mapping[str, Usual], arguments: Mapping[str, Given]) -> dict[str, Usual]:
    """Starts of the weights that arguments do not leave out, as `bias = false`."""
    off = {name for name, given in arguments.items() if given.value is False}
    return {name: start for name, start in starts.items() if name not in off}


@dataclass(slots=True, eq=False)
class Layer:
    """An operator or a block with its arguments, not applied yet. One layer, one set of weights.

    `home` is the path of its weights, set when it is first applied. `extra` are tensors given
    among the arguments: they follow what is piped in.
    """

    factory: Operator | BlockValue
    arguments: Mapping[str, Given]
    operands: Mapping[str, Given]
    extra: tuple[Given, ...]
    span: Span
    label: ast.Text | None = None
    name: str | None = None
    home: str | None = None
    fixed_label: str | None = None


@dataclass(slots=True, eq=False)
class Closure:
    """A loop, condition or scope inside a composition: evaluated where it is applied."""

    node: ast.Expression
    context: Context


@dataclass(slots=True, eq=False)
class Composition:
    """`conv(64, 3x3) -> bn -> relu` before anything flows into it."""

    elements: tuple[Layer | Composition | Closure, ...]
    span: Span
    name: str | None = None
    home: str | None = None
    fixed_label: str | None = None


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function on compile-time values."""

    name: str
    function: Callable[..., Any]
    arity: tuple[int, int | None]
    doc: str


@dataclass(frozen=True, slots=True)
class Initial:
    """What a weight that is trained starts from: `weight = initial(0.5)`."""

    number: float


LayerLike: TypeAlias = Operator | BlockValue | Layer | Composition | Closure
LAYER_LIKE = (Operator, BlockValue, Layer, Composition, Closure)


def is_tensors(value: Any) -> bool:
    """A tensor, or a list of nothing but tensors."""
    if isinstance(value, Value):
        return True
    if isinstance(value, ListValue):
        return bool(value.items) and all(is_tensors(item) for item in value.items)
    return isinstance(value, Record) and all(is_tensors(v) for v in value.fields.values())


def is_number(value: Any) -> bool:
    """Whether a value is a number; `true` and `false` are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def format_value(value: Any) -> str:
    """The value as the language would write it; long ones are cut."""
    pieces: list[str] = []
    room = [limits.TEXT]
    _format(value, pieces, room, quote=False)
    return "".join(pieces)


def _format(value: Any, pieces: list[str], room: list[int], quote: bool) -> None:
    if room[0] <= 0:
        return
    if isinstance(value, ListValue):
        pieces.append("[")
        for index, item in enumerate(value.items):
            if index:
                pieces.append(", ")
            _format(item, pieces, room, quote=True)
            if room[0] <= 0:
                pieces.append("...")
                return
        pieces.append("]")
        return
    text = _format_one(value, quote)
    room[0] -= len(text) + 2
    pieces.append(text)


def _format_one(value: Any, quote: bool) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value)
        case str():
            return f'"{value}"' if quote else value
        case tuple():
            return "x".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
        case Value():
            return format_shape(value.type.shape)
        case Operator():
            return value.spelling
        case BlockValue():
            return value.name
        case Builtin():
            return value.name
        case Layer():
            return f"{format_value(value.factory)}(...)"
        case Record():
            return f"({', '.join(value.fields)})"
        case Composition() | Closure():
            return "a chain of layers"
        case _:
            return str(value)


def describe(value: Any) -> str:
    """`the number 3`, `a tensor [N, 64, 56, 56]`: for messages."""
    match value:
        case bool():
            return f"the boolean {format_value(value)}"
        case int() | float():
            return f"the number {format_value(value)}"
        case str():
            return f'the text "{value[:40]}"'
        case tuple():
            return f"the size {format_value(value)}"
        case SymDim():
            return f"the symbolic size {value}"
        case ListValue():
            return f"a list of {len(value.items)}"
        case Value():
            return f"a tensor {value.type.shape and format_shape(value.type.shape)}"
        case Operator():
            return f"the operator `{value.spelling}`"
        case BlockValue():
            return f"the block `{value.name}`"
        case Initial():
            return f"what a weight starts from, {value.number:g}"
        case Builtin():
            return f"the function `{value.name}`"
        case Layer():
            return f"the layer `{format_value(value.factory)}`, applied to nothing"
        case Composition() | Closure():
            return "a chain of layers, applied to nothing"
        case Record():
            return f"{len(value.fields)} results ({', '.join(value.fields)})"
        case dict() | set() | bytes():
            return f"a {type(value).__name__}"  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return "nothing"
