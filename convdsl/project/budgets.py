"""What a model may cost: limits on exact figures, and what a model that is beyond them is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from convdsl.diagnostics import Diagnostic, Label, Span

if TYPE_CHECKING:
    from convdsl.analysis.report import Layer, Report
    from convdsl.ir.graph import Graph
    from convdsl.ir.model import Model
    from convdsl.sizes import Shapes
    from convdsl.tensor import Dim

    Figured = Dim | None

UNITS = {"": 1} | {
    f"{prefix}{binary}": base**power
    for power, prefix in enumerate("KMGT", start=1)
    for binary, base in (("", 1000), ("I", 1024))
}
NAMED = 3  # layers that a finding names

OPEN = 'say the sizes that are open: input = "CxHxW"'
"""What to do about a figure that a budget of the project file finds open."""


def amount(text: str) -> int:
    """`25M`, `4.1G`, `64MiB`, `1000000`. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    if found is None or found.group(2) not in UNITS:
        raise ValueError(f"no amount: {text}; write 5000000, 5M, 4.1G or 64MiB")
    return int(Fraction(found.group(1)) * UNITS[found.group(2)])


@dataclass(frozen=True, slots=True)
class Counted:
    """A model at one size, and its figures."""

    graph: Graph
    report: Report


def counted(model: Model, inputs: Shapes, batch: int | None) -> Counted:
    """A model's figures; sizes that nobody says stay open."""
    from convdsl.analysis.report import analyse
    from convdsl.sizes import bind

    binding = bind(model, inputs, batch)
    settled = model.settled(binding)
    return Counted(settled.graph.bind(binding), analyse(settled, "all", binding))


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that may have a limit: a most, or, where so little is worth nothing, a least."""

    name: str
    code: str
    doc: str  # of the option that says it
    sentence: str  # with {model}, {figure} and {limit}
    of: Callable[[Counted], Figured] | None = None  # None: of an artifact, which has it itself
    blame: Callable[[Counted], tuple[str, ...]] | None = None  # help: where most of it is
    is_least: bool = False

    @property
    def option(self) -> str:
        """`--max-params`."""
        return f"--{'min' if self.is_least else 'max'}-{self.name.replace('_', '-')}"

    def beyond(self, model: str, figure: Figured, limit: Limit) -> str | None:
        """What is wrong; None where nothing is. A figure with gaps is a lower bound."""
        if isinstance(figure, int):
            fine = figure >= limit.value if self.is_least else figure <= limit.value
            shown = f"{figure:,}"
        else:
            fine, shown = False, "unknown" if figure is None else str(figure)
        if fine:
            return None
        return self.sentence.format(model=model, figure=shown, limit=f"{limit.value:,}")


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure's limit, and where that was said; nowhere: on the command line."""

    figure: Figure
    value: int
    span: Span | None = None


def exceeded(
    model: Model, place: Span | None, limits: Sequence[Limit], of: Counted, hint: str
) -> Iterator[Diagnostic]:
    """What goes beyond its limit, of a model whose name stands at `place`. `hint` says how open
    sizes are said."""
    for limit in limits:
        figure = limit.figure
        if figure.of is None:
            continue
        value = figure.of(of)
        text = figure.beyond(model.name, value, limit)
        gaps = figure.name in of.report.lower_bounds
        if text is None and not gaps:
            continue
        if text is None or (gaps and isinstance(value, int)):
            least = f"at least {value:,}"
            text = figure.sentence.format(model=model.name, figure=least, limit=f"{limit.value:,}")
        blame: tuple[str, ...] = ()
        if value is not None and not isinstance(value, int):
            blame = (hint,)
        elif figure.blame is not None:
            blame = figure.blame(of)
        yield finding(limit, text, place, blame)


def finding(limit: Limit, text: str, place: Span | None, help: tuple[str, ...]) -> Diagnostic:
    """A budget that was not kept: at its line, where it has one, else at the model."""
    labels: list[Label] = []
    if limit.span is not None:
        labels.append(Label(limit.span, "the budget"))
    if place is not None:
        labels.append(Label(place, "this model" if labels else ""))
    return Diagnostic(limit.figure.code, text, tuple(labels), help=help)


def _total(name: str) -> Callable[[Counted], Figured]:
    return lambda of: of.report.totals[name]


def _memory(of: Counted) -> Figured:
    """Weights, and what is alive at once of activations."""
    return of.report.weight_bytes + of.report.peak.bytes


