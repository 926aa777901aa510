"""Operators in every version of their definition, from opset 7 to 23, against others' runtimes.

    PYTHONPATH=tests python -m interop.versions

writes the table in docs/onnx-conformance.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

import convdsl
from convdsl.interop.correspondence import READING
from convdsl.interop.onnx_load import model_of
from convdsl.interop.onnx_nodes import BRANCHES
from convdsl.passes import PASSES
from interop.drawn_nodes import Node, draw_node
from interop.runtimes import run_convdsl, run_onnxruntime

FIRST, LAST = 7, 23
EACH = 12
"""Nodes that are drawn for a cell of the table."""

REPORT = Path(__file__).parents[2] / "docs" / "onnx-conformance.md"
TITLE = "## Operators by version"

ELSEWHERE = {
    "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear",
} | {kind for kind in READING if "." in kind}  # fmt: skip
"""Kinds of one version, drawn by test_quantised_operators.py."""


def versions() -> dict[str, list[int]]:
    """The opsets at which a definition is in force first, by kind, of all kinds that are read."""
    since: dict[str, set[int]] = {kind: set() for kind in (READING.keys() - ELSEWHERE)}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain and not schema.deprecated and schema.name in since:
            since[schema.name].add(schema.since_version)
    found = {}
    for kind, numbers in since.items():
        in_force = [max((n for n in numbers if n <= FIRST), default=0) and FIRST]
        later = [n for n in sorted(numbers) if FIRST < n <= LAST]
        found[kind] = [n for n in (*in_force, *later) if n]
    return {kind: numbers for kind, numbers in found.items() if numbers and kind != BRANCHES}


def judged(node: Node, opset: int) -> tuple[str, list[np.ndarray]] | None:
    """Who judges, and the outputs: onnxruntime, else the reference evaluator, else onnxruntime by
    the definition before (22 added element types to many that it does not know yet)."""
    proto = node.proto(opset)
    try:
        return "onnxruntime", list(run_onnxruntime(proto, node.arrays).values())
    except Exception:  # noqa: BLE001  it has its own errors for what it does not run
        pass
    try:
        return "reference", list(ReferenceEvaluator(proto).run(None, node.arrays))
    except Exception:  # noqa: BLE001  as above
        return judged(node, opset - 1) if opset == 22 else None


def trouble(node: Node, opset: int, wanted: list[np.ndarray]) -> str | None:
    """What is wrong with the node as it is read, compiled with all passes and with none."""
    for passes in (PASSES, ()):
        try:
            model = model_of(node.proto(opset), "net", {})
            arrays = dict(zip(model.inputs, node.arrays.values(), strict=True))
            found = run_convdsl(model, arrays, passes=passes, cache=False)
        except convdsl.Error as error:
            return f"refused: {str(error).splitlines()[0][:200]}"
        for number, expected in enumerate(wanted):
            got = found[f"y{number}"]
            expected = np.asarray(expected)
            if got.shape != expected.shape or got.dtype != expected.dtype:
                return f"{got.dtype}{list(got.shape)}, not {expected.dtype}{list(expected.shape)}"
            if not np.allclose(got, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
                return f"off by {np.nanmax(np.abs(got.astype('f8') - expected.astype('f8'))):.2g}"
    return None


@dataclass
class Cell:
    """What came of the nodes of one kind and opset."""

    right: int = 0
    unjudged: int = 0
    troubles: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.right}" if not self.troubles else f"{self.right} of {EACH - self.unjudged}"


def cell(kind: str, opset: int, count: int = EACH) -> Cell:
    made = Cell()
    for seed in range(count):
        node = draw_node(kind, opset, seed)
        judge = judged(node, opset)
        if judge is None:
            made.unjudged += 1
            continue
        what = trouble(node, opset, judge[1])
        if what is None:
            made.right += 1
        else:
            shapes = {n: a.shape for n, a in node.operands.items() if a is not None}
            made.troubles.append(f"{kind}-{opset} {seed} {shapes} {node.attributes}: {what}")
    return made


def table(troubles: list[str]) -> Iterator[str]:
    """Lines of the report."""
    yield TITLE
    yield ""
    yield f"Definitions in force from opset {FIRST} on: {EACH} drawn nodes each, read, compiled"
    yield "with all passes and with none, and compared with onnxruntime, or where it does not run"
    yield "one, with the reference evaluator. How many were right; what neither runs is no part."
    yield ""
    columns = range(FIRST, LAST + 1)
    yield f"| operator | {' | '.join(map(str, columns))} |"
    yield f"|---|{'---:|' * len(columns)}"
    for kind, numbers in sorted(versions().items()):
        cells = {opset: cell(kind, opset) for opset in numbers}
        for made in cells.values():
            troubles += made.troubles
        print(kind, {n: str(c) for n, c in cells.items()}, flush=True)
        yield f"| {kind} | {' | '.join(str(cells.get(n, '')) for n in columns)} |"
    yield ""


def main() -> int:
    troubles: list[str] = []
    section = "\n".join(table(troubles)) + "\n"
    text = REPORT.read_text(encoding="utf-8")
    before = re.split(rf"^{TITLE}\n", text, flags=re.MULTILINE)[0]
    after = text[len(before) :]
    rest = re.split(r"^(?=## )", after, flags=re.MULTILINE)
    kept = "".join(part for part in rest if not part.startswith(TITLE))
    head, mark, tail = (before + kept).partition("## Exclusions")
    REPORT.write_text(f"{head}{section}{mark}{tail}", encoding="utf-8")
    print(*troubles, sep="\n")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
