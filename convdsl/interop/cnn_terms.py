"""Operators and their attributes as words of the language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from convdsl.interop.cnn_model import computed_operands
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.opdef import Attribute, Call, Kind, OpError, Required
from convdsl.ir.preprocess import Preprocessing
from convdsl.ir.starts import STARTS, number_of
from convdsl.ops.elementwise import SIGNS
from convdsl.tensor import Dim, Symbol, SymDim
from convdsl.tensor.dim import Atom, Floor, Monomial, terms_of


@dataclass(frozen=True)
class Hole:
    """A number in the text that may become a block's parameter."""

    name: str
    text: str


Segment: TypeAlias = "str | Hole"


def infix(node: OpNode) -> str | None:
    """The sign of an operator that is written between its operands."""
    return SIGNS.get(node.op.name)


def operand_text(value: Value, names: Mapping[Value, str]) -> str:
    """A name, or a number."""
    node = value.node
    return number(np.asarray(node.data)[()]) if isinstance(node, StateNode) else names[value]


def number(value: Any) -> str:
    """As short as its precision allows: 0.1 of single precision is 0.1."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return str(value)


def shared_defaults(graph: Graph) -> dict[str, str]:
    """Operators of which none has a bias: `default conv(bias = false)` says it once."""
    biased: dict[str, set[bool]] = {}
    for node in graph.op_nodes():
        if "bias" in node.attributes:
            biased.setdefault(node.op.name, set()).add(node.attributes["bias"])
    return {name: f"{name}(bias = false)" for name, seen in biased.items() if seen == {False}}


def preprocessing_text(declared: Preprocessing) -> str:
    """`preprocess image: resize(256, bicubic) -> center_crop(224)`."""
    steps: list[str] = []
    for step in declared.steps:
        given = [_argument(step.name, name, value) for name, value in step.arguments.items()]
        steps.append(f"{step.name}({', '.join(given)})")
    return f"preprocess {declared.input}: {' -> '.join(steps)}"


def _argument(step: str, name: str, value: Any) -> str:
    if name == "size" and not isinstance(value, int):
        return "x".join(map(str, value))
    return f"{name} = {literal(value)}" if step == "normalize" else literal(value)


def arguments(node: OpNode, unbiased: bool) -> list[list[Segment]]:
    """Attributes that differ from their defaults; required ones by position."""
    found: list[list[Segment]] = []
    computed = computed_operands(node)
    for attribute in node.op.attributes:
        if (unbiased and attribute.name == "bias") or attribute.name in computed:
            continue
        value = said(node, attribute.name)
        if isinstance(attribute.default, Required):
            found.append([*_value(attribute, value)])
        elif not _is_same(value, _default(node, attribute.name)):
            found.append([f"{attribute.name} = ", *_value(attribute, value)])
    return found


def _is_same(value: Any, default: Any) -> bool:
    """Whether a default says a value; the two zeros differ."""
    return value == default and (value != 0 or str(value)[:1] != "-" or str(default)[:1] == "-")


def said(node: OpNode, name: str) -> Any:
    """An attribute as text has it: the one free size of a reshape is left to be found."""
    value = node.attributes[name]
    if node.op.name != "reshape":
        return value
    free = [axis for axis, extent in enumerate(value) if isinstance(extent, SymDim)]
    return tuple(-1 if [axis] == free else extent for axis, extent in enumerate(value))


def names_sizes(node: OpNode) -> bool:
    """Whether attributes hold free sizes, which are known by name in models only."""
    return any(_holds_size(said(node, attribute.name)) for attribute in node.op.attributes)


def _holds_size(value: Any) -> bool:
    if type(value) in (tuple, list):
        return any(map(_holds_size, value))
    return isinstance(value, SymDim)


def fixed_weight(node: OpNode) -> list[Segment]:
    """`weight = [...]` of a constant; nothing where the weight comes from a file."""
    weight = node.inputs.get("weight") if node.op.name == "parameter" else None
    if weight is None or not isinstance(weight.node, StateNode) or weight.node.data is None:
        return []
    return [f"weight = {literal(np.asarray(weight.node.data))}"]


def computed_weights(node: OpNode, names: Mapping[Value, str]) -> list[list[Segment]]:
    """`weight = filters`, of tensors that stand for weights."""
    return [[f"{name} = {names[node.inputs[name]]}"] for name in computed_operands(node)]


def starts(node: OpNode) -> list[list[Segment]]:
    """`weight = bilinear`: what weights start from, where the operator's record says otherwise."""
    usual = {spec.name: spec.init for spec in node.op.state(node.call)}
    found: list[list[Segment]] = []
    for name, value in node.inputs.items():
        state = value.node
        if not isinstance(state, StateNode) or state.data is not None:
            continue
        if (number := number_of(state.init)) is not None:
            found.append([f"{name} = initial({number!r})"])
        if state.init != usual.get(name) and state.init in STARTS:
            found.append([f"{name} = {state.init}"])
    return found


