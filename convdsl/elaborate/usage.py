"""Names that are bound and never read: what the text says, whatever its parameters are.

A binding is read where some use of its name can see it: the bodies of an `if` are ways that meet
again, and a round of a loop reads what the round before has bound. A body inside a chain that `let`
keeps runs where the chain is applied, so its names count for every binding of theirs. A name that
begins with `_` says that nobody is meant to read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate.session import Session
from convdsl.syntax import ast
from convdsl.syntax.walk import fields_of

MEETING = 64
"""Bindings that may meet in one name; where more do, none of them is suspected."""

_KEEP = "leave it out, or call it `_{}` if that is on purpose"
_PART = "call it `_{}`: what is not needed has a `_` before its name"
_IMPORT = "leave it out, or write `{0} as _{0}` if that is on purpose"
_LOOP = "write `repeat`, or call it `_{}` if that is on purpose"
_COUNTED = "leave `enumerate` out, or call it `_{}` if that is on purpose"
_AGAIN = "use it before, give the second another name, or call the first `_{}`"


@dataclass(slots=True, eq=False)
class Binding:
    """A name bound somewhere. `says` is what is wrong where nothing reads it, `help` what to do."""

    name: ast.Name
    says: str
    statement: Span
    help: str = _KEEP
    read: bool = False
    again: Span | None = None  # where it was bound anew, unread


@dataclass(slots=True, eq=False)
class Ways:
    """The bindings that a name may mean at some place; `before` holds what a body has not bound."""

    before: Ways | None = None
    names: dict[str, tuple[Binding, ...]] = field(default_factory=dict[str, Any])

    def find(self, name: str) -> tuple[Binding, ...]:
        ways: Ways | None = self
        while ways is not None:
            if name in ways.names:
                return ways.names[name]
            ways = ways.before
        return ()

    def meet(self, bodies: Iterable[Ways]) -> None:
        """Go on after one of several bodies, each of which began here."""
        several = list(bodies)
        for name in {name: None for body in several for name in body.names}:
            found = tuple(dict.fromkeys(b for body in several for b in body.find(name)))
            if len(found) > MEETING:
                for binding in found:
                    binding.read = True
            self.names[name] = found[-MEETING:]


@dataclass(slots=True)
class Usage:
    """What a file binds. `meant` are the statements that bind or put out a name with `_`,
    `carried` those that bind what the round of a loop after them reads, `suspected` bindings that
    nothing reads."""

    bindings: list[Binding] = field(default_factory=list[Binding])
    inputs: dict[str, Binding] = field(default_factory=dict[str, Binding])  # of the chosen model
    meant: list[Span] = field(default_factory=list[Span])
    carried: list[Span] = field(default_factory=list[Span])

    @property
    def suspected(self) -> list[Binding]:
        return [b for b in self.bindings if not b.read and not b.name.id.startswith("_")]


def check_usage(session: Session, tree: ast.File, chosen: ast.Model | None) -> Usage:
    """Warn of names in a file that are bound and never read."""
    usage = Usage()
    read = _Reader(usage).file(tree, chosen)
    if any(isinstance(item, ast.Model) for item in tree.items):
        usage.bindings += [b for b in _of_the_file(tree) if b.name.id not in read]
    for binding in sorted(usage.suspected, key=lambda b: b.name.span.start):
        name = binding.name.id
        if binding.again is None:
            text, help, notes = binding.says.format(name), binding.help, ()
        else:
            text, help = f"`{name}` is bound again before anything uses it", _AGAIN
            notes = ((binding.again, "bound again here"),)
        session.warn("W0201", text, binding.name.span, *notes, help=(help.format(name),))
    return usage


def _of_the_file(tree: ast.File) -> Iterator[Binding]:
    """Values and imports, which blocks and models may read in any order."""
    for item in tree.items:
        if isinstance(item, ast.Let):
            for name in item.targets:
                yield Binding(name, "`{}` is never used", item.span, _help(item))
        elif isinstance(item, ast.Use):
            for imported in item.names:
                name = imported.alias or imported.name
                says = "`{}` is imported and never used"
                help = _IMPORT if imported.alias is None else _KEEP
                yield Binding(name, says, item.span, help)


class _Reader:
    """Walks a file in the order of evaluation."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._free: set[str] = set()  # read, and not bound in the same definition
        self._rounds: list[set[str]] = [set()]  # names read in each loop around
        self._later: set[str] = set()  # read whenever a chain is applied
        self._kept = False  # inside the value of a `let`
        self._own: list[Binding] = []
        self._sizes: list[tuple[Binding, ...]] = []  # of one tensor, told apart by position

    def file(self, tree: ast.File, chosen: ast.Model | None) -> set[str]:
        """The names of the file's own that something reads."""
        for item in tree.items:
            if isinstance(item, ast.Block | ast.Model):
                self._definition(item, item is chosen)
            elif isinstance(item, ast.Let):
                self._walk(item.value, Ways())
            elif not isinstance(item, ast.Use):
                self._walk(item, Ways())
        return self._free

    def _definition(self, item: ast.Block | ast.Model, is_chosen: bool) -> None:
        ways, self._own, self._later, self._sizes = Ways(), [], set(), []
        for parameter in item.parameters:
            if parameter.default is not None:
                self._walk(parameter.default, ways)
            says = f"the parameter `{{}}` of `{item.name.id}` is never used"
            self._bind(parameter.name, says, parameter.span, ways)
        body = item.body.statements
        inputs = [s for s in body if isinstance(s, ast.Input)]
        alone = sum(len(s.names) for s in inputs) < 2
        for statement in body:
            self._walk(statement, ways)
            if isinstance(statement, ast.Input):
                self._inputs(statement, item, ways, alone, is_chosen)
        if not any(map(_gives_a_result, body)):
            self._read("out", ways)
        for sizes in self._sizes:
            if any(size.read for size in sizes):  # the others stand for their positions
                for size in sizes:
                    size.read = True
        for binding in self._own:
            binding.read = binding.read or binding.name.id in self._later
        self._usage.bindings += self._own

    def _inputs(
        self,
        statement: ast.Input,
        item: ast.Block | ast.Model,
        ways: Ways,
        alone: bool,
        is_chosen: bool,
    ) -> None:
        """A model's are judged by its graph, and a block's only one is `in` as well."""
        says = f"the input `{{}}` of `{item.name.id}` is never used"
        for name in statement.names:
            binding = Binding(name, says, statement.span)
            ways.names[name.id] = (binding,)
            if is_chosen:
                self._usage.inputs[name.id] = binding
            if isinstance(item, ast.Block) and not alone:
                self._own.append(binding)
        for extent in statement.type.extents if statement.type is not None else ():
            if isinstance(extent, ast.Name):
                ways.names.setdefault(extent.id, ())

    def _bind(
        self, name: ast.Name, says: str, statement: Span, ways: Ways, help: str = _KEEP
    ) -> None:
        for binding in ways.find(name.id):
            if not binding.read and binding.again is None:
                binding.again = name.span
        made = Binding(name, says, statement, help)
        ways.names[name.id] = (made,)
        self._own.append(made)
        if name.id.startswith("_"):
            self._usage.meant.append(statement)

    def _read(self, name: str, ways: Ways) -> None:
        found = ways.find(name)
        for binding in found:
            binding.read, binding.again = True, None
        if not found:
            self._free.add(name)
        self._rounds[-1].add(name)

    # Nodes

    def _walk(self, node: Any, ways: Ways) -> None:
        kind = type(node)  # pyright: ignore[reportUnknownVariableType]
        if kind is tuple:
            for part in node:
                self._walk(part, ways)
        elif kind in _SPECIAL:
            self._special(node, ways)
        else:
            for name in fields_of(kind):  # pyright: ignore[reportUnknownArgumentType]
                self._walk(getattr(node, name), ways)

    def _special(self, node: Any, ways: Ways) -> None:
        """Nodes that bind, and those of which not all parts are looked at."""
        match node:
            case ast.Name():
                self._read(node.id, ways)
            case ast.Let() | ast.Assign():
                self._binding(node, ways)
            case ast.Conditional():
                self._conditional(node, ways)
            case ast.Loop() | ast.Repetition():
                self._loop(node, ways)
            case ast.Argument() | ast.Setting():
                self._walk(node.value, ways)
            case ast.Member():
                self._walk(node.object, ways)
            case ast.DefaultEntry():
                self._walk(node.arguments, ways)
            case ast.Preprocess():
                self._walk(node.steps, ways)
            case ast.Input():
                self._walk((node.type and node.type.extents, node.constraints), ways)
            case ast.Train():
                self._walk(node.settings, ways)
            case ast.Chain():
                self._walk((node.head, node.stages), ways)
                if isinstance(sink := node.stages[-1], ast.Sink):
                    self._put_out(sink.label, node.span)
            case ast.Output():
                self._walk((node.label, node.value), ways)
                self._put_out(node.label, node.span)
            case _:
                raise AssertionError(f"{node} is in _SPECIAL alone")

    def _put_out(self, label: ast.Text, statement: Span) -> None:
        """A result whose name begins with `_` may be one that no caller takes."""
        if str(label.parts[0] if label.parts else "").startswith("_"):
            self._usage.meant.append(statement)

    def _binding(self, node: ast.Let | ast.Assign, ways: Ways) -> None:
        before, self._kept = self._kept, isinstance(node, ast.Let)
        self._walk(node.value, ways)
        self._kept = before
        tensor = isinstance(node, ast.Assign)
        says = "`{}` is bound and never used" if tensor else "`{}` is never used"
        own = len(self._own)
        for name in node.targets:
            self._bind(name, says, node.span, ways, _help(node))
            self._own[-1].read = _gives_a_result(node)
        if isinstance(node.value, ast.Member) and node.value.name.id in ("shape", "space"):
            self._sizes.append(tuple(self._own[own:]))

    def _conditional(self, node: ast.Conditional, ways: Ways) -> None:
        bodies: list[Ways] = []
        for condition, body in node.branches:
            self._walk(condition, ways)
            bodies.append(self._body(body, Ways(ways)))
        otherwise = Ways(ways)
        bodies.append(
            otherwise if node.otherwise is None else self._body(node.otherwise, otherwise)
        )
        ways.meet(bodies)

    def _loop(self, node: ast.Loop | ast.Repetition, ways: Ways) -> None:
        round = Ways(ways)
        self._rounds.append(set())
        if isinstance(node, ast.Loop):
            self._walk(node.iterable, ways)
            for place, name in enumerate(node.targets):
                says = "no round of the loop uses `{}`"
                counts = place == 0 and _calls(node.iterable, "enumerate")
                help = _COUNTED if counts else _LOOP
                self._bind(name, says, node.iterable.span, round, help)
                self._own[-1].read = _calls(node.iterable, "range")
        else:
            self._walk(node.count, ways)
        self._body(node.body, round)
        inside = self._rounds.pop()
        for name in inside & round.names.keys():  # by the round that follows
            self._read(name, round)
            self._usage.carried += [binding.statement for binding in round.find(name)]
        self._rounds[-1] |= inside
        ways.meet((Ways(ways), round))

    def _body(self, body: ast.Body, ways: Ways) -> Ways:
        before = self._rounds[-1]
        self._rounds[-1] = set()
        self._walk(body.statements, ways)
        if self._kept:
            self._later |= self._rounds[-1]
        self._rounds[-1] |= before
        return ways


_SPECIAL = frozenset(
    (ast.Name, ast.Let, ast.Assign, ast.Conditional, ast.Loop, ast.Repetition, ast.Argument,
     ast.Setting, ast.Member, ast.DefaultEntry, ast.Preprocess, ast.Input, ast.Train, ast.Chain,
     ast.Output)
)  # fmt: skip


def _help(node: ast.Let | ast.Assign) -> str:
    """What to do about a name that is not used: one of several stands for its part."""
    return _KEEP if len(node.targets) == 1 else _PART


def _calls(iterable: ast.Expression, function: str) -> bool:
    """Whether a loop runs over a call of a function: over `range` its variable may go unread."""
    callee = iterable.callee if isinstance(iterable, ast.Call) else None
    return isinstance(callee, ast.Name) and callee.id == function


def _gives_a_result(statement: ast.Statement | ast.Let) -> bool:
    """Whether a statement declares an output, so that `out` is a name as any other."""
    match statement:
        case ast.Output():
            return True
        case ast.Evaluation(value=value) | ast.Assign(value=value):
            return isinstance(value, ast.Chain) and isinstance(value.stages[-1], ast.Sink)
        case _:
            return False