def _field(of: Counted) -> Figured:
    """Of the last map, along the axis of which it sees least; None where nothing exact is known."""
    from convdsl.analysis.receptive_field import field_of_last_map

    axes = [axis for field in field_of_last_map(of.graph).values() for axis in field]
    sizes = [axis.size for axis in axes if axis is not None]
    known = [size for size in sizes if isinstance(size, int)]
    if known and len(sizes) == len(axes):
        return min(known)
    return sizes[0] if sizes and len(sizes) == len(axes) else None


def _largest(name: str) -> Callable[[Counted], tuple[str, ...]]:
    """The layers that cost most."""

    def cost(layer: Layer) -> int:
        figure = getattr(layer.cost, name)
        return figure if isinstance(figure, int) else 0

    def blame(of: Counted) -> tuple[str, ...]:
        most = sorted(of.report.layers, key=cost, reverse=True)[:NAMED]
        return (f"most in {', '.join(f'{layer.name} ({cost(layer):,})' for layer in most)}",)

    return blame


def _at_the_peak(of: Counted) -> tuple[str, ...]:
    peak = of.report.peak
    return (f"most at {peak.at.name}",) if peak.at is not None else ()


def _said(of: Counted) -> tuple[str, ...]:
    return ("`convdsl report` shows the receptive field of every layer",)


FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "params",
            "E1001",
            "at most so many parameters, e.g. 5M",
            "`{model}` has {figure} parameters; the budget is {limit}",
            _total("params"),
            _largest("params"),
        ),
        Figure(
            "macs",
            "E1002",
            "at most so many multiply-accumulates, e.g. 4.1G",
            "`{model}` has {figure} multiply-accumulates; the budget is {limit}",
            _total("macs"),
            _largest("macs"),
        ),
        Figure(
            "memory",
            "E1003",
            "at most so many bytes of weights and activations together, e.g. 64MiB",
            "`{model}` has {figure} bytes of weights and activations; the budget is {limit}",
            _memory,
            _at_the_peak,
        ),
        Figure(
            "flops",
            "E1004",
            "at most so many arithmetic operations, e.g. 8.2G",
            "`{model}` has {figure} operations; the budget is {limit}",
            _total("flops"),
            _largest("flops"),
        ),
        Figure(
            "weights",
            "E1005",
            "at most so many bytes of weights, e.g. 20MiB",
            "`{model}` has {figure} bytes of weights; the budget is {limit}",
            _total("weight_bytes"),
            _largest("params"),
        ),
        Figure(
            "receptive_field",
            "E1006",
            "at least so much of the input seen by a unit of the last map, along each axis",
            "`{model}` has a receptive field of {figure}; the budget asks for {limit}",
            _field,
            _said,
            is_least=True,
        ),
        Figure(
            "artifact",
            "E1007",
            "of an artifact that is checked: at most so many bytes, e.g. 30MB",
            "the artifact of `{model}` has {figure} bytes; the budget is {limit}",
        ),
    )
}
"""By the name that convdsl.toml has for it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of the models that a pattern names, at a size."""

    pattern: str  # of a model's name, or of FILE:NAME with FILE as seen from the project file
    limits: tuple[Limit, ...]
    span: Span
    spans: Mapping[str, Span]  # of the values, by key
    batch: int | None = None
    inputs: Shapes = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def names(self, file: str, model: str) -> bool:
        """Whether it is a budget of this model."""
        return fnmatchcase(model, self.pattern) or fnmatchcase(f"{file}:{model}", self.pattern)

    def values(self) -> dict[str, Any]:
        """The parameters it sets, as `elaborate` takes them. Raises InputError."""
        from convdsl.elaborate import parameter_value

        given = self.parameters.items()
        return {n: parameter_value(v) if isinstance(v, str) else v for n, v in given}

    def set_here(self, diagnostic: Diagnostic) -> Diagnostic:
        """An error of a value that it sets, with the line that does."""
        place = self.spans.get("set")
        if place is None:
            return diagnostic
        return replace(diagnostic, labels=(*diagnostic.labels, Label(place, "set here")))

    def misfit(self, error: str, model: Span) -> Diagnostic:
        """Sizes that are not the model's."""
        place = self.spans.get("input") or self.spans.get("batch") or self.span
        text = error.removeprefix("--batch: ")
        return Diagnostic("E1103", text, (Label(place), Label(model, "this model")))
