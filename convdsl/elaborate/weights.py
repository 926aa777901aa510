"""What stands in the places of weights: tensors, numbers, words that say how they start, and those
of the layer's first use where it is shared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convdsl.diagnostics import Span
from convdsl.elaborate import foreign
from convdsl.elaborate.attributes import array
from convdsl.elaborate.constants import is_one
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Session, suggest
from convdsl.elaborate.values import Given, Initial, ListValue, Usual, describe, format_value
from convdsl.ir.graph import Value
from convdsl.ir.opdef import OpDef, Role, StateSpec
from convdsl.ir.starts import STARTS
from convdsl.tensor import DType, TensorType, format_shape, provably
from convdsl.tensor.conversion import convert


def said_weights(
    session: Session,
    context: Context,
    op: OpDef,
    values: Mapping[str, Value],
    attributes: Mapping[str, Any],
    weights: Mapping[str, Given],
    home: str,
) -> dict[str, Value]:
    """The weights that a text says something of."""
    call = op.call({name: value.type for name, value in values.items()}, attributes)
    made: dict[str, Value] = {}
    specs = {spec.name: spec for spec in op.state(call)}
    for name, given in weights.items():
        assert given.span is not None
        if name not in specs and isinstance(given, Usual):
            continue
        if name not in specs:
            text = f"{op.name} has no `{name}` here"
            raise session.fail("E0305", text, given.span, frames=context.frames)
        spec = specs[name]
        key = spec.key(home)
        if isinstance(given.value, Value):
            made[name] = _computed(session, context, op, spec, given.value, given.span)
        elif key in session.states:
            made[name] = session.states[key]
        elif isinstance(given.value, Initial):
            made[name] = _initial(session, context, key, spec, given.value, given.span)
        elif isinstance(given.value, str):
            made[name] = _started(session, context, key, spec, given.value, given.span)
        else:
            made[name] = _fixed(session, context, key, spec, given.value, given.span)
    return made


def _computed(
    session: Session, context: Context, op: OpDef, spec: StateSpec, value: Value, place: Span
) -> Value:
    """A tensor of the graph in a weight's place; it has the weight's own type."""
    if spec.role is not Role.PARAMETER:
        text = f"`{spec.name}` of {op.name} are running statistics, which no tensor stands for"
        raise session.fail("E0305", text, place, frames=context.frames)
    if not op.data_operands:
        text = f"`{spec.name}` of {op.name} takes numbers; a tensor is one without it"
        raise session.fail("E0305", text, place, frames=context.frames)
    if value.type != spec.type:
        raise session.fail(
            "E0501",
            f"`{spec.name}` is {value.type}, {op.name} needs {spec.type} here",
            place,
            frames=context.frames,
            help=_fitting(value.type, spec.type),
        )
    return value


def _fitting(given: TensorType, wanted: TensorType) -> tuple[str, ...]:
    """What makes a tensor one of the type, where one operator does."""
    if given.shape == wanted.shape:
        return (f"cast the tensor: `cast({wanted.dtype})`",)
    if given.dtype is not wanted.dtype:
        return ()
    shape = format_shape(wanted.shape)
    pairs = zip(given.shape[::-1], wanted.shape[::-1], strict=False)
    if given.rank <= wanted.rank and all(a in (1, b) for a, b in pairs):
        return (f"repeat it: `expand({shape})`",)
    if provably("==", math.prod(given.shape), math.prod(wanted.shape)):
        return (f"the same elements: `reshape({shape})`",)
    return ()


def _started(
    session: Session, context: Context, key: str, spec: StateSpec, word: str, place: Span
) -> Value:
    """A weight that is trained, from where a word says."""
    start = STARTS.get(word)
    if start is None:
        shown = describe(word) if place.text.startswith('"') else f"`{word}`"
        text = f"`{spec.name}` takes a tensor, numbers, or a word for its start, not {shown}"
        words = (f"one of {', '.join(STARTS)}",)
        help = foreign.start(word) or suggest(word, STARTS) or words
        raise session.fail("E0305", text, place, frames=context.frames, help=help)
    if objection := start.objection(spec.type):
        raise session.fail("E0305", f"`{word}` {objection}", place, frames=context.frames)
    return session.graph.add_state(key, spec.type, spec.role, word, None, place, context.frames)


def _initial(
    session: Session, context: Context, key: str, spec: StateSpec, initial: Initial, place: Span
) -> Value:
    """A weight that is trained, from a number on."""
    if spec.role is not Role.PARAMETER or not spec.type.dtype.is_float:
        text = f"`{spec.name}` is not trained, and starts from no number"
        help = ("of numbers that stay, a list or a number",)
        raise session.fail("E0305", text, place, frames=context.frames, help=help)
    start = repr(initial.number)
    return session.graph.add_state(key, spec.type, spec.role, start, None, place, context.frames)


def _fixed(
    session: Session, context: Context, key: str, spec: StateSpec, given: Any, place: Span
) -> Value:
    """A constant, broadcast to the weight's shape."""
    name, type = spec.name, spec.type
    rows = array(given)
    if rows is None:
        text = _uneven(name, given) or (
            f"`{name}` takes a tensor or a nested list of numbers, not {describe(given)}"
        )
        raise session.fail("E0305", text, place, frames=context.frames)
    elements: np.ndarray[Any, Any] = np.asarray(rows, object)
    odd = next((n for n in elements.flat if not is_one(n, type.dtype)), None)
    if odd is not None:
        text = f"{format_value(odd)} is no {type.dtype}, as `{name}` is"
        raise session.fail("E0305", text, place, frames=context.frames)
    wide = DType.F64 if type.dtype.is_float else DType.I64
    data = convert(elements.astype(wide.numpy), wide, type.dtype)
    sizes = tuple(extent for extent in type.shape if isinstance(extent, int))
    if len(sizes) != type.rank:
        raise session.fail("E0305", f"`{name}` has no fixed shape here", place)
    session.reserve(math.prod(sizes), place, context.frames)
    try:
        data = np.broadcast_to(data, sizes).copy()
    except ValueError:
        text = f"`{name}` of shape {list(data.shape)} does not fill {format_shape(type.shape)}"
        help: tuple[str, ...] = ()
        if data.ndim == 1 and data.size == math.prod(sizes):
            help = (f"give it the shape it has, and then another: -> reshape({list(sizes)})",)
        raise session.fail("E0305", text, place, frames=context.frames, help=help) from None
    return session.graph.add_state(key, type, Role.CONSTANT, "zeros", data, place, context.frames)


