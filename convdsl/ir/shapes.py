"""Rules that many operators share: axes, broadcasting, and what two sizes lack to agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import lcm
from typing import Any

from convdsl.ir.opdef import Call, OpError, Reach, Unproven, WindowRule, declared
from convdsl.tensor import Dim, Symbol, SymDim, Window, bounds, substitute, symbol, symbols_of
from convdsl.tensor.dim import Extremum, Floor, terms_of

SPACE = "space"  # stands for the axes from 2 on


def resolve_axis(call: Call, attribute: str = "axis", rank: int | None = None) -> int:
    """The axis counted from the front; -1 is the last."""
    axis = call[attribute]
    limit = next(iter(call.types.values())).rank if rank is None else rank
    if not -limit <= axis < limit:
        raise _no_axis(call, attribute, axis, limit)
    return axis % limit


def _no_axis(call: Call, attribute: str, axis: int, rank: int) -> OpError:
    return OpError(
        f"{attribute} {axis} does not exist in a tensor of rank {rank}",
        attributes=(attribute,),
        operands=tuple(call.types)[:1],
        help=(f"axes are 0 to {rank - 1}, or -1 to {-rank} from the end",) if rank > 1 else (),
    )


def entries(call: Call, attribute: str, count: int | None = None) -> tuple[Any, ...]:
    """The entries of a list attribute; a single value stands for all `count`, or for itself."""
    value = call[attribute]
    if isinstance(value, int | float | str | SymDim):
        return (value,) * (1 if count is None else count)
    listed: tuple[Any, ...] = tuple(value)
    if count is not None and len(listed) != count:
        one = "entry" if len(listed) == 1 else "entries"
        raise OpError(
            f"{attribute} has {len(listed)} {one} for {count} axes",
            attributes=(attribute,),
            help=_in_pairs(listed, count),
        )
    return listed


def _in_pairs(listed: tuple[Any, ...], count: int) -> tuple[str, ...]:
    """Help for borders given as one list, as PyTorch's `F.pad` takes them, the last axis first."""
    if len(listed) != 2 * count or not all(isinstance(entry, int) for entry in listed):
        same = f": {[[*e] if isinstance(e, tuple) else e for e in listed] * count}"  # pyright: ignore[reportUnknownVariableType]
        return (f"one for each axis{same if len(listed) == 1 else ''}",)
    pairs = [list(listed[2 * i : 2 * i + 2]) for i in range(count)]
    also = f", as of PyTorch {pairs[::-1]}" if pairs != pairs[::-1] else ""
    return (f"pairs, before and after: {pairs}{also}",)


