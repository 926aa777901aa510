"""docs/operators.md is what the records say."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convdsl.cli.ops import facts
from convdsl.ir.opdef import OpDef, Required
from convdsl.ops import FAMILIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "operators.md"
BEGIN = "<!-- operators: written by tests/docs, run `make golden` -->\n"
END = "<!-- end of operators -->"


def families() -> Iterator[str]:
    """A section for each family, as its module begins; operators in the order of the table."""
    for family in FAMILIES:
        summary, *rest = inspect.cleandoc(family.__doc__ or "").split("\n\n")
        title, _, more = " ".join(summary.split()).removesuffix(".").partition(": ")
        yield from ("", f"## {title}", "")
        if more:
            yield from (f"{more[0].upper()}{more[1:]}.", "")
        yield "\n\n".join(rest)
        for op in family.OPERATORS:
            yield from operator(op)


def operator(op: OpDef) -> Iterator[str]:
    told = facts(op)
    yield from ("", f"### `{op.name}`", "")
    yield f"`{op.name}({', '.join(operands(told))})`"
    if op.aliases:
        yield f"· also {', '.join(f'`{alias}`' for alias in op.aliases)}"
    yield from ("", told["doc"], "")
    if op.attributes:
        yield from ("| attribute | default | |", "|---|---|---|")
        for attribute in op.attributes:
            star = "*" if attribute.keyword_only else ""
            words = f" ({', '.join(attribute.choices)})" if attribute.choices else ""
            doc = f"{attribute.doc}{words}".replace("|", "\\|")
            yield f"| `{attribute.name}`{star} | {shown(attribute.default)} | {doc} |"
        yield ""
    onnx, pytorch = told["onnx"] or "several nodes", told["pytorch"]
    why = f" ({told['gradient_because']})" if told["gradient_because"] else ""
    yield f"ONNX: {onnx} · PyTorch: {pytorch} · gradient: {told['gradient']}{why}"


def operands(told: dict[str, Any]) -> Iterator[str]:
    for operand in told["operands"]:
        if operand["role"] == "data":
            more = "..." if operand["variadic"] else ""
            yield f"{operand['name']}{more}{'?' if operand['optional'] else ''}"


def shown(default: Any) -> str:
    if isinstance(default, Required):
        return "required"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default is None or default == ():
        return "none"
    return f"`{default}`"


def test_operators(request: pytest.FixtureRequest) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    section, after = rest.split(END)
    lines = "\n".join(families())
    while "\n\n\n" in lines:
        lines = lines.replace("\n\n\n", "\n\n")
    wanted = f"{lines}\n\n"
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(f"{before}{BEGIN}{wanted}{END}{after}", encoding="utf-8")
    else:
        assert section == wanted, "run `make golden` and read the diff"
