"""Drawn nodes of sequences: recurrent layers, and sequences turned round."""

from __future__ import annotations

from typing import Any

import numpy as np
from op_cases.draw import Draw

from interop.drawn_node import Generator, Node, floats

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
RELUS = {"LSTM": ["Sigmoid", "Relu", "Tanh"], "GRU": ["Sigmoid", "Relu"], "RNN": ["Relu"]}


def recurrent(kind: str, d: Draw, opset: int) -> Node:
    """With or without bias, lengths, peepholes and states to begin with, known or given."""
    way = d.pick("forward", "reverse", "bidirectional")
    count, gates = 2 if way == "bidirectional" else 1, GATES[kind]
    steps, batch, size, hidden = (d.integer(1, 5) for _ in range(4))
    turned = opset >= 14 and d.chance(0.2)  # batch first
    operands: dict[str, Any] = {
        "x": floats(d, (batch, steps, size) if turned else (steps, batch, size)),
        "w": floats(d, (count, gates * hidden, size), -1, 1),
        "r": floats(d, (count, gates * hidden, hidden), -1, 1),
        "b": floats(d, (count, 2 * gates * hidden), -1, 1) if d.chance(0.7) else None,
        "lengths": np.full(batch, steps, "i4") if d.chance(0.3) else None,
    }
    states = ["h", "c"] if kind == "LSTM" else ["h"]
    has_states, lie = d.chance(), (batch, count, hidden) if turned else (count, batch, hidden)
    operands |= {name: floats(d, lie, -1, 1) if has_states else None for name in states}
    if kind == "LSTM":
        operands["p"] = floats(d, (count, 3 * hidden), -1, 1) if d.chance(0.3) else None
    how: dict[str, Any] = {"hidden_size": hidden, "direction": way}
    how |= {"layout": 1} if turned else {}
    if kind == "GRU":
        how["linear_before_reset"] = d.integer(0, 1)
    if d.chance(0.3) and not turned:  # of which the reference evaluator knows no others
        how["activations"] = RELUS[kind] * count
    stored = ("w", "r", "b", "lengths", "p") if d.chance(0.7) else ("lengths",)
    known = tuple(name for name in stored if operands.get(name) is not None)
    return Node(kind, operands, how, known, outputs=1 + len(states))


def reversed_sequence(kind: str, d: Draw, opset: int) -> Node:
    time, batch = d.pick((0, 1), (1, 0))
    x = floats(d, d.shape(d.integer(2, 4), 1, 6))
    steps, samples = x.shape[time], x.shape[batch]
    alike = d.chance()
    lengths = (
        [d.integer(1, steps)] * samples if alike else [d.integer(1, steps) for _ in range(samples)]
    )
    how = {"time_axis": time, "batch_axis": batch}
    return Node(kind, {"x": x, "lengths": np.asarray(lengths)}, how, ("lengths",))


GENERATORS: dict[str, Generator] = {
    **dict.fromkeys(GATES, recurrent),
    "ReverseSequence": reversed_sequence,
}
