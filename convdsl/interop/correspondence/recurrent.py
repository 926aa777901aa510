"""Recurrent layers, written out step by step: LSTM, GRU and RNN of a known number of steps.

The products with the input are one layer for all steps; what a step adds are the products with the
state before it, by weights that all steps share. Gates stand in ONNX's order (operators LSTM: i, o,
f, c; GRU: z, r, h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from convdsl.interop.correspondence.row import Read, Result, Row
from convdsl.interop.reading.tensors import Known, ReadError, Tensor, shape_of

if TYPE_CHECKING:
    from convdsl.interop.reading.node import Reading

State: TypeAlias = "tuple[Tensor | None, ...]"
"""What a step hands to the next, [N, H] each: the output, and of an LSTM the cell; None is zero."""

MOST_STEPS = 1024
"""Steps that are written out, of all directions together."""

_ACTIVATIONS = ("sigmoid", "tanh", "relu", "softsign", "softplus")


@dataclass
class _Direction:
    """One direction of a layer: its weights [G H, ..] in parts that all steps share."""

    r: Reading
    number: int
    hidden: int
    activations: tuple[str, ...]
    parts: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)

    def weight(self, index: int, first: int, count: int) -> Tensor:
        """Gates of the weights; of the bias, which has the input's and then the state's."""
        key = (index, first, count)
        if key not in self.parts:
            rows = (first * self.hidden, (first + count) * self.hidden)
            self.parts[key] = _rows(self.r, self.r[index], self.number, *rows)
        return self.parts[key]

    def apply(self, which: int, x: Tensor) -> Tensor:
        return self.r.unary(self.activations[which], x)

    def times(self, index: int, x: Tensor, first: int, count: int, bias: Tensor | None) -> Tensor:
        """x with some gates' weights."""
        weight = self.weight(index, first, count)
        inputs = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
        return self.r.apply("linear", inputs, channels=count * self.hidden, bias=bias is not None)

    def gates(self, x: Tensor, count: int) -> list[Tensor]:
        """[N, count H] in parts."""
        parts = (self.hidden,) * count
        return [x] if count == 1 else list(self.r.apply_all("split", {"x": x}, parts=parts, axis=1))

    def plus(self, a: Tensor, b: Tensor | None) -> Tensor:
        return a if b is None else self.r.binary("add", a, b)

    def peeped(self, gate: Tensor, cell: Tensor | None, which: int) -> Tensor:
        if cell is None or not self.r.has(7):
            return gate
        return self.plus(gate, self.r.binary("mul", cell, self.weight(7, which, 1)))


Step: TypeAlias = Callable[[_Direction, Tensor, State], State]


def _rows(r: Reading, x: Tensor, number: int, start: int, stop: int) -> Tensor:
    if isinstance(x, Known):
        return Known(x.array[number, start:stop], x.name)
    of_one = r.unary(
        "slice", x, axes=(0, 1), start=(number, start), stop=(number + 1, stop), step=(1, 1)
    )
    return r.unary("squeeze", of_one, axes=(0,))


def _lstm(d: _Direction, x: Tensor, state: State) -> State:
    """C' = f C + i g, H' = o h(C'); peepholes: i and f see C, o sees C'."""
    h, c = state
    x = x if h is None else d.plus(x, d.times(2, h, 0, 4, None))
    i, o, f, g = d.gates(x, 4)
    cell = d.r.binary("mul", d.apply(0, d.peeped(i, c, 0)), d.apply(1, g))
    kept = None if c is None else d.r.binary("mul", d.apply(0, d.peeped(f, c, 2)), c)
    cell = d.plus(cell, kept)
    return d.r.binary("mul", d.apply(0, d.peeped(o, cell, 1)), d.apply(2, cell)), cell


def _gru(d: _Direction, x: Tensor, state: State) -> State:
    """H' = (1 - z) g + z H, g of the reset state, or reset after the product."""
    (h,) = state
    bias = d.weight(3, 5, 1) if d.r.has(3) else None
    both, new = d.r.apply_all("split", {"x": x}, parts=(2 * d.hidden, d.hidden), axis=1)
    after = bool(d.r.attribute("linear_before_reset", 0))
    z, reset = d.gates(both if h is None else d.plus(both, d.times(2, h, 0, 2, None)), 2)
    z, reset = d.apply(0, z), d.apply(0, reset)
    if h is None and not after:
        new = d.plus(new, bias)
    elif h is None:
        new = d.plus(new, None if bias is None else d.r.binary("mul", reset, bias))
    elif after:
        new = d.plus(new, d.r.binary("mul", reset, d.times(2, h, 2, 1, bias)))
    else:
        new = d.plus(new, d.times(2, d.r.binary("mul", reset, h), 2, 1, bias))
    g = d.apply(1, new)
    kept = d.r.binary("sub", g, d.r.binary("mul", z, g))
    return (d.plus(kept, None if h is None else d.r.binary("mul", z, h)),)


def _rnn(d: _Direction, x: Tensor, state: State) -> State:
    (h,) = state
    return (d.apply(0, x if h is None else d.plus(x, d.times(2, h, 0, 1, None))),)


@dataclass(frozen=True)
class _Layer:
    step: Step
    gates: int
    apart: int
    """Gates from the last whose bias of the state is not added to that of the input."""
    activations: tuple[str, ...]
    states: int