def resolve_axes(call: Call, attribute: str, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in ascending order, each at most once."""
    given: tuple[int, ...] = entries(call, attribute)
    for axis in given:
        if not -rank <= axis < rank:
            raise _no_axis(call, attribute, axis, rank)
    axes = sorted(axis % rank for axis in given)
    if len(set(axes)) < len(axes):
        raise OpError(f"{attribute} names an axis twice", attributes=(attribute,))
    return tuple(axes)


def given_by(size: SymDim) -> str:
    """How a size that has to be known when the file is loaded is said."""
    names = sorted(symbol.name for symbol in symbols_of(size))
    given = " ".join(f"--set {name}=..." for name in names)
    return f"{size} is open: say how large (--input, or {given}), or write numbers in the input"


def known_size(call: Call, operand: str, axis: int) -> int:
    """The extent of an axis that must not be symbolic."""
    extent = call.type(operand).shape[axis]
    if not isinstance(extent, int):
        error = Unproven(
            f"{call.op.name} needs a known size along axis {axis}, not {extent}",
            None,
            operands=(operand,),
        )
        last = call.type(operand).shape[-1]
        chosen = "axis" in call.attributes and axis != call.type(operand).rank - 1
        other = ("over the last axis: axis = -1",) if chosen and isinstance(last, int) else ()
        error.help = (*other, given_by(extent))
        raise error
    return extent


# Agreement of sizes


def broadcast_shapes(call: Call, operands: Sequence[str], trailing: int = 0) -> tuple[Dim, ...]:
    """The common shape, NumPy's way: trailing axes align, extent 1 repeats.

    The last `trailing` axes take no part.
    """
    shape: tuple[Dim, ...] = ()
    seen: list[str] = []
    for operand in operands:
        own = call.type(operand).shape
        shape = _broadcast(call, shape, own[: len(own) - trailing], (*seen, operand))
        seen.append(operand)
    return shape


def _broadcast(
    call: Call, left: tuple[Dim, ...], right: tuple[Dim, ...], operands: tuple[str, ...]
) -> tuple[Dim, ...]:
    rank = max(len(left), len(right))
    a = (1,) * (rank - len(left)) + left
    b = (1,) * (rank - len(right)) + right
    if any(x not in (y, 1) and y != 1 for x, y in zip(a, b, strict=True)):
        shapes = " and ".join(f"{call.type(name)}" for name in operands)
        aligned = len(left) == len(right)
        raise disagreements(f"cannot {call.op.name} {shapes}", a, b, operands, aligned)
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


_SPACE = ("depth", "height", "width")


def axis_name(axis: int, rank: int) -> str:
    """`channels`, `height`: what texts call an axis of a tensor with channels."""
    if axis < 2:
        return ("batch", "channels")[axis]
    names = ("length",) if rank == 3 else _SPACE[5 - rank :]
    return names[axis - 2] if rank <= 5 else f"axis {axis}"


def disagreements(
    what: str,
    a: Sequence[Dim],
    b: Sequence[Dim],
    operands: tuple[str, ...],
    aligned: bool = True,
    apart: int | None = None,
) -> OpError:
    """The error of two shapes that are to be equal, or to repeat where an extent is 1: every size
    that differs, with its axis. `aligned`: they had equal ranks; `apart`: an axis that may differ.
    """
    rank = len(a)
    pairs: dict[tuple[Dim, Dim], list[str]] = {}
    for axis, pair in enumerate(zip(a, b, strict=True)):
        repeats = apart is None and 1 in pair
        if pair[0] != pair[1] and not repeats and axis != apart:
            pairs.setdefault(pair, []).append(axis_name(axis, rank) if rank > 2 else "")
    sure = {pair: axes for pair, axes in pairs.items() if differ(*pair)}
    tail = "" if aligned else "; axes are paired from the last"
    if not sure:
        error = disagreement(what, *next(iter(pairs)), operands)
        conditions = [sufficient(*pair) for pair in pairs]
        needed = dict.fromkeys(condition for condition in conditions if condition is not None)
        if len(needed) > 1 and None not in conditions:
            error.help = (declared(*needed),)
        error.message += tail
        return error
    said = ", ".join(
        f"{x} is not {y}{f' ({_listed(axes)})' if aligned and rank > 2 else ''}"
        for (x, y), axes in sure.items()
    )
    return OpError(f"{what}: {said}{tail}", operands=operands)


def differ(a: Dim, b: Dim) -> bool:
    """Whether two sizes differ whatever the open ones are."""
    low, high = bounds(a - b)
    return (low is not None and low > 0) or (high is not None and high < 0)


def _listed(words: Sequence[str]) -> str:
    """`height and width`."""
    return " and ".join((", ".join(words[:-1]), words[-1]) if words[1:] else words)


def disagreement(
    what: str, a: Dim, b: Dim, operands: tuple[str, ...], attributes: tuple[str, ...] = ()
) -> OpError:
    """The error of two sizes that differ or cannot be proven equal, naming what is missing."""
    if differ(a, b):
        return OpError(f"{what}: {a} is not {b}", operands=operands, attributes=attributes)
    message, condition = f"{what}: {a} == {b} cannot be proven", sufficient(a, b)
    error = Unproven(message, condition, operands=operands, attributes=attributes)
    if condition is not None and condition.divisor == 1:
        error.condition = None  # where it does not hold, one of them may be 1, and repeat
    if str(a).isidentifier() and str(b).isidentifier():
        error.help = (f"where they are equal, call both {a}",)
    return error


def sufficient(a: Dim, b: Dim) -> Symbol | None:
    """A symbol of which enough is known that a == b is proven, e.g. `H % 16 == 0`, `T <= 512`."""
    difference = a - b
    for special in _bounded(difference):
        free = symbol(special.name, special.minimum, special.divisor, special.remainder,
                      special.maximum)  # fmt: skip
        if substitute(difference, {special.name: free}) == 0:
            return special
    denominators = {*_denominators(difference)}
    for s in sorted(symbols_of(difference), key=str):
        parts = (*denominators, lcm(1, *denominators))
        for divisor in sorted({way for d in parts for way in (lcm(s.divisor, d), s.divisor * d)}):
            for remainder in range(min(divisor, 64)):
                least = s.minimum + (remainder - s.minimum) % divisor
                special = Symbol(s.name, least, divisor, remainder, s.maximum)
                free = symbol(s.name, least, divisor, remainder, s.maximum)
                if divisor > 1 and substitute(difference, {s.name: free}) == 0:
                    return special
    return None


def _bounded(value: Dim) -> Iterable[Symbol]:
    """Symbols that a minimum or maximum compares with a number, held to one side of it."""
    for monomial, _ in terms_of(value):
        for atom, _ in monomial:
            if not isinstance(atom, Extremum):
                continue
            limits = [limit for limit in atom.arguments if isinstance(limit, int)]
            for s in sorted(symbols_of(value), key=str) if limits else ():
                if s.divisor == 1 and s.maximum is None:
                    yield Symbol(s.name, s.minimum, 1, 0, max(s.minimum, min(limits)))
                    yield Symbol(s.name, max(s.minimum, *limits), 1, 0, None)


def _denominators(value: Dim) -> Iterable[int]:
    if isinstance(value, int):
        return
    for monomial, _ in value.terms:
        for atom, _ in monomial:
            if isinstance(atom, Floor):
                if isinstance(atom.denominator, int):
                    yield atom.denominator
                yield from _denominators(atom.numerator)
            elif isinstance(atom, Extremum):
                for argument in atom.arguments:
                    yield from _denominators(argument)


# Receptive fields along axes


def whole_along(shape: Sequence[Dim], axes: Sequence[int]) -> WindowRule:
    """The field where every position sees all of `axes` and itself along the others."""
    space = range(2, len(shape))
    seen = [axis in axes for axis in space]
    if not any(seen):
        return Reach.POINTWISE
    if all(seen):
        return Reach.WHOLE
    rank = len(space)
    return Window(
        kernel=tuple(shape[axis] if axis in axes else 1 for axis in space),
        stride=tuple(0 if axis in axes else 1 for axis in space),
        padding=((0, 0),) * rank,
        dilation=(1,) * rank,
    )
