"""Files as modules: what they define, and what they import from each other."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from convdsl.diagnostics import CompileError, SourceFile, Span
from convdsl.elaborate import limits
from convdsl.elaborate.files import ZOO, FileProblem, Library, below, elsewhere, is_file, neighbours
from convdsl.elaborate.scope import Context, LayerNames, Results, Scope
from convdsl.elaborate.session import Refused, Session, Stop, suggest
from convdsl.elaborate.statements import Statements
from convdsl.elaborate.training import TrainBlock, TrainingReader
from convdsl.elaborate.values import POISON, BlockValue
from convdsl.spelling import those
from convdsl.syntax import ast


@dataclass(slots=True)
class Module:
    """A file's definitions. `place` is the real path, None for source text."""

    place: Path | None
    shown: str
    context: Context
    models: dict[str, BlockValue] = field(default_factory=dict[str, BlockValue])
    spans: dict[str, Span] = field(default_factory=dict[str, Span])
    preprocess: list[ast.Preprocess] = field(default_factory=list[ast.Preprocess])
    labels: ast.Labels | None = None
    training: dict[str | None, TrainBlock] = field(default_factory=dict[str | None, TrainBlock])


class Modules:
    """Loads the files that take part in one elaboration, each once."""

    def __init__(self, session: Session, library: Library) -> None:
        self.session = session
        self.library = library
        self.statements: Statements | None = None
        self._loaded: dict[Path, Module] = {}
        self._stack: list[Path] = []

    def evaluate(self, source: SourceFile, tree: ast.File, place: Path | None) -> Module:
        """Run a file's items in order."""
        context = Context(Scope(), LayerNames(), {}, Results())
        module = Module(place, source.path, context)
        self.session.trees[id(source)] = tree
        if place is not None:
            self._stack.append(place)
        for item in tree.items:
            try:
                self._item(item, module)
            except Refused:
                raise
            except Stop:
                continue
        if place is not None:
            self._stack.pop()
            self._loaded[place] = module
        return module

    def _item(self, item: ast.Item, module: Module) -> None:
        context = module.context
        match item:
            case ast.Version():
                pass
            case ast.Use():
                self._use(item, module)
            case ast.Let():
                for target in item.targets:
                    self._define(module, target)
                self._statements.execute(item, context, False)
            case ast.Default() | ast.Assertion():
                self._statements.execute(item, context, False)
            case ast.Block() | ast.Model():
                self._check_parameters(item, module)
                self._define(module, item.name)
                value = BlockValue(item, context.scope, context.defaults)
                context.scope.names[item.name.id] = value
                if isinstance(item, ast.Model):
                    module.models[item.name.id] = value
            case ast.Preprocess():
                module.preprocess.append(item)
            case ast.Labels():
                module.labels = item
            case ast.Train():
                if item.model is not None and item.model.id not in module.models:
                    raise self.session.fail(
                        "E0903",
                        f"there is no model `{item.model.id}` above",
                        item.model.span,
                        help=suggest(item.model.id, module.models)
                        or ((those(module.models),) if module.models else ()),
                    )
                name = item.model.id if item.model is not None else None
                if name in module.training:
                    what = "the file" if name is None else f"`{name}`"
                    text = f"a second `train` for {what}"
                    raise self.session.fail(
                        "E0903",
                        text,
                        (item.model or item).span,
                        help=("write all settings into one",),
                    )
                module.training[name] = TrainingReader(self._statements, context).read(item)

    @property
    def _statements(self) -> Statements:
        assert self.statements is not None
        return self.statements

    def _define(self, module: Module, name: ast.Name) -> None:
        if name.id in module.spans:
            raise self.session.fail(
                "E0202",
                f"`{name.id}` is defined twice",
                name.span,
                (module.spans[name.id], "first here"),
            )
        module.spans[name.id] = name.span

    def _check_parameters(self, item: ast.Block | ast.Model, module: Module) -> None:
        seen: dict[str, Span] = {}
        for parameter in item.parameters:
            name = parameter.name
            if name.id in seen:
                self.session.fail(
                    "E0202",
                    f"two parameters are called `{name.id}`",
                    name.span,
                    (seen[name.id], "first here"),
                )
            seen[name.id] = name.span
            if isinstance(item, ast.Model) and parameter.default is None:
                self.session.fail(
                    "E0302",
                    f"the model's parameter `{name.id}` has no default",
                    name.span,
                    help=(f"a model can be loaded by its name alone: write `{name.id} = ...`",),
                )

    # Imports

    def _use(self, item: ast.Use, module: Module) -> None:
        for imported in item.names:
            name = imported.alias or imported.name
            self._define(module, name)
            module.context.scope.names[name.id] = POISON
        other = self._import(item, module)
        for imported in item.names:
            name = imported.name.id
            found = other.context.scope.names
            if name not in found:
                shown = _shown(item.path.plain or "", module)
                self.session.fail(
                    "E0705",
                    f"{shown} defines no `{name}`",
                    imported.name.span,
                    help=suggest(name, found),
                )
                continue
            module.context.scope.names[(imported.alias or imported.name).id] = found[name]

    def _import(self, item: ast.Use, module: Module) -> Module:
        text = item.path.plain
        if text is None:
            raise self.session.fail("E0702", "an import's path is plain text", item.path.span)
        place: Path | None = None
        try:
            place = self.library.resolve(text, module.place)
            if place in self._stack:
                raise FileProblem("E0703", f'"{text}" imports itself, directly or by others')
            if place in self._loaded:
                return self._loaded[place]
            if len(self._stack) >= limits.IMPORT_DEPTH:
                raise FileProblem("E0804", f"imports nest deeper than {limits.IMPORT_DEPTH}")
            if len(self._loaded) >= limits.IMPORTED_FILES:
                raise FileProblem("E0804", f"more than {limits.IMPORTED_FILES} files")
            source = self.library.source(place, _shown(text, module))
        except FileProblem as problem:
            message, help = problem.message, problem.help
            if problem.code == "E0701" and place is not None and not os.path.lexists(place):
                message, help = f'there is no file "{text}"', self._beside(text, place, module)
            raise self.session.fail(problem.code, message, item.path.span, help=help) from None
        try:
            tree = self.library.tree(source)
        except CompileError as error:
            for diagnostic in error.diagnostics:
                self.session.report(diagnostic)
            raise Stop from None
        return self.evaluate(source, tree, place)

    def _beside(self, text: str, place: Path, module: Module) -> tuple[str, ...]:
        if not place.suffix and is_file(place.with_suffix(".cnn")):
            return (f'did you mean "{text}.cnn"?',)
        root, zoo = self.library.root, self.library.zoo
        if text.startswith(ZOO) or module.place is None or root is None:
            return neighbours(place, text)
        folder = module.place.parent
        found = (
            elsewhere(text, module.place, root)
            or neighbours(place, text)
            or below(place.name, folder)
        )
        if not found and zoo is not None and is_file(zoo / place.name):
            found = (f'the zoo has one: "{ZOO}{place.name}"',)
        return found or (f"paths begin at the importing file's own folder, {folder.name}/",)

    def read_labels(self, path: ast.Text) -> tuple[str, ...]:
        """The class names that `labels "file"` means, one a line."""
        text = path.plain
        if text is None:
            raise self.session.fail("E0902", "the path of the labels is plain text", path.span)
        place: Path | None = None
        try:
            place = self.library.resolve(text, self._importer(path))
            content = self.library.text(place, limits.LABELS_BYTES)
        except FileProblem as problem:
            message, help = problem.message, problem.help
            if problem.code == "E0701" and place is not None and not os.path.lexists(place):
                message = f'there is no file "{text}"'
                help = neighbours(place, text) or below(place.name, place.parent) or _NAMES
            raise self.session.fail(problem.code, message, path.span, help=help) from None
        lines = tuple(line.strip() for line in content.splitlines())
        while lines and not lines[-1]:
            lines = lines[:-1]
        if not lines or not all(lines):
            raise self.session.fail(
                "E0902", f"{place.name} holds no name, or an empty line", path.span
            )
        return lines

    def _importer(self, path: ast.Text) -> Path | None:
        for module in self._loaded.values():
            if module.shown == path.span.source.path:
                return module.place
        return None


_NAMES = ("class names stand in a text file beside this one, one a line",)


def _shown(text: str, module: Module) -> str:
    """How messages call an imported file: relative as the importer is."""
    if text.startswith(ZOO):
        return text
    folder = module.shown.rpartition("/")[0]
    return f"{folder}/{text}" if folder else text
