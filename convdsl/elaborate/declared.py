"""The inputs that a model declares, also where it is not sound as long as their sizes are open."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from convdsl.diagnostics import CompileError
from convdsl.elaborate.files import project_root
from convdsl.elaborate.model import elaborate_tree, source_at, tree_of
from convdsl.elaborate.modules import Library, Modules
from convdsl.elaborate.outside import from_python
from convdsl.elaborate.session import ROOM, Halt, Session, Stop
from convdsl.tensor import TensorType


def declared_inputs(
    path: Path, *, model: str | None, parameters: Mapping[str, Any], zoo: Path | None = None
) -> Mapping[str, TensorType]:
    """By name, in the order of the text: those that come before what ends elaboration."""
    try:
        source = source_at(path)
        tree = tree_of(source)
    except CompileError:
        return {}
    given = {name: from_python(value) for name, value in parameters.items()}
    session, library = Session(), Library(project_root(path), zoo)
    modules, place = Modules(session, library), path.resolve()
    with suppress(CompileError, Halt, Stop):
        ROOM.during(lambda: elaborate_tree(session, modules, source, tree, model, given, place))
    return {name: node.type for name, node in session.graph.inputs.items()}
