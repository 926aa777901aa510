"""A file's model as a graph: the entry points of elaboration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from convdsl.diagnostics import CompileError, Diagnostic, SourceFile, Span, reason
from convdsl.elaborate.anew import check_anew
from convdsl.elaborate.doubts import check_doubts
from convdsl.elaborate.files import (
    FileProblem,
    Library,
    project_root,
    read_text,
    source_of,
    tree_of,
)
from convdsl.elaborate.late import check_defaults
from convdsl.elaborate.leftovers import check_leftovers
from convdsl.elaborate.modules import Module, Modules
from convdsl.elaborate.outside import (
    blamed,
    from_python,
    objection,
    of_no_parameter,
    to_python,
)
from convdsl.elaborate.scope import Context, LayerNames, Results, Scope
from convdsl.elaborate.session import ROOM, Halt, Session, Stop, suggest
from convdsl.elaborate.statements import Statements
from convdsl.elaborate.unused import check_unused
from convdsl.elaborate.usage import check_usage
from convdsl.elaborate.values import (
    NOTHING,
    POISON,
    SPELLED,
    BlockValue,
    ListValue,
    Operator,
    Record,
    describe,
)
from convdsl.ir.graph import Value
from convdsl.ir.model import Model
from convdsl.syntax import ast
from convdsl.syntax.limits import SOURCE_BYTES
from convdsl.syntax.parser import parse
from convdsl.tensor import TensorType, format_shape


def load_file(
    path: Path,
    *,
    model: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    zoo: Path | None = None,
) -> Model:
    """The model in a `.cnn` file; see elaborate. `zoo` is the folder that `zoo:` imports mean."""
    return elaborate(
        source_at(path), model=model, parameters=parameters, root=project_root(Path(path)), zoo=zoo
    )


def source_at(path: Path) -> SourceFile:
    """The text of a file; raises CompileError."""
    try:
        text = read_text(Path(os.path.realpath(path)), SOURCE_BYTES)
    except FileProblem as problem:
        raise CompileError([Diagnostic(problem.code, problem.message)]) from None
    except (OSError, ValueError) as error:
        raise CompileError([Diagnostic("E0701", f"cannot read {path}: {reason(error)}")]) from None
    return source_of(str(path), text)


def model_spans(path: Path) -> dict[str, Span]:
    """The models in a `.cnn` file by name, and where they are; raises CompileError."""
    return spans_of_models(source_at(path))


def spans_of_models(source: SourceFile) -> dict[str, Span]:
    """The models in a source by name, and where they are; raises CompileError."""
    items = tree_of(source).items
    return {item.name.id: item.name.span for item in items if isinstance(item, ast.Model)}


def elaborate(
    source: SourceFile,
    *,
    model: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    root: Path | None = None,
    zoo: Path | None = None,
) -> Model:
    """The graph of a source's model. Raises CompileError with all diagnostics.

    `model` chooses where a file holds several; `parameters` set the model's parameters, or
    bind symbols of its inputs. Imports are read from below `root` (none without it; then
    `source.path` is where the file is), and as `zoo:name.cnn` from the folder `zoo`.
    """
    tree = tree_of(source)
    given = {name: from_python(value) for name, value in (parameters or {}).items()}

    def attempt(values: Mapping[str, Any]) -> Model:
        session = Session()
        modules = Modules(session, Library(root, zoo))
        place = Path(source.path).resolve() if root is not None else None
        try:
            return ROOM.during(
                lambda: elaborate_tree(session, modules, source, tree, model, values, place)
            )
        except (Halt, Stop):
            raise CompileError(session.told()) from None

    try:
        return attempt(given)
    except CompileError as error:
        raise blamed(error, given, attempt) from None


def check_file(path: Path, *, zoo: Path | None = None) -> tuple[Diagnostic, ...]:
    """Check a file of blocks that holds no model; see check_definitions."""
    return check_definitions(source_at(path), root=project_root(Path(path)), zoo=zoo)


def check_definitions(
    source: SourceFile, *, root: Path | None = None, zoo: Path | None = None
) -> tuple[Diagnostic, ...]:
    """Check a source of blocks that holds no model: imports, values, names; see elaborate. Gives
    the warnings."""
    session = Session()
    modules = Modules(session, Library(root, zoo))
    tree = tree_of(source)
    place = Path(source.path).resolve() if root is not None else None
    try:
        ROOM.during(lambda: check_tree(session, modules, source, tree, place))
    except (Halt, Stop):
        raise CompileError(session.told()) from None
    session.finish()
    return tuple(session.warnings)


def check_tree(
    session: Session,
    modules: Modules,
    source: SourceFile,
    tree: ast.File,
    place: Path | None,
    language: type[Statements] = Statements,
) -> None:
    """Check a tree without a model; what is wrong is recorded in the session. Raises Halt, Stop."""
    modules.statements = language(session, {}, modules.read_labels)
    module = modules.evaluate(source, tree, place)
    check_unused(session, tree, module.context.scope, session.instantiated)
    if not session.diagnostics:
        check_usage(session, tree, None)
    if all(isinstance(item, ast.Version) for item in tree.items):
        help = ("write `model NAME { input x: f32[N, 3, 224, 224]  ... }`",)
        session.warn("W0601", "the file defines nothing", tree.span, help=help)


def elaborate_tree(
    session: Session,
    modules: Modules,
    source: SourceFile,
    tree: ast.File,
    model: str | None,
    values: Mapping[str, Any],
    place: Path | None,
    language: type[Statements] = Statements,
) -> Model:
    """The model of a tree that stands at `place`, in a session: see elaborate. Raises CompileError,
    or Halt or Stop after the session recorded why; its graph is as far as it got."""
    symbols = {name: v for name, v in values.items() if isinstance(v, int)}
    session.is_as_written = not values
    statements = language(session, symbols, modules.read_labels)
    modules.statements = statements
    module = modules.evaluate(source, tree, place)
    chosen = _choose(session, module, tree, model)
    context, in_force = _context(statements, module, chosen, values)
    body = chosen.definition.body
    last = statements.run(body, context, True)
    if (context.results.values or "out" in context.scope.names) and body.statements:
        statements.check_used(last, body.statements[-1], context)
    for name in values:
        if name not in in_force and name not in statements.inputs.bound:
            known = [p.name.id for p in chosen.definition.parameters]
            told = of_no_parameter(session.graph, chosen.name, name, known)
            session.fail(
                "E0605",
                f"`{chosen.name}` has no parameter `{name}`",
                chosen.definition.name.span,
                help=told,
            )
    _set_outputs(session, chosen, context, last)
    labels = _surroundings(session, statements, module, context)
    used = session.instantiated | {id(chosen.definition)}
    check_unused(session, tree, module.context.scope, used)
    training = module.training.get(chosen.name, module.training.get(None))
    shared = chosen.name not in module.training and len(module.models) > 1
    if training is not None and not session.diagnostics:
        training.check(session, shared=shared)
    session.finish()
    assert isinstance(chosen.definition, ast.Model)
    usage = check_usage(session, tree, chosen.definition)
    check_defaults(session, tree)
    check_leftovers(session, source, usage)
    check_doubts(session, source)
    check_anew(session, tree, source)
    return Model(
        chosen.name,
        session.graph,
        in_force,
        source,
        statements.preprocessing,
        labels,
        training=training and training.settings,
        shares_training=shared,
        warnings=tuple(session.warnings),
    )


_NAMED = 4
"""Models of a file that are offered."""


def _choose(session: Session, module: Module, tree: ast.File, name: str | None) -> BlockValue:
    models = module.models
    if name is not None:
        if name not in models:
            session.finish()  # a model that shares its name with a block is not there, either
            raise session.fail(
                "E0601",
                f"there is no model `{name}` in {module.shown}",
                tree.span,
                help=suggest(name, models) or ((f"it has {', '.join(models)}",) if models else ()),
            )
        return models[name]
    if len(models) == 1:
        return next(iter(models.values()))
    session.finish()  # which one is to be looked at is no mistake of who has made another
    if models:
        named = ", ".join(f"{module.shown}:{name}" for name in islice(models, _NAMED))
        raise session.fail(
            "E0601",
            f"{module.shown} holds {len(models)} models: {', '.join(models)}",
            *[m.definition.name.span for m in models.values()],
            help=(f"choose one: {named}",),
        )
    raise session.fail(
        "E0601",
        f"{module.shown} holds no model",
        tree.span,
        help=("write `model NAME { input x: f32[N, 3, 224, 224]  ... }`",),
    )


def _context(
    statements: Statements, module: Module, chosen: BlockValue, values: Mapping[str, Any]
) -> tuple[Context, dict[str, Any]]:
    """The model's own scope with its parameters, and the parameters for `Model`."""
    scope = Scope(module.context.scope)
    context = Context(scope, LayerNames(), chosen.defaults, Results(), root=True)
    in_force: dict[str, Any] = {}
    fits = True
    for parameter in chosen.definition.parameters:
        name = parameter.name.id
        if name in values:
            value = values[name]
            if isinstance(value, str) or _lists_layers(statements, parameter.default, context):
                value = _named_value(value, module.context.scope)
            fits = _check_outside(statements, parameter, value, context) and fits
        elif parameter.default is not None:
            value = statements.evaluate(parameter.default, context)
        else:
            value = POISON
        statements.define(name, value, context)
        in_force[name] = to_python(value)
    if not fits:
        raise Stop
    return context, in_force


