"""What operators' rules say of calls, asked once for each signature.

The layers of a network repeat: most have operand types and attributes that an earlier one had.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from convdsl.ir.opdef import Call, OpDef, StateSpec
from convdsl.kernel.expr import TensorExpr
from convdsl.kernel.storage import widened
from convdsl.tensor import TensorType

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Applied:
    """An operator applied to operand types: resolved attributes, its weights, its outputs."""

    attributes: Mapping[str, Any]
    states: tuple[StateSpec, ...]
    outputs: tuple[TensorType, ...]


class Rules:
    """Applies operators and remembers the answers. They depend on nothing but the signature."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Applied] = {}

    def apply(
        self, op: OpDef, types: Mapping[str, TensorType], attributes: Mapping[str, Any]
    ) -> Applied:
        """The operator applied to types, with attributes as the language gives them; raises
        OpError where a rule objects."""
        key = (op, tuple(types.items()), tuple([(n, _exact(v)) for n, v in attributes.items()]))
        try:
            known = self._known.get(key)
        except TypeError:  # an attribute that has no hash, such as an array
            return _apply(op, types, attributes)
        if known is None:
            known = self._known[key] = _apply(op, types, attributes)
        return known


def signature(call: Call) -> Hashable:
    """What a call's figures and arithmetic depend on. Has no hash where an attribute has none."""
    attributes = tuple([(name, _exact(value)) for name, value in call.attributes.items()])
    return (call.op, tuple(call.types.items()), attributes)


def numbered(calls: Iterable[Call]) -> list[int]:
    """A number for each call, the same for equal ones: for who asks several things of each. Nodes
    that `Rules` made of one signature have types and attributes in common: where all are the very
    same objects, they need not be looked at."""
    held = list(calls)  # as long as ids are asked for
    numbers: dict[Hashable, int] = {}
    known: dict[tuple[Any, ...], int] = {}
    found: list[int] = []
    for call in held:
        types, attributes = call.types, call.attributes
        ids = (*map(id, types.values()), *map(id, attributes.values()))
        parts = (call.op, *types, *attributes, *ids)
        number = known.get(parts)
        if number is None:
            try:
                number = numbers.setdefault(signature(call), len(numbers))
            except TypeError:  # an attribute that has no hash: like no other
                number = numbers.setdefault((len(numbers),), len(numbers))
            known[parts] = number
        found.append(number)
    return found


class Answers(Generic[_Answer]):
    """What else follows from a call alone, found out once for each signature."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Answer] = {}

    def of(self, call: Call | int, ask: Callable[[], _Answer]) -> _Answer:
        """What was answered of an equal call, else what `ask` answers. Calls that have a number go
        by that alone."""
        key = call if isinstance(call, int) else signature(call)
        try:
            known = self._known.get(key)
        except TypeError:  # an attribute that has no hash
            return ask()
        if known is None:
            known = self._known[key] = ask()
        return known


_LARGEST = 4096
_kernels: dict[Hashable, tuple[TensorExpr, TensorExpr]] = {}


def arithmetic_of(call: Call) -> TensorExpr:
    """The arithmetic of a call in the types of its operands; built once for each signature, as long
    as there are few."""
    return _arithmetic(call)[0]


def kernel_of(call: Call) -> TensorExpr:
    """The same in types that compute."""
    return _arithmetic(call)[1]


def _arithmetic(call: Call) -> tuple[TensorExpr, TensorExpr]:
    key = signature(call)
    try:
        known = _kernels.get(key)
    except TypeError:
        own = call.kernel
        return own, widened(own)
    if known is None:
        if len(_kernels) >= _LARGEST:
            _kernels.clear()
        own = call.kernel
        known = _kernels[key] = own, widened(own)
    return known


def _apply(op: OpDef, types: Mapping[str, TensorType], attributes: Mapping[str, Any]) -> Applied:
    call = op.call(types, attributes)
    states = op.state(call)
    complete = dict(types)
    for spec in states:
        complete.setdefault(spec.name, spec.type)
    return Applied(call.attributes, states, op.infer(Call(op, complete, call.attributes)))


def _exact(value: Any) -> Any:
    """A key that tells apart what Python holds equal: 1, 1.0 and true, 0.0 and -0.0."""
    kind = value.__class__
    if kind in _PLAIN:
        return kind, value
    if isinstance(value, float):
        return float, value.hex()
    if isinstance(value, tuple):
        return tuple, tuple([_exact(item) for item in value])  # pyright: ignore[reportUnknownVariableType]
    return kind, value


_PLAIN = frozenset({int, str, bool, type(None)})