def _default(node: OpNode, name: str) -> Any:
    call = node.call
    given = {**call.attributes, name: node.op.defaults()[name]}
    try:
        return node.op.resolve(Call(call.op, call.types, given))[name]
    except OpError:
        return None


def _value(attribute: Attribute, value: Any) -> list[Segment]:
    name = attribute.name
    if attribute.kind is Kind.INT:
        return [Hole({"channels": "width"}.get(name, name), str(value))]
    if attribute.kind is Kind.SIZES and type(value) is not str:
        return [_sizes(name, value)]
    if attribute.kind is Kind.PADDING and type(value) is not str:
        return [_padding(tuple(value))]
    if attribute.kind is Kind.STRING and not attribute.choices:
        return [f'"{value}"']
    return [literal(value)]


def _sizes(name: str, value: tuple[Any, ...]) -> Segment:
    """`3x3`; strides and the like that agree are said once."""
    if len(set(value)) == 1 and name != "kernel":
        return Hole(name, str(value[0]))
    return Hole(name, "x".join(map(str, value)))


def _padding(pairs: tuple[Any, ...]) -> Segment:
    if all(pair == pairs[0] and pair[0] == pair[1] for pair in pairs):
        return Hole("pad", literal(pairs[0][0]))
    return literal(pairs)


def size(value: Dim) -> str:
    """A size as an expression; a floor is `//`, a half of an even size `/`."""
    text = ""
    for monomial, coefficient in value.terms if isinstance(value, SymDim) else terms_of(value):
        sign = "-" if coefficient < 0 else "+"
        term = _term(monomial, *abs(coefficient).as_integer_ratio())
        text = f"{text} {sign} {term}" if text else term if sign == "+" else f"-{term}"
    return text or "0"


def _term(monomial: Monomial, top: int, bottom: int) -> str:
    is_alone = len(monomial) == 1 and monomial[0][1] == 1 and top == bottom == 1
    factors = [
        _atom(atom, is_alone) + (f" ** {power}" if power > 1 else "") for atom, power in monomial
    ]
    if top != 1 or not factors:
        factors.insert(0, str(top))
    return " * ".join(factors) + (f" / {bottom}" if bottom != 1 else "")


def _atom(atom: Atom, is_alone: bool) -> str:
    if isinstance(atom, Symbol):
        return atom.name
    if isinstance(atom, Floor):
        above, below = (
            size(part) if isinstance(part, int) or _is_symbol(part) else f"({size(part)})"
            for part in (atom.numerator, atom.denominator)
        )
        return f"{above} // {below}" if is_alone else f"({above} // {below})"
    return f"{atom.kind}({', '.join(map(size, atom.arguments))})"


def _is_symbol(value: SymDim) -> bool:
    return str(value).isidentifier()


def literal(value: Any) -> str:
    """A value as the language writes it."""
    if isinstance(value, str):
        return value
    if type(value) in (tuple, list):
        items = (literal(item) for item in value)
        return f"[{', '.join(items)}]"
    if isinstance(value, SymDim):
        return size(value)
    if isinstance(value, np.ndarray):
        return literal(tuple(cast(Any, value))) if value.ndim else number(value[()])
    return number(value)
