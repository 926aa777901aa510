"""What a stage begins with: a body, or arithmetic whose first operand is a layer; and what
arithmetic ends with."""

from __future__ import annotations

import re
from typing import TypeAlias

from convdsl.diagnostics import Span
from convdsl.elaborate.scope import Context
from convdsl.elaborate.values import LAYER_LIKE, SPELLED, BlockValue, Operator
from convdsl.ir.opdef import no_state
from convdsl.syntax import ast

Flowing: TypeAlias = ast.Conditional | ast.Loop | ast.Repetition | ast.Numbered | ast.Scoped
FLOWING = (ast.Conditional, ast.Loop, ast.Repetition, ast.Numbered, ast.Scoped)


def first_operand(node: ast.Arithmetic | ast.Power) -> ast.Expression:
    """The operand that arithmetic begins with."""
    return node.first if isinstance(node, ast.Arithmetic) else node.operands[0]


def begins_with_a_layer(node: ast.Expression, context: Context) -> bool:
    """Whether it is arithmetic whose first operand is a layer: `conv(8, 3x3) * 2 + y`."""
    if not isinstance(node, ast.Arithmetic | ast.Power):
        return False
    while isinstance(node, ast.Arithmetic | ast.Power):
        node = first_operand(node)
    callee = node.callee if isinstance(node, ast.Call) else node
    if not isinstance(callee, ast.Name):
        return isinstance(node, FLOWING)
    found, value = context.scope.find(callee.id)
    return isinstance(value, LAYER_LIKE) if found else callee.id in SPELLED


def ends_with_weights(node: ast.Expression, context: Context) -> ast.Call | None:
    """The call that arithmetic ends with, where it is one of a block or an operator that may have
    weights: `x + parameter([8])`."""
    if not isinstance(node, ast.Arithmetic):
        return None
    while isinstance(node, ast.Arithmetic):
        node = node.rest[-1][1]
    if not isinstance(node, ast.Call) or not isinstance(node.callee, ast.Name):
        return None
    found, value = context.scope.find(node.callee.id)
    made = value if found else SPELLED.get(node.callee.id)
    if isinstance(made, Operator):
        return None if made.op.state is no_state else node
    return node if isinstance(made, BlockValue) else None


def follows(before: Span | None, after: Span) -> bool:
    """Whether nothing but ends of lines and comments stand between two places of a text."""
    if before is None or before.source is not after.source:
        return False
    return _BLANK.fullmatch(after.source.text, before.end, after.start) is not None


def stands_before_another(span: Span) -> bool:
    """Whether the next line is a word or a call by itself, as this one is."""
    text = span.source.text
    alone = not text[text.rfind("\n", 0, span.start) + 1 : span.start].strip()
    return alone and _ANOTHER.match(text, span.end) is not None


_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_ANOTHER = re.compile(r"[ \t]*(?:#[^\n]*)?\n\s*\w+(?:\([^()\n]*\))?[ \t]*(?:#[^\n]*)?(?=\n|->)")
