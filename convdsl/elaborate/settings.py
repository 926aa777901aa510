"""Training settings from outside a source: what `--set train.epochs=5` says."""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.diagnostics import CompileError, SourceFile
from convdsl.elaborate.files import Library
from convdsl.elaborate.modules import Modules
from convdsl.elaborate.session import ROOM, Halt, Session, Stop
from convdsl.elaborate.statements import Statements
from convdsl.ir.training import Training
from convdsl.syntax.parser import parse


def training_settings(assignments: Mapping[str, str]) -> Training:
    """What texts by the settings' names mean, read as in a `train` block: each line of one.

    Raises CompileError with all that cannot be, which points into the text of the assignments.
    """
    lines = (f"    {name} = {text}" for name, text in assignments.items())
    source = SourceFile("--set", "\n".join(("train {", *lines, "}")) + "\n")
    session = Session()
    modules = Modules(session, Library(None, None))
    tree = parse(source)
    modules.statements = Statements(session, {}, modules.read_labels)
    try:
        module = ROOM.during(lambda: modules.evaluate(source, tree, None))
    except (Halt, Stop):
        raise CompileError(session.told()) from None
    session.finish()
    return module.training[None].settings