PLAIN = (ast.Literal, ast.Text, ast.Name, ast.Signed, ast.Items)
"""Defaults that are what they are, whatever other parameters are set to."""


def _check_outside(
    statements: Statements, parameter: ast.Parameter, value: Any, context: Context
) -> bool:
    """Whether a value from outside is of a kind that the default is; reported where not."""
    if not isinstance(parameter.default, PLAIN):
        return True
    name = parameter.name
    default = statements.evaluate(parameter.default, context)
    found = objection(name.id, value, default, context.scope.visible())
    if found is not None:
        text, help = found
        statements.fail(context, "E0606", text, parameter.span, help=help)
    return found is None


def _lists_layers(statements: Statements, default: ast.Expression | None, context: Context) -> bool:
    """Whether a default is a list with layers in it, so that words in another are their names."""
    if not isinstance(default, ast.Items):
        return False
    waiting = [statements.evaluate(default, context)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, ListValue):
            waiting += value.items
        elif isinstance(value, BlockValue | Operator):
            return True
    return False


def _named_value(text: Any, scope: Scope) -> Any:
    """A word given from outside, or those of a list: a block or an operator of that name, else the
    text."""
    if isinstance(text, ListValue):
        return ListValue.of(tuple(_named_value(item, scope) for item in text.items))
    if not isinstance(text, str):
        return text
    found, value = scope.find(text)
    if found and isinstance(value, BlockValue | Operator):
        return value
    return SPELLED.get(text, text)


