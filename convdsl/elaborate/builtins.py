"""Functions on compile-time values, and the attributes of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from convdsl.elaborate import limits
from convdsl.elaborate.arithmetic import ValueProblem, checked, checked_dim, checked_list
from convdsl.elaborate.values import Builtin, Initial, ListValue, describe, is_number
from convdsl.ir.graph import Value
from convdsl.tensor import SymDim, TensorType, dim_max, dim_min


def _number(value: Any, what: str) -> Any:
    if not is_number(value):
        raise ValueProblem("E0401", f"{what} takes a number, not {describe(value)}")
    return value


def _integer(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueProblem("E0401", f"{what} takes an integer, not {describe(value)}")
    return value


def _extremum(name: str, number: Callable[..., Any], dims: Callable[..., Any]) -> Builtin:
    def function(*values: Any) -> Any:
        if len(values) == 1 and isinstance(values[0], ListValue):
            values = values[0].items
        if not values:
            raise ValueProblem("E0405", f"{name} of nothing")
        if any(isinstance(value, SymDim) for value in values):
            for value in values:
                if isinstance(value, bool) or not isinstance(value, int | SymDim):
                    raise ValueProblem("E0401", f"{name} takes numbers, not {describe(value)}")
            return checked_dim(dims(*values))
        return number(_number(value, name) for value in values)

    return Builtin(name, function, (1, None), f"the {name}imum of numbers or of a list")


def _floor(value: Any) -> Any:
    return value if isinstance(value, SymDim) else math.floor(_number(value, "floor"))


def _ceil(value: Any) -> Any:
    return value if isinstance(value, SymDim) else math.ceil(_number(value, "ceil"))


def _round(value: Any) -> int:
    return checked(math.floor(_number(value, "round") + 0.5))


def _round_to(value: Any, multiple: Any) -> int:
    """Nearest multiple, halves up, at least one, never more than a tenth below the value."""
    number, step = _number(value, "round_to"), _integer(multiple, "round_to")
    if step < 1:
        raise ValueProblem("E0405", f"round_to needs a positive multiple, not {step}")
    rounded = max(step, math.floor(number + step / 2) // step * step)
    return checked(rounded + step if rounded < 0.9 * number else rounded)


def _absolute(value: Any) -> Any:
    return abs(_number(value, "abs"))


def _sqrt(value: Any) -> float:
    if _number(value, "sqrt") < 0:
        raise ValueProblem("E0405", "a root of a negative number")
    return math.sqrt(value)


def _log2(value: Any) -> Any:
    if _number(value, "log2") <= 0:
        raise ValueProblem("E0405", "a logarithm of nothing or less")
    result = math.log2(value)
    return int(result) if result.is_integer() and isinstance(value, int) else result


def _sequence(value: Any, what: str) -> tuple[Any, ...]:
    if isinstance(value, ListValue):
        return value.items
    if isinstance(value, tuple):
        return value  # pyright: ignore[reportUnknownVariableType]
    sizes = ("its sizes are a list: x.shape, x.space; their number is x.rank",)
    help = sizes if isinstance(value, Value) else ()
    raise ValueProblem("E0401", f"{what} takes a list, not {describe(value)}", help)


def _len(value: Any) -> int:
    return len(value) if isinstance(value, str) else len(_sequence(value, "len"))


def _sum(values: Any) -> Any:
    total: Any = 0
    for value in _sequence(values, "sum"):
        if not isinstance(value, SymDim):
            _number(value, "sum")
        total = total + value
        total = checked_dim(total) if isinstance(total, SymDim) else checked(total)
    return total


_POSITIONS = (
    "positions 0, 1, ... along a size that is open are a tensor:"
    " parameter([1], weight = 1.0) -> expand([{}]) -> cumsum(0), less 1"
)


def _range(*bounds: Any) -> ListValue:
    for bound in bounds:
        if isinstance(bound, SymDim):
            text = f"range takes an integer, not {describe(bound)}"
            raise ValueProblem("E0401", text, (_POSITIONS.format(bound),))
    numbers = range(*(_integer(bound, "range") for bound in bounds)) if bounds[2:] != (0,) else None
    if numbers is None:
        raise ValueProblem("E0405", "a range with step 0")
    if max(abs(numbers.start), abs(numbers.stop)) > 1 << 62 or len(numbers) > limits.ITEMS:
        raise ValueProblem("E0806", f"a range of more than {limits.ITEMS:,} numbers")
    return ListValue.of(tuple(numbers))


def of_an_empty_range(bounds: Sequence[Any]) -> str:
    """Help for a range that never begins, `range(4, 0)`; of a range of nothing none."""
    start, stop, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1)[:3]
    if not step or start == stop or (stop > start) == (step > 0):
        return ""
    if len(bounds) == 1:
        return "a range counts up from 0"
    return f"the other way it is range({start}, {stop}, {-step})"


def _zip(*lists: Any) -> ListValue:
    columns = [_sequence(value, "zip") for value in lists]
    if len({len(column) for column in columns}) != 1:
        lengths = " and ".join(str(len(column)) for column in columns)
        raise ValueProblem("E0405", f"zip takes lists of one length, not of {lengths}")
    return checked_list(tuple(ListValue.of(row) for row in zip(*columns, strict=True)))


def _enumerate(values: Any) -> ListValue:
    rows = enumerate(_sequence(values, "enumerate"))
    return checked_list(tuple(ListValue.of(row) for row in rows))


def _reversed(values: Any) -> ListValue:
    return ListValue.of(tuple(reversed(_sequence(values, "reversed"))))


def _initial(value: Any) -> Initial:
    if not is_number(value) or not math.isfinite(value):
        raise ValueProblem(
            "E0401",
            f"initial takes one number, not {describe(value)}",
            ("of numbers that differ, `weight = zeros`, and a constant that is added",)
            if isinstance(value, ListValue)
            else (),
        )
    return Initial(float(value))


BUILTINS: dict[str, Builtin] = {
    b.name: b
    for b in (
        _extremum("min", min, dim_min),
        _extremum("max", max, dim_max),
        Builtin("floor", _floor, (1, 1), "the integer at or below"),
        Builtin("ceil", _ceil, (1, 1), "the integer at or above"),
        Builtin("round", _round, (1, 1), "the nearest integer, halves up"),
        Builtin("round_to", _round_to, (2, 2), "the nearest multiple, for channel counts"),
        Builtin("abs", _absolute, (1, 1), "the magnitude"),
        Builtin("sqrt", _sqrt, (1, 1), "the square root"),
        Builtin("log2", _log2, (1, 1), "the binary logarithm"),
        Builtin("len", _len, (1, 1), "how many elements"),
        Builtin("sum", _sum, (1, 1), "the sum of a list"),
        Builtin("range", _range, (1, 3), "range(n), range(from, to), range(from, to, step)"),
        Builtin("zip", _zip, (1, None), "lists side by side"),
        Builtin("enumerate", _enumerate, (1, 1), "[[0, a], [1, b], ...]"),
        Builtin("initial", _initial, (1, 1), "what a weight that is trained starts from"),
        Builtin("reversed", _reversed, (1, 1), "the list backwards"),
    )
}


NUMBERS: dict[str, float] = {"inf": math.inf, "nan": math.nan}
"""Floating-point numbers that digits cannot write."""


def _axis(name: str, index: int, space: bool) -> Callable[[TensorType], Any]:
    def read(type: TensorType) -> Any:
        if type.rank < (index + 1 if index >= 0 else 2 - index):
            help = (f"its sizes are x.shape, from x.shape[0] to x.shape[{type.rank - 1}]",)
            raise ValueProblem("E0404", f"a tensor {type} has no {name}", help if type.rank else ())
        return type.shape[index]

    return read


TENSOR_ATTRIBUTES: dict[str, Callable[[TensorType], Any]] = {
    "batch": _axis("batch", 0, False),
    "channels": _axis("channels", 1, False),
    "height": _axis("height", -2, True),
    "width": _axis("width", -1, True),
    "depth": _axis("depth", -3, True),
    "length": _axis("length", -1, True),
    "shape": lambda type: ListValue.of(type.shape),
    "space": lambda type: ListValue.of(type.shape[2:]),
    "rank": lambda type: type.rank,
    "elements": lambda type: checked_dim(type.elements),
    "dtype": lambda type: str(type.dtype),
}


def tensor_attribute(value: Value, name: str) -> Any:
    """`in.channels` and its kin."""
    return TENSOR_ATTRIBUTES[name](value.type)
