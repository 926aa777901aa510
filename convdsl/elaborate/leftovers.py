"""What a sound graph holds to no purpose: layers and inputs that lead to no output."""

from __future__ import annotations

from collections.abc import Iterator

from convdsl.diagnostics import Frame, SourceFile, Span
from convdsl.elaborate.session import Session
from convdsl.elaborate.usage import Usage
from convdsl.ir.graph import InputNode, Node, OpNode


def check_leftovers(session: Session, source: SourceFile, usage: Usage) -> None:
    """Warn of layers and inputs in no path to an output, where the text of `source` has them."""
    graph = session.graph
    contributing = graph.contributing()
    spare = [node for node in graph.nodes() if node not in contributing]
    if not spare:
        return
    read = {
        value.node for node in spare if isinstance(node, OpNode) for value in node.inputs.values()
    }
    calls = {call for node in contributing for call in _calls(node)}
    living = {_place(node) for node in contributing}
    known = [*usage.meant, *(binding.statement for binding in usage.suspected)]
    for node in spare:
        if node in read or node.span is None or own_part(node).startswith("_"):
            continue
        if isinstance(node, InputNode):
            binding = usage.inputs.get(node.name)
            if binding is not None and not binding.read:
                _warn_of_input(session, node.name, node.span)
        elif isinstance(node, OpNode) and not _within(node, known):
            if _place(node) in living and _within(node, usage.carried):
                continue  # what the last round leaves for one that does not come
            span, frames = _outermost(node, calls)
            if span is not None and span.source is source:
                text = f"`{node.name}` is in no path to an output"
                session.warn("W0409", text, span, frames=frames, help=(_SPARE,))


_SPARE = "use what it gives, or leave it out; bound to a name with `_` it may stay"


def _place(node: Node) -> tuple[Span | None, ...]:
    """Where a node's text stands, and the calls that led there, the innermost first."""
    return (node.span, *(frame.span for frame in node.frames))


def _calls(node: Node) -> Iterator[tuple[Span | None, ...]]:
    """The places of the calls around a node."""
    place = _place(node)
    return (place[start:] for start in range(1, len(place)))


def _outermost(
    node: Node, living: set[tuple[Span | None, ...]]
) -> tuple[Span | None, tuple[Frame, ...]]:
    """Where a leftover is: the outermost call of a block of which nothing is left, or itself."""
    place = _place(node)
    for start in range(len(place) - 1, 0, -1):
        if place[start:] not in living:
            return place[start], node.frames[start:]
    return node.span, node.frames


def _warn_of_input(session: Session, name: str, span: Span) -> None:
    text = f"nothing uses the input `{name}`"
    session.warn("W0202", text, span, help=(f"call it `_{name}` if that is on purpose",))


def own_part(node: Node) -> str:
    """The last part of its name, which `as` says."""
    return node.name.rpartition(".")[2]


def _within(node: Node, places: list[Span]) -> bool:
    """Whether a node stands in one of the places, or was made by a block that is called there."""
    return any(
        span is not None
        and span.source is place.source
        and place.start <= span.start
        and span.end <= place.end
        for span in _place(node)
        for place in places
    )