_LAYERS = {
    "LSTM": _Layer(_lstm, 4, 0, ("Sigmoid", "Tanh", "Tanh"), 2),
    "GRU": _Layer(_gru, 3, 1, ("Sigmoid", "Tanh"), 1),
    "RNN": _Layer(_rnn, 1, 0, ("Tanh",), 1),
}


def _read(r: Reading) -> Result:
    """Y [T, D, N, H] and the states at the end, [D, N, H] each (batch first where so laid out)."""
    layer = _LAYERS[r.proto.op_type]
    _refuse(r)
    time = 1 if r.attribute("layout", 0) else 0
    directions = list(_directions(r, layer, _steps(r, time)))
    sequences: list[Tensor] = []
    ends: list[State] = []
    for direction, is_back in directions:
        outputs, state = _run(direction, layer, time, is_back)
        sequences.append(_stacked(r, outputs, time))
        ends.append(state)
    axis = 2 if time else 1
    whole = r.joined([r.unary("unsqueeze", y, axes=(axis,)) for y in sequences], axis)
    last = [_stacked(r, list(states), time) for states in zip(*ends, strict=True)]
    return [whole, *last]


def _steps(r: Reading, time: int) -> int:
    steps = r.extent(r.shape(0)[time])
    if r.has(4) and any(length != steps for length in r.sizes(4)):
        raise ReadError(f"sequences shorter than the input's {steps} steps are not supported")
    return steps


def _refuse(r: Reading) -> None:
    """Limits of the sums, coupled gates and activations with parameters of their own."""
    for name in ("clip", "input_forget", "activation_alpha", "activation_beta"):
        if r.attribute(name):
            raise ReadError(f"{name} is not supported")


def _directions(r: Reading, layer: _Layer, steps: int) -> Iterator[tuple[_Direction, bool]]:
    way = r.attribute("direction", "forward")
    if way not in ("forward", "reverse", "bidirectional"):
        raise ReadError(f"there is no direction {way}")
    count = 2 if way == "bidirectional" else 1
    if count * steps > MOST_STEPS:
        raise ReadError(f"{count * steps} steps are not written out; at most {MOST_STEPS} are")
    hidden = shape_of(r[2])[2]
    each = len(layer.activations)
    given = [str(name) for name in r.attribute("activations") or layer.activations * count]
    names = [name.lower() for name in given]
    if not {*names} <= {*_ACTIVATIONS} or len(names) != each * count:
        raise ReadError(f"activations {', '.join(given)} are not supported")
    for number in range(count):
        own = tuple(names[number * each : (number + 1) * each])
        yield _Direction(r, number, r.extent(hidden), own), way == "reverse" or number == 1


def _run(d: _Direction, layer: _Layer, time: int, is_back: bool) -> tuple[list[Tensor], State]:
    """The outputs of all steps in their order in time, and the state at the end."""
    r, gates = d.r, layer.gates
    bias = _summed(d, layer) if r.has(3) else None
    x = d.times(1, r[0], 0, gates, bias)
    steps = range(r.extent(shape_of(x)[time]))
    parts = [_at(r, x, time, step) for step in steps]
    state = tuple(_start(d, 5 + i, time) for i in range(layer.states))
    outputs: list[Tensor] = []
    for part in reversed(parts) if is_back else parts:
        state = layer.step(d, part, state)
        assert state[0] is not None
        outputs.append(state[0])
    return outputs[::-1] if is_back else outputs, state


def _summed(d: _Direction, layer: _Layer) -> Tensor:
    """The bias of the input, with that of the state where both are added at once."""
    of_x, of_h = d.weight(3, 0, layer.gates), d.weight(3, layer.gates, layer.gates)
    together = (layer.gates - layer.apart) * d.hidden
    if isinstance(of_x, Known) and isinstance(of_h, Known):
        added = of_h.array.copy()
        added[together:] = 0
        return Known(of_x.array + added, of_x.name)
    if layer.apart:
        first = d.r.unary("slice", of_h, axes=(0,), start=(0,), stop=(together,), step=(1,))
        rest = d.r.like(np.zeros(layer.apart * d.hidden), of_h)
        of_h = d.r.joined([first, rest], 0)
    return d.r.binary("add", of_x, of_h)


def _start(d: _Direction, index: int, time: int) -> Tensor | None:
    """The state before the first step, [N, H]."""
    if not d.r.has(index):
        return None
    given = d.r[index]
    if isinstance(given, Known):
        own = given.array[:, d.number] if time else given.array[d.number]
        return Known(own, given.name) if np.any(own) else None
    return _at(d.r, given, 1 if time else 0, d.number)


def _at(r: Reading, x: Tensor, axis: int, position: int) -> Tensor:
    """What is at one position of an axis, without it."""
    part: dict[str, Any] = {"start": (position,), "stop": (position + 1,), "step": (1,)}
    whole = shape_of(x)[axis] == 1
    return r.unary(
        "squeeze", x if whole else r.unary("slice", x, axes=(axis,), **part), axes=(axis,)
    )


def _stacked(r: Reading, tensors: list[Any], axis: int) -> Tensor:
    return r.joined([r.unary("unsqueeze", x, axes=(axis,)) for x in tensors], axis)


ROWS: tuple[Row, ...] = ()

READING = {kind: Read(_read, deciding=(4,)) for kind in _LAYERS}
"""Kinds of nodes that are many operators of ours."""
