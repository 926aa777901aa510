"""Numbers that stand where tensors do: constants of the type of the tensors beside them.

Nothing is rounded without a word: a number must be one of that type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from convdsl.diagnostics import Span
from convdsl.elaborate.builtins import BUILTINS
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Session
from convdsl.elaborate.values import Given, is_number
from convdsl.ir.graph import Value
from convdsl.ir.opdef import OpDef, Role
from convdsl.ops import SPELLINGS
from convdsl.ops.elementwise import SIGNS
from convdsl.tensor import DType, TensorType
from convdsl.tensor.conversion import stored


def want_a_tensor(
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


def constants(
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


def is_one(element: float | bool, dtype: DType) -> bool:
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
