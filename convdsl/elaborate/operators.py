"""Applying operators: into the graph, with shared weights, fixed kernels, good errors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convdsl.diagnostics import Span
from convdsl.elaborate import channels_in, foreign
from convdsl.elaborate.attributes import array
from convdsl.elaborate.builtins import BUILTINS
from convdsl.elaborate.joining import advice
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Session, Stop, suggest
from convdsl.elaborate.values import Given, ListValue, Record, describe, format_value, is_number
from convdsl.ir.graph import StateNode, Value
from convdsl.ir.opdef import Kind, OpDef, Operand, OpError, Role, StateSpec
from convdsl.ir.starts import STARTS
from convdsl.ops import BY_NAME, SPELLINGS
from convdsl.ops.elementwise import SIGNS
from convdsl.tensor import DType, TensorType, format_shape, provably
from convdsl.tensor.conversion import convert, stored


def apply_operator(
    session: Session,
    context: Context,
    op: OpDef,
    inputs: Sequence[Given],
    arguments: Mapping[str, Given],
    *,
    node_name: str,
    home: str,
    shared: bool,
    span: Span,
    weights: Mapping[str, Given] | None = None,
) -> Any:
    """The operator's result: a tensor, several by name, or a list of any number.

    `arguments` are converted attributes; `home` is the path of the weights; `weights` are
    tensors that stand for weights, fixed kernels, or words that say how weights start, by
    operand name.
    """
    _want_a_tensor(session, context, op, inputs, span)
    inputs = _constants(session, context, op, inputs, node_name)
    operands = _assign_operands(session, context, op, inputs, span)
    attributes = {name: given.value for name, given in arguments.items()} if arguments else {}
    values: dict[str, Value] = {name: given.value for name, given in operands.items()}
    session.count_node(span, context.frames)
    session.count_tensors(len(inputs), span, context.frames)
    try:
        if weights:
            values |= _said(session, context, op, values, attributes, weights, home)
        if shared:
            values |= _known_states(session, context, op, values, attributes, home, span)
        node = session.graph.apply(
            op, values, attributes, name=node_name, span=span, frames=context.frames
        )
    except OpError as error:
        raise _objection(session, context, error, op, operands, arguments, span) from None
    channels_in.check(session, context, op, operands, arguments)
    session.count_tensors(len(node.outputs), span, context.frames)
    for value in node.outputs:
        session.admit(value.type, span, context.frames)
    if len(op.operands) > len(op.data_operands):
        for operand in op.operands:
            if operand.role is not Role.DATA and operand.name in node.inputs:
                state = node.inputs[operand.name]
                if isinstance(state.node, StateNode):
                    session.states[state.node.name] = state
    if op.outputs[-1].endswith("*"):
        return ListValue.of(node.outputs)
    if len(op.outputs) > 1:
        return Record(dict(zip(op.outputs, node.outputs, strict=True)))
    return node.outputs[0]


def _assign_operands(
    session: Session, context: Context, op: OpDef, inputs: Sequence[Given], span: Span
) -> dict[str, Given]:
    """Tensors to operand names, in order; a variadic operand takes the rest."""
    wanted = op.data_operands
    variadic = wanted[-1] if wanted and wanted[-1].variadic else None
    fixed: tuple[Operand, ...] = wanted[:-1] if variadic else wanted
    least = sum(not operand.optional for operand in fixed) + (1 if variadic else 0)
    if len(inputs) < least or (variadic is None and len(inputs) > len(fixed)):
        count = f"{least} tensor{'s' if least != 1 else ''}"
        many = f"at least {count}" if variadic or least < len(fixed) else count
        flows = len(inputs) == len(fixed) + 1 and span.text.rstrip().endswith(")")
        help = f"what flows in is the first: `x -> {op.name}(y)` is `{op.name}(x, y)`"
        labels, lists = of_a_list(inputs, context)
        raise session.fail(
            "E0307",
            f"`{op.name}` takes {many}{_listed(fixed)}, {len(inputs)} given",
            span,
            *labels,
            frames=context.frames,
            help=lists
            or _joined(op, inputs, span)
            or ((help,) if flows and len(fixed) > 1 else ())
            or _sized(op, len(inputs))
            or _placed(fixed, len(inputs)),
        )
    if len(inputs) == len(fixed) == 1:
        return {fixed[0].name: inputs[0]}
    names = [operand.name for operand in fixed[: len(inputs)]]
    if variadic:
        names += [f"{variadic.name}{i}" for i in range(len(inputs) - len(names))]
    return dict(zip(names, inputs, strict=True))


_SHORT = 24
"""Letters of a list that stands in a help as it is written."""


def of_a_list(
    inputs: Sequence[Given], context: Context
) -> tuple[tuple[tuple[Span, str], ...], tuple[str, ...]]:
    """Labels and help where the tensors that are too many are those of one list."""
    spans = [given.span for given in inputs]
    list_ = spans[0] if spans else None
    if list_ is None or len(inputs) < 2 or any(span is not list_ for span in spans):
        return (), ()
    name = list_.text
    labels = ((list_, f"a list of {len(inputs)}"),)
    if name in context.results.values:
        return labels, (f"it is not the output `{name}`: call one of them otherwise",)
    if not name.isidentifier() and (len(name) > _SHORT or not name.startswith("[")):
        return labels, ()
    return labels, (f"join them, `concat({name})`, or take each: `for y in {name} {{ ... }}`",)


def _joined(op: OpDef, inputs: Sequence[Given], span: Span) -> tuple[str, ...]:
    """Help where one, or more than two, are added or multiplied, or one is wanted back from its
    pooling."""
    given, first = len(inputs), inputs[0].span if inputs else None
    if f"reduce_{op.name}" in BY_NAME and given == 1:
        return (f"of two: {op.name}(a, b); along axes reduce_{op.name}([1])",)
    if op.name in SIGNS and given == 1:
        name = first.text if first is not None and first.text.isidentifier() else "a"
        return (f"of two: {name} {SIGNS[op.name]} b",)
    called = first is not None and span.start <= first.start and first.end <= span.end
    if op.name in SIGNS and given > 2 and called:
        also = ", or sum([a, b, ...])" if op.name == "add" else ""
        return (f"of several: a {SIGNS[op.name]} b {SIGNS[op.name]} c{also}",)
    if op.name == "max_unpool" and given == 1:
        return ("y, places = x -> max_pool_with_positions(2), later y -> max_unpool(places, 2)",)
    return ()


def _placed(operands: Sequence[Operand], given: int) -> tuple[str, ...]:
    """Help where positions are missing, which are no attribute."""
    if given >= len(operands) or operands[given].name != "positions":
        return ()
    return ("positions are a tensor; a part that is known here is slice(axes, start, stop)",)


def _listed(operands: Sequence[Operand]) -> str:
    """What several operands are called, where that says more than letters."""
    names = [operand.name for operand in operands]
    return f" ({', '.join(names)})" if any(len(name) > 1 for name in names) else ""


def _sized(op: OpDef, given: int) -> tuple[str, ...]:
    """Help for two tensors, where the second is meant for its size."""
    attribute = op.attribute("size")
    if given != 2 or attribute is None or attribute.kind is not Kind.SHAPE:
        return ()
    return (f"to the size of another: `x -> {op.name}(size = y.space)`",)


def _said(
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
        if name not in specs:
            text = f"{op.name} has no `{name}` here"
            raise session.fail("E0305", text, given.span, frames=context.frames)
        spec = specs[name]
        key = spec.key(home)
        if isinstance(given.value, Value):
            made[name] = _computed(session, context, op, spec, given.value, given.span)
        elif key in session.states:
            made[name] = session.states[key]
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
        text = f"`{spec.name}` takes a tensor, numbers, or {' or '.join(STARTS)}, not {shown}"
        help = foreign.start(word) or suggest(word, STARTS)
        raise session.fail("E0305", text, place, frames=context.frames, help=help)
    if objection := start.objection(spec.type):
        raise session.fail("E0305", f"`{word}` {objection}", place, frames=context.frames)
    return session.graph.add_state(key, spec.type, spec.role, word, None, place, context.frames)


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
    odd = next((n for n in elements.flat if not _is_one(n, type.dtype)), None)
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


def _known_states(
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


def _objection(
    session: Session,
    context: Context,
    error: OpError,
    op: OpDef,
    operands: Mapping[str, Given],
    arguments: Mapping[str, Given],
    span: Span,
) -> Stop:
    """The rule's objection with carets: blamed attributes, then blamed operands."""
    labels: list[tuple[Span, str]] = []
    for name in error.attributes:
        given = arguments.get(name)
        if given is not None and given.span is not None:
            labels.append((given.span, ""))
    joined = len(operands) > 1 and all(
        g.span is not None
        and g.span.source is span.source
        and span.start <= g.span.start
        and g.span.end <= span.end
        for g in operands.values()
    )
    if not labels and not (joined and error.operands):
        labels.append((span, ""))
    for name in error.operands:
        given = operands.get(name)
        if given is not None and given.span is not None:
            labels.append((given.span, _provenance(given)))
    return session.fail(
        "E0501",
        error.message,
        *labels,
        frames=context.frames,
        help=channels_in.help_of(error, operands, arguments)
        or error.help
        or _of_one_type(error, operands)
        or advice(op, operands),
    )


