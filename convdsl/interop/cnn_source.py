"""A graph as `.cnn` text: scopes by the layers' names, equal scopes as blocks, runs as loops.

The text says what the graph holds, with the same weight keys where names form a tree, in which
every scope has one way in; otherwise dots in names become underscores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convdsl.interop.cnn_model import flat_keys, sayable
from convdsl.interop.cnn_terms import (
    Hole,
    Segment,
    arguments,
    computed_weights,
    fixed_weight,
    infix,
    names_sizes,
    operand_text,
    preprocessing_text,
    shared_defaults,
    starts,
)
from convdsl.interop.cnn_tree import Item, Scope, Untidy, tree
from convdsl.ir.graph import OpNode, Value
from convdsl.ir.model import Model
from convdsl.ops import SPELLINGS
from convdsl.syntax.format import laid_out
from convdsl.syntax.words import KEYWORDS
from convdsl.tensor import Symbol, TensorType

INDENT = "    "
WIDTH = 96


def source(model: Model, labels: str | None = None) -> tuple[str, dict[str, Any]]:
    """The text, and the weights under the keys that it makes. Raises InputError.

    `labels` is the file, beside the text, that will hold the class names.
    """
    model = sayable(model)
    weights = dict(model.weights or {})
    try:
        return _Writer(model, labels, flat=False).text(), weights
    except Untidy:
        text = _Writer(model, labels, flat=True).text()
        keys = flat_keys(model.graph)
        return text, {keys[key]: array for key, array in weights.items()}


def said(model: Model) -> Model:
    """The network as its text has it: with the names and weights that the text makes."""
    model = sayable(model)
    try:
        tree(model.graph, flat=False)
    except Untidy:
        keys = flat_keys(model.graph)
        for key, state in model.graph.states.items():
            state.name = keys.get(key, key)
    return model


@dataclass
class _Line:
    """One statement: its words, and how deep it stands."""

    depth: int
    segments: list[Segment]


@dataclass
class _Body:
    """A scope's statements. `key` is equal for bodies that differ in numbers only."""

    lines: list[_Line] = field(default_factory=list)

    @property
    def holes(self) -> list[Hole]:
        return [s for line in self.lines for s in line.segments if isinstance(s, Hole)]

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(
            (line.depth, tuple(s.name if isinstance(s, Hole) else ("", s) for s in line.segments))
            for line in self.lines
        )

    def say(self, lead: str, chain: list[list[Segment]], depth: int) -> None:
        """A chain of terms as a statement, on as many lines as it asks for."""
        for number, line in enumerate(_wrapped(chain, len(lead) + len(INDENT) * depth)):
            words: list[Segment] = [lead if number == 0 else " " * len(lead), *line]
            self.lines.append(_Line(depth, words))


@dataclass
class _Block:
    """A block: parameters, each for the holes that always hold the same as each other."""

    name: str
    body: _Body
    parameters: dict[str, list[int]]  # by name, the numbers of its holes

    def call(self, body: _Body) -> list[Segment]:
        segments: list[Segment] = [f"{self.name}"]
        holes = body.holes
        for position, (name, numbers) in enumerate(self.parameters.items()):
            segments += ["(" if position == 0 else ", ", Hole(name, holes[numbers[0]].text)]
        return [*segments, ")"] if self.parameters else segments

    def text(self) -> str:
        by_hole = {n: name for name, numbers in self.parameters.items() for n in numbers}
        number = 0
        lines: list[str] = []
        for line in self.body.lines:
            words: list[str] = []
            for segment in line.segments:
                if isinstance(segment, Hole):
                    words.append(by_hole.get(number, segment.text))
                    number += 1
                else:
                    words.append(segment)
            lines.append(INDENT * (line.depth + 1) + "".join(words))
        head = f"({', '.join(self.parameters)})" if self.parameters else ""
        return "\n".join([f"block {self.name}{head} {{", *lines, "}"])