def _uneven(name: str, given: Any) -> str:
    """Rows of several lengths, said so."""
    rows = given.items if isinstance(given, ListValue) else ()
    lengths = {len(row.items) if isinstance(row, ListValue) else 0 for row in rows}
    if len(lengths) < 2:
        return ""
    return f"`{name}` has rows of several lengths: {' and '.join(map(str, sorted(lengths)))}"


def known_weights(
    session: Session,
    context: Context,
    op: OpDef,
    values: Mapping[str, Value],
    attributes: Mapping[str, Any],
    home: str,
    span: Span,
) -> dict[str, Value]:
    """The weights under `home`: those of the first application, where they fit."""
    types = {operand.name: None for operand in op.data_operands}
    call = op.call(
        {n: v.type for n, v in values.items() if n in types or _is_variadic(op, n)}, attributes
    )
    made: dict[str, Value] = {}
    for spec in op.state(call):
        if spec.name in values:
            continue
        key = spec.key(home)
        known = session.states.get(key)
        if known is None:
            known = session.graph.add_state(
                key, spec.type, spec.role, spec.init, None, span, context.frames
            )
            session.states[key] = known
        elif known.type != spec.type:
            text = f"the shared weight `{key}` is {known.type}, this use needs {spec.type}"
            first = known.node.span
            again = first == span  # in a round before
            notes = () if first is None or again else ((first, "first used here"),)
            help = "make two layers if their weights are not meant to be shared"
            if again:
                help = _OF_ROUNDS
            raise session.fail(
                "E0501",
                text,
                span,
                *notes,
                frames=context.frames,
                help=(help,),
            )
        made[spec.name] = known
    return made


_OF_ROUNDS = (
    "what flows in was of another size in the first round: begin with one of the size that the"
    " rounds give, expand([...])"
)


def _is_variadic(op: OpDef, name: str) -> bool:
    last = op.data_operands[-1] if op.data_operands else None
    return last is not None and last.variadic and name.startswith(last.name)