def _of_one_type(error: OpError, operands: Mapping[str, Given]) -> tuple[str, ...]:
    """How two operands that are blamed for their element types come to one."""
    blamed = [operands[name] for name in error.operands if name in operands]
    if len(blamed) != 2:
        return ()
    whole = [given for given in blamed if not given.value.type.dtype.is_float]
    types = {given.value.type.dtype for given in blamed}
    if len(types) != 2:
        return ()
    changed = whole[0] if len(whole) == 1 else blamed[1]
    other = blamed[0] if changed is blamed[1] else blamed[1]
    said = changed.span.text if changed.span is not None else ""
    name = said if said.isidentifier() else "..."
    return (f"of one element type: cast({name}, {other.value.type.dtype})",)


def _uneven(name: str, given: Any) -> str:
    """Rows of several lengths, said so."""
    rows = given.items if isinstance(given, ListValue) else ()
    lengths = {len(row.items) if isinstance(row, ListValue) else 0 for row in rows}
    if len(lengths) < 2:
        return ""
    return f"`{name}` has rows of several lengths: {' and '.join(map(str, sorted(lengths)))}"


def _provenance(given: Given) -> str:
    """`[N, 64, 56, 56], from `bn` at resnet.cnn:6`."""
    value: Value = given.value
    shape = format_shape(value.type.shape)
    made = value.node.span
    if made is None or (
        given.span is not None
        and given.span.source is made.source
        and given.span.start <= made.start
        and made.end <= given.span.end
    ):
        return shape
    return f"{shape}, from `{value.node.name}` at {made.location}"


