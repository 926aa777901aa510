"""Blocks that were likely to be one layer: bound by their bare names and used more than once, each
time with weights of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from convdsl.diagnostics import SourceFile, Span
from convdsl.elaborate.session import Session
from convdsl.ir.opdef import Role
from convdsl.syntax import ast
from convdsl.syntax.walk import nodes

_BARE = re.compile(r"\blet\s+\w+\s*=\s*[^\W\d]\w*\s*(?:[#\n}]|\Z)")


def check_anew(session: Session, tree: ast.File, source: SourceFile) -> None:
    """Warn of `let f = tower` for a block `tower`, where `f` is applied at several places, or in
    the rounds of a loop, and the block has weights."""
    if not _BARE.search(source.text):
        return  # most files: walking trees takes a twentieth of what elaboration takes
    definitions = [item for item in tree.items if isinstance(item, ast.Block | ast.Model)]
    blocks = {item.name.id for item in definitions} | set(_imported(tree))
    kept = [
        (let, definition)
        for definition in definitions
        for let in nodes(definition.body)
        if isinstance(let, ast.Let)
        and len(let.targets) == 1
        and isinstance(let.value, ast.Name)
        and let.value.id in blocks
        and not let.targets[0].id.startswith("_")
    ]
    weighted = _weighted(session, source) if kept else set[Span]()
    for let, definition in kept:
        name = let.targets[0].id
        uses = [span for span in _applied(definition, name) if span in weighted]
        if len(uses) + any(_repeated(definition, let, span) for span in uses) < 2:
            continue
        assert isinstance(let.value, ast.Name)
        session.warn(
            "W0502",
            f"every use of `{name}` makes layers with weights of their own",
            let.targets[0].span,
            *((span, "made here") for span in uses[:2]),
            help=(
                f"to share them write `let {name} = {let.value.id}()`; else use the block's name",
            ),
        )


def _imported(tree: ast.File) -> Iterator[str]:
    for item in tree.items:
        if isinstance(item, ast.Use):
            yield from ((imported.alias or imported.name).id for imported in item.names)


def _applied(definition: ast.Block | ast.Model, name: str) -> Iterator[Span]:
    """Where tensors flow into what a name stands for, and nothing else is said of it."""
    found = list(nodes(definition.body))
    stages = {id(stage) for node in found if isinstance(node, ast.Chain) for stage in node.stages}
    for node in found:
        match node:
            case ast.Chain():
                for stage in (node.head, *node.stages):
                    if isinstance(stage, ast.Name) and stage.id == name:
                        yield stage.span
            case ast.Call(callee=ast.Name() as callee) if callee.id == name:
                given = [a.value for a in node.arguments if a.name is None]
                said = len(given) < len(node.arguments) or id(node) in stages
                if not said and not any(isinstance(value, ast.Literal) for value in given):
                    yield node.span
            case _:
                pass


def _repeated(definition: ast.Block | ast.Model, let: ast.Let, use: Span) -> bool:
    """Whether a loop that begins after the name is bound goes around a use."""
    return any(
        isinstance(node, ast.Loop | ast.Repetition)
        and node.span.start <= use.start
        and use.end <= node.span.end
        and not node.span.start <= let.span.start < node.span.end
        for node in nodes(definition.body)
    )


def _weighted(session: Session, source: SourceFile) -> set[Span]:
    """Where blocks are applied inside of which there are weights."""
    return {
        frame.span
        for state in session.graph.states.values()
        if state.role is Role.PARAMETER
        for frame in state.frames
        if frame.span is not None and frame.span.source is source
    }
