"""Syntax tree nodes from grammar rules: one method per rule of grammar/convdsl.lark."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from convdsl.diagnostics import CompileError, Diagnostic, Label, SourceFile, Span
from convdsl.syntax import ast, limits

ParseExpression = Callable[[str, int], ast.Expression]
Children = Sequence[Any]

ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t", "{": "{", "}": "}"}


_SIGNS = ("+", "-", "=", "!", "<", ">")
_DOUBLED = re.compile(r"\+\+|--|=\+")


def _flat(children: Children) -> tuple[Any, ...]:
    return tuple(child for child in children if child is not None)


def _pairs(children: Children) -> tuple[tuple[str, ast.Expression], ...]:
    return tuple((str(children[i]), children[i + 1]) for i in range(1, len(children), 2))


class Builder:
    """Called bottom-up with a rule's span and its children (tokens are strings)."""

    def __init__(self, source: SourceFile, parse_expression: ParseExpression) -> None:
        self._source = source
        self._parse_expression = parse_expression

    # Leaves

    def name(self, span: Span, children: Children) -> ast.Name:
        return ast.Name(span, str(children[0]))

    def incoming(self, span: Span, children: Children) -> ast.Incoming:
        return ast.Incoming(span)

    def true(self, span: Span, children: Children) -> ast.Literal:
        return ast.Literal(span, True)

    def false(self, span: Span, children: Children) -> ast.Literal:
        return ast.Literal(span, False)

    def integer(self, span: Span, children: Children) -> ast.Literal:
        return ast.Literal(span, self._integer(span, str(children[0])))

    def floating(self, span: Span, children: Children) -> ast.Literal:
        value = float(children[0])
        if value in (float("inf"), float("-inf")):
            raise _error("E0106", f"{span.text} is too large for a number", span)
        return ast.Literal(span, value)

    def size(self, span: Span, children: Children) -> ast.Literal:
        parts = str(children[0]).split("x")
        if len(parts) > 16:
            raise _error("E0106", f"a size of {len(parts)} axes; at most 16 make sense", span)
        return ast.Literal(span, tuple(self._integer(span, part) for part in parts))

    def _integer(self, span: Span, digits: str) -> int:
        if len(digits) <= 40:
            value = int(digits)
            if value.bit_length() <= limits.INTEGER_BITS:
                return value
        raise _error("E0106", f"a number of {len(digits)} digits does not fit 64 bits", span)

    def string(self, span: Span, children: Children) -> ast.Text:
        return self._text(span, str(children[0]))

    def label(self, span: Span, children: Children) -> ast.Text:
        text = str(children[0])
        return self._text(span, text) if text.startswith('"') else ast.Text(span, (text,))

    def _text(self, span: Span, token: str) -> ast.Text:
        """Split a quoted token into literal pieces and `{expressions}`."""
        parts: list[str | ast.Expression] = []
        piece: list[str] = []
        i, end = 1, len(token) - 1
        while i < end:
            character = token[i]
            if character == "\\":
                escaped = token[i + 1]
                if escaped not in ESCAPES:
                    at = self._source.span(span.start + i, span.start + i + 2)
                    raise _error("E0106", f"unknown escape \\{escaped} in a string", at)
                piece.append(ESCAPES[escaped])
                i += 2
            elif character == "{":
                close = token.find("}", i, end)
                if close < 0 or not token[i + 1 : close].strip():
                    at = self._source.span(span.start + i, span.start + max(close, i) + 1)
                    what = "an empty interpolation" if close > 0 else "`{` without `}`"
                    help = 'in braces stands a value, "layer{i}"; \\{ is a plain brace'
                    raise _error("E0107", f"{what} in a string", at, help)
                if piece:
                    parts.append("".join(piece))
                    piece = []
                parts.append(self._parse_expression(token[i + 1 : close], span.start + i + 1))
                i = close + 1
            else:
                piece.append(character)
                i += 1
        if piece:
            parts.append("".join(piece))
        return ast.Text(span, tuple(parts))

    # Expressions

    def list(self, span: Span, children: Children) -> ast.Items:
        return ast.Items(span, _flat(children))

    def chain(self, span: Span, children: Children) -> ast.Chain:
        return ast.Chain(span, children[0], tuple(children[1:]))

    def sink(self, span: Span, children: Children) -> ast.Sink:
        return ast.Sink(span, children[0])

    def named(self, span: Span, children: Children) -> ast.Named:
        return ast.Named(span, children[0], children[1])

    def disjunction(self, span: Span, children: Children) -> ast.Logic:
        return ast.Logic(span, "or", tuple(children))

    def conjunction(self, span: Span, children: Children) -> ast.Logic:
        return ast.Logic(span, "and", tuple(children))

    def _check_signs(self, span: Span, operand: ast.Expression) -> None:
        """What means a step up or down elsewhere: `i++` at the end of a line, `++i` and `=+`. Other
        signs in a row are signs."""
        text = self._source.text
        found = _DOUBLED.match(text, max(0, span.start - 1)) or _DOUBLED.match(text, span.start)
        if found is None or text[found.start() - 1 : found.start()] in _SIGNS:
            return
        line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        named = re.search(r"(\w+)[ \t]*\Z", line)
        behind = named is not None and "\n" in text[found.end() : operand.span.start]
        before = (
            named is None and isinstance(operand, ast.Name) and found.end() == operand.span.start
        )
        name, sign = named[1] if named else operand.span.text, found[0][-1]
        if not line.strip():
            help = "a comment starts with `#`" if sign == "-" else f"write `{name} = {name} + 1`"
        elif found[0] == "=+":
            help = f"write `{name} = {name} + ...`"
        elif behind or before:
            help = f"nothing is counted up in place: write `{name} {sign} 1`"
        else:
            return
        here = self._source.span(found.start(), found.end())
        raise _error("E0101", f"`{found[0]}` is no operator", here, help)

    def negated(self, span: Span, children: Children) -> ast.Negated:
        # The `not`s themselves are not among the children: count them in the text before.
        operand = cast(ast.Expression, children[-1])
        before = self._source.text[span.start : operand.span.start]
        words = "\n".join(line.split("#", 1)[0] for line in before.split("\n"))
        return ast.Negated(span, words.count("not") % 2 == 1, operand)

    def compared(self, span: Span, children: Children) -> ast.Compared:
        return ast.Compared(span, children[0], _pairs(children))

    def arithmetic(self, span: Span, children: Children) -> ast.Arithmetic:
        return ast.Arithmetic(span, children[0], _pairs(children))

    def signed(self, span: Span, children: Children) -> ast.Signed:
        signs = [str(child) for child in children[:-1]]
        self._check_signs(span, children[-1])
        return ast.Signed(span, signs.count("-") % 2 == 1, children[-1])

    def power(self, span: Span, children: Children) -> ast.Power:
        return ast.Power(span, tuple(children))

    def call(self, span: Span, children: Children) -> ast.Call:
        return ast.Call(span, children[0], children[1] or ())

    def member(self, span: Span, children: Children) -> ast.Member:
        return ast.Member(span, children[0], children[1])

    def index(self, span: Span, children: Children) -> ast.Index:
        return ast.Index(span, children[0], children[1])

    def part(self, span: Span, children: Children) -> ast.Part:
        return ast.Part(span, *children)

    def step(self, span: Span, children: Children) -> ast.Expression | None:
        return children[0]

    def arguments(self, span: Span, children: Children) -> tuple[ast.Argument, ...]:
        return _flat(children)

    def argument(self, span: Span, children: Children) -> ast.Argument:
        return ast.Argument(span, children[0], children[1])

    def conditional(self, span: Span, children: Children) -> ast.Conditional:
        branches = [(children[0], children[1]), *children[2:-1]]
        return ast.Conditional(span, tuple(branches), children[-1])

    def else_if(self, span: Span, children: Children) -> tuple[Any, ...]:
        return tuple(children)

    def loop(self, span: Span, children: Children) -> ast.Loop:
        targets, _, iterable, body = children
        return ast.Loop(span, targets, iterable, body)

    def repetition(self, span: Span, children: Children) -> ast.Repetition:
        return ast.Repetition(span, children[0], children[1])

    def numbered(self, span: Span, children: Children) -> ast.Numbered:
        return ast.Numbered(span, children[0], children[1])

    def scoped(self, span: Span, children: Children) -> ast.Scoped:
        return ast.Scoped(span, children[0], children[1])

    # Statements

    def body(self, span: Span, children: Children) -> ast.Body:
        statements: list[ast.Statement] = []
        for child in _flat(children):
            statements += child if isinstance(child, tuple) else (child,)
        return ast.Body(span, tuple(statements))

    def let(self, span: Span, children: Children) -> ast.Let:
        return ast.Let(span, children[0], children[1])

    def assign(self, span: Span, children: Children) -> ast.Assign:
        return ast.Assign(span, children[0], children[1])

    def targets(self, span: Span, children: Children) -> tuple[ast.Name, ...]:
        return tuple(children)

    def assertion(self, span: Span, children: Children) -> ast.Assertion:
        return ast.Assertion(span, children[0], children[1])

    def default(self, span: Span, children: Children) -> ast.Default:
        return ast.Default(span, tuple(children))

    def default_entry(self, span: Span, children: Children) -> ast.DefaultEntry:
        return ast.DefaultEntry(span, children[0], children[1] or ())

    def input(self, span: Span, children: Children) -> ast.Input:
        return ast.Input(span, children[0], children[1], children[3] or ())

    def type(self, span: Span, children: Children) -> ast.TypeExpression:
        return ast.TypeExpression(span, children[0], _flat(children[1:]))

    def constraints(self, span: Span, children: Children) -> tuple[ast.Expression, ...]:
        return tuple(children)

    def output(self, span: Span, children: Children) -> ast.Output:
        return ast.Output(span, children[0], children[1])

    def outputs(self, span: Span, children: Children) -> tuple[ast.Output, ...]:
        """`output low, high`: tensors put out under their own names."""
        names = cast("tuple[ast.Name, ...]", children[0])
        return tuple(ast.Output(span, ast.Text(n.span, (n.id,)), n) for n in names)

    def preprocess(self, span: Span, children: Children) -> ast.Preprocess:
        return ast.Preprocess(span, children[0], children[1])

    def labels(self, span: Span, children: Children) -> ast.Labels:
        return ast.Labels(span, children[0])

    def evaluation(self, span: Span, children: Children) -> ast.Evaluation:
        return ast.Evaluation(span, children[0])

    # Items of a file

    def file(self, span: Span, children: Children) -> ast.File:
        return ast.File(span, _flat(children))

    def version(self, span: Span, children: Children) -> ast.Version:
        return ast.Version(span, self._integer(span, str(children[0])))

    def use(self, span: Span, children: Children) -> ast.Use:
        return ast.Use(span, children[0], tuple(children[1:]))

    def imported(self, span: Span, children: Children) -> ast.Imported:
        return ast.Imported(span, children[0], children[1])

    def parameters(self, span: Span, children: Children) -> tuple[ast.Parameter, ...]:
        return _flat(children)

    def parameter(self, span: Span, children: Children) -> ast.Parameter:
        return ast.Parameter(span, children[0], children[1])

    def block(self, span: Span, children: Children) -> ast.Block:
        return ast.Block(span, children[0], children[1] or (), children[2])

    def model(self, span: Span, children: Children) -> ast.Model:
        return ast.Model(span, children[0], children[1] or (), children[2])

    def setting(self, span: Span, children: Children) -> ast.Setting:
        return ast.Setting(span, children[0], children[1])

    def train(self, span: Span, children: Children) -> ast.Train:
        return ast.Train(span, children[0], _flat(children[1:]))


def _error(code: str, message: str, span: Span, help: str | None = None) -> CompileError:
    hints = (help,) if help else ()
    return CompileError([Diagnostic(code, message, (Label(span),), help=hints)])