class _Writer:
    def __init__(self, model: Model, labels: str | None, flat: bool) -> None:
        self.model, self.flat = model, flat
        root = tree(model.graph, flat)
        self.labels = labels
        self.root = root
        self.blocks: dict[tuple[Any, ...], _Block] = {}
        self.taken = {*KEYWORDS, *SPELLINGS, "in", "out", model.name}
        self.said: list[str] = []  # outputs that a chain led to
        self.sinks = True  # whether chains lead to outputs
        self.defaults = shared_defaults(model.graph)
        self.layers: dict[OpNode, str] = {}  # the first calls of those that are called again

    def text(self) -> str:
        names = {value: name for name, value in self.model.graph.inputs.items()}
        shared = self._shared_layers()
        self._collect(self.root)
        body = _Body()
        free = self._free()
        self._write(self.root, dict(names), free, body, 0)
        if self.said != list(self.model.graph.outputs)[: len(self.said)]:
            self.said, self.sinks = [], False  # outputs are said last, in their order
            body = _Body()
            self._write(self.root, names, self._free(), body, 0)
        lines = [INDENT + "".join(_plain(s) for s in line.segments) for line in _deep(body)]
        head = _inputs(self.model.inputs)
        if self.model.preprocessing is not None:
            head.append(INDENT + preprocessing_text(self.model.preprocessing))
        if self.labels is not None:
            head.append(f'{INDENT}labels "{self.labels}"')
        head += [INDENT + line for line in shared]
        blocks = [block.text() for block in self.blocks.values()]
        whole = "\n".join([f"model {self.model.name} {{", *head, *lines, "}"])
        first = "\n".join(["convdsl 1", *(f"default {text}" for text in self.defaults.values())])
        text = "\n\n".join([first, *blocks, whole]) + "\n"
        return laid_out(text)

    def _free(self) -> _Names:
        """Names that statements of the model may take."""
        graph = self.model.graph
        return _Names({*graph.inputs, *graph.outputs, *self.layers.values(), *KEYWORDS})

    def _shared_layers(self) -> list[str]:
        """A `let` for each layer that is called more than once."""
        taken = {*self.taken, *self.model.graph.inputs, *self.model.graph.outputs}
        lines: list[str] = []
        for leaf in self.root.leaves():
            first = leaf.layer
            if first is None or first in self.layers:
                continue
            label = first.name.replace(".", "_") if self.flat else first.name
            wanted = re.sub(r"\W", "_", label)
            name, _ = _unused(wanted if wanted[0].isalpha() else f"w{wanted}", taken)
            taken.add(name)
            self.layers[first] = name
            term = _call(first, leaf.flow, {}, label, self.defaults)
            lines.append(f"let {name} = {''.join(map(_plain, term))}")
        self.taken |= set(self.layers.values())
        return lines

    # Blocks

    def _collect(self, scope: Scope) -> None:
        """Render every scope, innermost first; those that occur twice become blocks."""
        scopes = sorted(scope.descendants(), key=lambda s: s.height)
        for height in sorted({s.height for s in scopes}):
            found: dict[tuple[Any, ...], list[tuple[Scope, _Body]]] = {}
            for inner in (s for s in scopes if s.height == height):
                if any(names_sizes(leaf.node) or leaf.layer for leaf in inner.leaves()):
                    continue
                body = self._body(inner)
                found.setdefault(body.key, []).append((inner, body))
            for key, members in found.items():
                if len(members) > 1:
                    self._make_block(key, members)

    def _make_block(self, key: tuple[Any, ...], members: Sequence[tuple[Scope, _Body]]) -> None:
        columns = list(zip(*([h.text for h in body.holes] for _, body in members), strict=True))
        holes = members[0][1].holes
        parameters: dict[str, list[int]] = {}
        by_column: dict[tuple[str, ...], str] = {}
        for number, column in enumerate(columns):
            if len(set(column)) == 1:
                continue
            if column not in by_column:
                by_column[column] = _unused(holes[number].name, {*parameters, *self.taken, "in"})[0]
                parameters[by_column[column]] = []
            parameters[by_column[column]].append(number)
        name = _unused(members[0][0].title, self.taken)[0]
        self.taken.add(name)
        self.blocks[key] = _Block(name, members[0][1], parameters)

    def _body(self, scope: Scope, free: _Names | None = None) -> _Body:
        """A scope's statements; where they stand amid others, with names that are `free` there."""
        body = _Body()
        names = {scope.entry: "in"}
        self._write(scope, names, free or _Names({"in", "out", *KEYWORDS}), body, 0)
        return body

    # Statements

    def _write(
        self, scope: Scope, names: dict[Value, str], free: _Names, body: _Body, depth: int
    ) -> None:
        """The statements of a scope; its exit is the last one, an expression."""
        chain: list[list[Segment]] = []
        tip: Value | None = None
        for item in scope.items:
            flows = tip is not None and item.flow is tip and scope.uses(tip) == 1
            if not flows:
                self._flush(scope, chain, tip, names, free, body, depth)
                chain = []
            if flows and chain:
                chain.append(self._term(item, names, free))
            else:
                chain = self._start(item, names, free)
            tip = item.exit
            if len(item.outputs) > 1:
                self._split(chain, item, names, free, body, depth)
                chain, tip = [], None
        if chain:
            is_result = scope is not self.root and scope.ends_in_result
            self._flush(scope, chain, tip, names, free, body, depth, is_result=is_result)
        if scope is not self.root and not scope.ends_in_result:
            left = ", ".join(names[value] for value in scope.exit_values)
            body.lines.append(_Line(depth, [left if len(scope.exit_values) == 1 else f"[{left}]"]))
        if scope is self.root:
            for name, value in self.model.graph.outputs.items():
                if name not in self.said:
                    body.lines.append(_Line(0, [f"{names[value]} -> output {name}"]))

    def _start(self, item: Item, names: Mapping[Value, str], free: _Names) -> list[list[Segment]]:
        term = self._term(item, names, free)
        return [term] if item.flow is None else [[names[item.flow]], term]

    def _flush(
        self,
        scope: Scope,
        chain: list[list[Segment]],
        tip: Value | None,
        names: dict[Value, str],
        free: _Names,
        body: _Body,
        depth: int,
        is_result: bool = False,
    ) -> None:
        if not chain or tip is None:
            return
        lead = ""
        sink = self._only_output(tip) if scope is self.root and self.sinks else None
        if sink is not None:
            self.said.append(sink)
            chain = [*chain, [f"output {sink}"]]
        elif not is_result:
            names[tip] = free.next(tip)
            lead = f"{names[tip]} = "
        body.say(lead, _loops(chain), depth)

    def _only_output(self, value: Value) -> str | None:
        """The model output that a value is, if it is nothing else."""
        graph = self.model.graph
        found = [name for name, output in graph.outputs.items() if output is value]
        return found[0] if len(found) == 1 and not graph.users(value) else None

    def _split(
        self,
        chain: list[list[Segment]],
        item: Item,
        names: dict[Value, str],
        free: _Names,
        body: _Body,
        depth: int,
    ) -> None:
        for value in item.outputs:
            names[value] = free.next(value)
        body.say(f"{', '.join(names[value] for value in item.outputs)} = ", chain, depth)

    def _term(self, item: Item, names: Mapping[Value, str], free: _Names) -> list[Segment]:
        if isinstance(item, Scope):
            return self._scope_term(item, free)
        if item.layer is not None:
            return [self.layers[item.layer]]
        return _call(item.node, item.flow, names, item.label, self.defaults)

    def _scope_term(self, scope: Scope, free: _Names) -> list[Segment]:
        body = self._body(scope)
        block = self.blocks.get(body.key)
        if block is not None:
            return [*block.call(body), f" as {_label(scope.label)}"]
        body = self._body(scope, free)
        words: list[Segment] = [f"scope {_label(scope.label)} {{"]
        for line in body.lines:
            words += ["\n" + INDENT * (line.depth + 1), *line.segments]
        return [*words, "\n}"]