def _want_a_tensor(
    session: Session, context: Context, op: OpDef, inputs: Sequence[Given], span: Span
) -> None:
    """Numbers stand for constant tensors beside tensors; of numbers alone nothing is known that
    a tensor has."""
    if not inputs or not all(is_number(given.value) for given in inputs):
        return
    sign = {"pow": "**", **SIGNS}.get(op.name)
    shown = [given.span.text if given.span else str(given.value) for given in inputs]
    help = f"of numbers write `{f' {sign} '.join(shown)}`" if sign else _TABLE
    if op.name in BUILTINS:  # called otherwise: maximum
        help = f"of numbers write `{op.name}({', '.join(shown)})`"
    said = _CALLED.match(span.text)
    name = said[0] if said and SPELLINGS.get(said[0]) is op else op.name
    text = f"`{name}` is of tensors, and has numbers only"
    raise session.fail("E0307", text, span, frames=context.frames, help=(help,))


_CALLED = re.compile(r"[A-Za-z_]\w*")
_TABLE = "a constant tensor is parameter([1], weight = 2.0)"


def _constants(
    session: Session, context: Context, op: OpDef, inputs: Sequence[Given], node_name: str
) -> Sequence[Given]:
    """The inputs with numbers made into constant tensors of the tensors' type; beside nothing but
    masks that choose, of the numbers' own."""
    types = [given.value.type for given in inputs if isinstance(given.value, Value)]
    if len(types) == len(inputs) or not types:
        return inputs
    numbers = [given.value for given in inputs if not isinstance(given.value, Value)]
    deciding = [
        given.value.type.dtype
        for position, given in enumerate(inputs)
        if isinstance(given.value, Value) and not _chooses(op, position)
    ]
    dtype = deciding[0] if deciding else _type_of_numbers(numbers)
    shape = (1,) * types[0].rank
    made: list[Given] = []
    for given in inputs:
        if isinstance(given.value, Value):
            made.append(given)
            continue
        _check_number(session, context, given, dtype)
        suffix = len(made) if len(inputs) > 2 else ""
        constant = session.graph.add_state(
            f"{node_name}.value{suffix}",
            TensorType(dtype, shape),
            Role.CONSTANT,
            "zeros",
            np.full(shape, stored(given.value, dtype)),
            given.span,
            context.frames,
        )
        made.append(Given(constant, given.span))
    return made


def _chooses(op: OpDef, position: int) -> bool:
    operands = op.data_operands
    return position < len(operands) and operands[position].chooses


def _type_of_numbers(numbers: Sequence[Any]) -> DType:
    """bool, i64 or f32: what numbers are by themselves."""
    if all(isinstance(number, bool) for number in numbers):
        return DType.BOOL
    return DType.I64 if all(isinstance(number, int) for number in numbers) else DType.F32


_WIDER = (DType.F32, DType.F64)
"""Types that a tensor may be cast to, for a number that its own does not hold."""


def _fits(number: float, dtype: DType) -> bool:
    """Whether a number is one of the type: whole and in range, or at least not beyond it."""
    if dtype.is_float:
        return not math.isfinite(number) or abs(number) <= dtype.largest
    return number % 1 == 0 and dtype.lowest <= number <= dtype.highest


def _is_one(element: float | bool, dtype: DType) -> bool:
    """Whether what a list holds is one of the type; `true` is no number."""
    return _fits(element, dtype) and (dtype is DType.BOOL or not isinstance(element, bool))


def _check_number(session: Session, context: Context, given: Given, dtype: DType) -> None:
    """Nothing is rounded without a word: a number must be one of the tensors' type."""
    number = given.value
    if not isinstance(number, int | float) or _fits(number, dtype):
        return
    span = given.span
    assert span is not None
    raise session.fail(
        "E0305",
        f"{number} is no {dtype}, as the tensors beside it are",
        span,
        frames=context.frames,
        help=(f"cast the tensor: `cast({next(t for t in _WIDER if _fits(number, t))})`",),
    )