def _set_outputs(session: Session, chosen: BlockValue, context: Context, last: Any) -> None:
    name = chosen.definition.name
    results = context.results
    if not results.values:
        value = context.scope.names.get("out", last)
        if value is POISON:
            return
        if not isinstance(value, Value):
            what = "ends with nothing" if value is NOTHING else f"ends with {describe(value)}"
            raise session.fail(
                "E0604",
                f"`{name.id}` has no output: it {what}",
                name.span,
                help=(_ending(chosen.definition.body),),
            )
        results.values["out"] = value
    if not session.graph.inputs and not session.diagnostics:
        raise session.fail(
            "E0602",
            f"`{name.id}` has no input",
            name.span,
            help=("declare one: input image: f32[N, 3, 224, 224]",),
        )
    for label, value in results.values.items():
        if isinstance(value, ListValue | Record):
            session.fail(
                "E0604",
                f"the output `{label}` is {describe(value)}, not a tensor",
                results.spans[label],
            )
        elif isinstance(value, Value):
            session.graph.outputs[label] = value


def _ending(body: ast.Body) -> str:
    """How the body could end with a result."""
    last = body.statements[-1] if body.statements else None
    if isinstance(last, ast.Assign) and len(last.targets) == 1:
        bound = last.targets[0].id
        return f"end with what is bound last: `{bound} -> output NAME`, or just `{bound}`"
    return "end a chain with `-> output NAME`"


def _surroundings(
    session: Session, statements: Statements, module: Module, context: Context
) -> tuple[str, ...] | None:
    """The class names; what the file declares for all its models counts where it fits."""
    if statements.preprocessing is None:
        for node in module.preprocess:
            if node.input.id in session.graph.inputs:
                statements.execute(node, context, False)
    types = [value.type for value in session.graph.outputs.values()]
    if statements.labels is None:
        if module.labels is None:
            return None
        labels = statements.read_labels(module.labels.path)
        return labels if _fit(labels, types) else None
    node, labels = statements.labels
    if types and not _fit(labels, types):
        shapes = " and ".join(format_shape(type.shape) for type in types)
        session.fail("E0902", f"{len(labels)} class names, but the output is {shapes}", node.span)
    return labels


def _fit(labels: tuple[str, ...], types: Sequence[TensorType]) -> bool:
    """Whether some output has a channel for each class."""
    return any(type.rank >= 2 and type.shape[1] == len(labels) for type in types)


# Values from texts


def parameter_value(text: str) -> Any:
    """The value that `--set NAME=text` means: a number, boolean, size or list, else the text."""
    try:
        tree = parse(SourceFile("--set", f"let value = {text}"))
    except CompileError:
        return text
    let = tree.items[0] if tree.items else None
    value = _constant(let.value) if isinstance(let, ast.Let) and len(tree.items) == 1 else None
    return text if value is None else value


def _constant(node: ast.Expression) -> Any:
    match node:
        case ast.Literal():
            return node.value
        case ast.Text():
            return node.plain
        case ast.Name():
            return node.id
        case ast.Signed(operand=ast.Literal(value=int() | float() as value)):
            return -value if node.negative else value
        case ast.Items():
            items = [_constant(item) for item in node.items]
            return None if any(item is None for item in items) else items
        case _:
            return None