class _Names:
    """Names for values, after the operators that make them."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = set(taken)
        self._counts: dict[str, int] = {}  # of names that were wanted before

    def next(self, value: Value) -> str:
        node = value.node
        wanted = node.op.name if isinstance(node, OpNode) else "x"
        wanted = {"add": "total", "concat": "joined"}.get(wanted, f"{wanted}_out")
        if isinstance(node, OpNode) and node.op.name == "parameter":
            wanted = re.sub(r"\W", "_", node.name)
        wanted = wanted if wanted[0].isalpha() else f"w{wanted}"
        name, self._counts[wanted] = _unused(wanted, self.taken, self._counts.get(wanted, 0))
        self.taken.add(name)
        return name


def _call(
    node: OpNode,
    flow: Value | None,
    names: Mapping[Value, str],
    label: str | None,
    defaults: Mapping[str, str],
) -> list[Segment]:
    """`conv(64, 3x3) as conv1`, `a + b`, `concat(a, b)`."""
    sign = infix(node)
    if sign is not None:
        left, right = (operand_text(value, names) for value in node.inputs.values())
        return [f"{left} {sign} {right}"]
    given: list[Segment] = []
    for value in node.data_inputs:
        if value is not flow:
            given += [", ", operand_text(value, names)] if given else [operand_text(value, names)]
    fixed = fixed_weight(node)
    said = [*arguments(node, node.op.name in defaults), *([fixed] if fixed else []), *starts(node)]
    said += computed_weights(node, names)
    for argument in said:
        given += [", ", *argument] if given else argument
    words: list[Segment] = [node.op.aliases[0] if node.op.name in _SHORT else node.op.name]
    if given:
        words += ["(", *given, ")"]
    return [*words, f" as {_label(label)}"] if label else words


_SHORT = {"batch_norm", "max_pool", "avg_pool"}


def _loops(chain: list[list[Segment]]) -> list[list[Segment]]:
    """Stages that differ in a running number only, as one loop."""
    result: list[list[Segment]] = []
    position = 0
    while position < len(chain):
        end, first = position, _numbered(chain[position])
        while (
            first is not None
            and end + 1 < len(chain)
            and _numbered(chain[end + 1]) == (first[0], first[1] + end + 1 - position)
        ):
            end += 1
        if first is not None and end > position + 1:
            span = (
                f"{first[1]}, {first[1] + end - position + 1}"
                if first[1]
                else f"{end - position + 1}"
            )
            result.append([f'for i in range({span}) {{ {first[0]} as "{{i}}" }}'])
            position = end + 1
        else:
            result.append(chain[position])
            position += 1
    return result


def _numbered(term: Sequence[Segment]) -> tuple[str, int] | None:
    """(`bottleneck(64)`, 3) of `bottleneck(64) as "3"`."""
    found = re.fullmatch(r'([^\n]*) as "(\d+)"', "".join(_plain(s) for s in term))
    return (found[1], int(found[2])) if found else None


def _wrapped(chain: list[list[Segment]], lead: int) -> list[list[Segment]]:
    """Stages joined by arrows, broken before an arrow where a line grows long."""
    lines: list[list[Segment]] = [[]]
    length = lead
    for number, term in enumerate(chain):
        size = sum(len(_plain(s)) for s in term) + 4
        if number and length + size > WIDTH and lines[-1]:
            lines.append(["    -> ", *term])
            length = lead + 7 + size
        else:
            lines[-1] += [" -> ", *term] if number else term
            length += size
    return lines


def _deep(body: _Body) -> list[_Line]:
    """Lines of text that hold line breaks are indented as one."""
    lines: list[_Line] = []
    for line in body.lines:
        text = "".join(_plain(s) for s in line.segments)
        lines += [_Line(0, [INDENT * line.depth + part]) for part in text.split("\n")]
    return lines


def _plain(segment: Segment) -> str:
    return segment.text if isinstance(segment, Hole) else segment


def _label(name: str | None) -> str:
    """A plain word, or quoted."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name or "") and name not in KEYWORDS
    return str(name) if plain else f'"{name}"'


def _inputs(types: Mapping[str, TensorType]) -> list[str]:
    """Each with what holds of the sizes that are new in it."""
    lines: list[str] = []
    known: set[Symbol] = set()
    for name, type in types.items():
        symbols = sorted(type.symbols() - known, key=str)
        known.update(symbols)
        limits = [text for s in symbols for text in _limits(s)]
        where = f" where {' and '.join(limits)}" if limits else ""
        lines.append(f"{INDENT}input {name}: {type}{where}")
    return lines


def _limits(s: Symbol) -> list[str]:
    found = [f"{s.name} % {s.divisor} == {s.remainder}"] if s.divisor > 1 else []
    found += [f"{s.name} >= {s.minimum}"] if s.minimum > 1 and s.minimum != s.divisor else []
    return found + ([f"{s.name} <= {s.maximum}"] if s.maximum is not None else [])


def _unused(wanted: str, taken: set[str], count: int = 0) -> tuple[str, int]:
    """The first name like `wanted` that is free, and which it is; those up to `count` are taken."""
    while True:
        count += 1
        number = f"{count}" if not wanted[-1].isdigit() else f"_{count}"
        name = wanted if count == 1 else f"{wanted}{number}"
        if name not in taken:
            return name, count
