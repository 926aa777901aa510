"""List the operators, or describe one.

`convdsl ops NAME` says what an operator computes, its operands, attributes and defaults, what
ONNX and PyTorch call it, and how its gradient comes about.
"""

from __future__ import annotations

import argparse
import inspect
import json
from typing import TYPE_CHECKING, Any

from convdsl.cli import console, listing
from convdsl.cli.options import add_format, completes
from convdsl.cli.parsing import suggestion
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from convdsl.interop.correspondence import Row
    from convdsl.ir.opdef import Attribute, OpDef


SPARE = ("pytorch", "onnx", "also", "gradient", "attributes")
"""Columns of the list that narrow terminals do without."""


def configure(parser: argparse.ArgumentParser) -> None:
    completes(
        parser.add_argument("name", nargs="?", metavar="NAME", help="describe this operator"),
        "operator",
    )
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl.ops import OPERATORS, SPELLINGS

    if options.name is None:
        listing.show([_row(op) for op in OPERATORS], options.format, spare=SPARE)
        return 0
    op = SPELLINGS.get(options.name)
    if op is None:
        own = [op.name for op in OPERATORS]
        near = suggestion(options.name, own) or suggestion(options.name, SPELLINGS)
        raise InputError(
            f"no operator is called {options.name}{near or '; `convdsl ops` lists them'}"
        )
    if options.format == "json":
        console.result(json.dumps(facts(op), indent=2, ensure_ascii=False))
    elif options.format == "table":
        console.result(f"{_heading(op)}\n\n{inspect.cleandoc(op.doc)}\n\n{_elsewhere(op)}")
        if op.attributes:
            console.result("")
            rows = [_attribute(a) for a in op.attributes]
            listing.show(rows, options.format, spare=("choices", "kind"))
    else:
        listing.show([_attribute(a) for a in op.attributes], options.format)
    return 0


def _row(op: OpDef) -> dict[str, Any]:
    return {
        "name": op.name,
        "also": list(op.aliases),
        "attributes": [attribute.name for attribute in op.attributes],
        "onnx": _row_elsewhere(op).kind or None,
        "pytorch": _row_elsewhere(op).pytorch.title,
        "gradient": _gradient(op)[0],
        "summary": inspect.cleandoc(op.doc).splitlines()[0],
    }


def _row_elsewhere(op: OpDef) -> Row:
    from convdsl.interop.correspondence import ROWS

    return ROWS[op.name]


def _elsewhere(op: OpDef) -> str:
    """What the operator is called by others, and what they cannot say."""
    row = _row_elsewhere(op)
    theirs = ", ".join(f"{k.onnx} = {k.ours}" for k in row.keywords)
    onnx = f"{row.kind}({theirs})" if theirs else row.kind
    lines = [f"ONNX: {onnx or 'several nodes'}", f"PyTorch: {row.pytorch.title}"]
    lines += [f"But {reason}." for reason in row.pytorch.lacks]
    how, why = _gradient(op)
    return "\n".join([*lines, f"Gradient: {how}{f' ({why})' if why else ''}"])


def _heading(op: OpDef) -> str:
    operands = [
        f"{o.name}{'...' if o.variadic else ''}{'?' if o.optional else ''}" for o in op.operands
    ]
    also = f" (also {', '.join(op.aliases)})" if op.aliases else ""
    return f"{op.name}({', '.join(operands)}){also}"


def _attribute(attribute: Attribute) -> dict[str, Any]:
    from convdsl.ir.opdef import Required

    required = isinstance(attribute.default, Required)
    return {
        "attribute": attribute.name,
        "kind": attribute.kind.value,
        "default": "required" if required else _text(attribute.default),
        "choices": list(attribute.choices),
        "meaning": attribute.doc,
    }


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def facts(op: OpDef) -> dict[str, Any]:
    """All that is known of an operator, as JSON has it."""
    return {
        "name": op.name,
        "aliases": list(op.aliases),
        "doc": inspect.cleandoc(op.doc),
        "operands": [
            {"name": o.name, "role": o.role.value, "optional": o.optional, "variadic": o.variadic}
            for o in op.operands
        ],
        "attributes": [_attribute(attribute) for attribute in op.attributes],
        "onnx": _row_elsewhere(op).kind or None,
        "pytorch": _row_elsewhere(op).pytorch.title,
        "pytorch_lacks": list(_row_elsewhere(op).pytorch.lacks),
        "gradient": _gradient(op)[0],
        "gradient_because": _gradient(op)[1] or None,
    }


def _gradient(op: OpDef) -> tuple[str, str]:
    """How the operator's gradient comes about, and why so."""
    from convdsl.ir.opdef import Derived, Missing, NotDifferentiable, Rule, Zero

    match op.gradient:
        case Derived():
            return "derived", ""
        case Rule(why=why):
            return "rule", why
        case Zero(why):
            return "zero", why
        case NotDifferentiable(reason):
            return "none", reason
        case Missing(needs):
            return "missing", f"it needs {needs}"
