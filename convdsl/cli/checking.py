"""What `convdsl check` looks at, and what it finds: files, artifacts, project files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from convdsl import loading, zoo
from convdsl.cli import budgets, console, sizing
from convdsl.cli.files import plain_path
from convdsl.cli.options import input_shapes, parameters
from convdsl.cli.settings import taken_out
from convdsl.diagnostics import ArtifactError, CompileError, Diagnostic, InputError
from convdsl.elaborate import check_file, load_file, model_spans
from convdsl.elaborate.files import ROOT_MARK, parsed_once
from convdsl.findings import Finding
from convdsl.ir.model import Model
from convdsl.project.reading import Project, project_here, project_of, read
from convdsl.runtime.saved import is_artifact

_Found = tuple[Diagnostic, str | None]
"""With the file that was looked at."""


class Checks:
    """One run over files; project files are read once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.count = 0
        self.damaged: list[str] = []  # what is said of artifacts that are
        self._options = options
        self._training = taken_out(options)
        self._projects: dict[Path, Project | CompileError] = {}
        self._models: list[tuple[Path, str]] = []  # that were looked at
        self._listing = False  # whether a project's whole list was

    def all(self) -> list[Finding]:
        """What is found, in the order of places, once each: models share what is around them."""
        found: dict[tuple[Any, ...], Finding] = {}
        for diagnostic, file in self._findings():
            place = diagnostic.to_json()
            at = (place["file"] or file or "", place["line"] or 0, place["column"] or 0)
            key = (*at, diagnostic.code, diagnostic.message if "E10" in diagnostic.code else "")
            found.setdefault(key, Finding(diagnostic, file))
        return [found[key] for key in sorted(found)]

    def _findings(self) -> Iterator[_Found]:
        if not self._options.model:
            yield from self._listed(self._here())
        for name in self._options.model:
            path = plain_path(name)
            self.count += 1
            if path.name == ROOT_MARK and path.is_file():
                yield from self._listed(self._project(path))
            else:
                try:
                    yield from _told(self._named(name), _file_of(name))
                except ArtifactError as error:  # the other files are looked at all the same
                    self.damaged.append(str(error))
        for place, project in self._projects.items():
            if isinstance(project, CompileError):
                yield from ((d, os.path.relpath(place)) for d in project.diagnostics)
            else:
                yield from ((diagnostic, None) for diagnostic in self._without_model(project))

    def _here(self) -> Project | None:
        """The project of the current folder, which has to list models."""
        try:
            return project_here()
        except CompileError:
            return self._project(Path("x"))  # where it is told

    def _listed(self, project: Project | None) -> Iterator[_Found]:
        """All models that a project file lists, and whether there are models for all it says."""
        if project is None:
            return
        yield from ((diagnostic, None) for diagnostic in project.missing())
        for file in project.files_from_here():
            self.count += 1
            yield from _told(self._check_file(file, None), str(file))
        if project.models:
            self._listing = True
            yield from ((diagnostic, None) for diagnostic in project.unused(self._models))

    def _project(self, file: Path) -> Project | None:
        """What the project file of a model's file says; what is wrong in it is told at the end."""
        place = project_of(file)
        if place is None:
            return None
        if place not in self._projects:
            try:
                self._projects[place] = read(place, os.path.relpath(place))
            except CompileError as error:
                self._projects[place] = error
        project = self._projects[place]
        return None if isinstance(project, CompileError) else project

    def _without_model(self, project: Project) -> Iterator[Diagnostic]:
        """Budgets of no model, where only some files were named: of none in the other files, too.
        Where the project lists none, there may be others than those beside it, and a budget is
        misspelt only if it is nearly called as a model."""
        if self._listing or not any(project.unused(self._models)):
            return
        models = list(self._models)
        try:
            for file in list(project.files()) or sorted(project.folder.glob("*.cnn")):
                models += ((file, name) for name in model_spans(file))
        except (CompileError, InputError):
            return  # who knows what is in there
        for diagnostic in project.unused(models):
            if project.models or any("did you mean" in text for text in diagnostic.help):
                yield diagnostic

    def _named(self, name: str) -> Iterator[Diagnostic]:
        """What is wrong with what the command line names."""
        path = plain_path(name)
        head, colon, model = name.rpartition(":")
        if is_artifact(path):
            yield from self._artifact(path)
        elif _is_source(path):
            yield from self._check_file(path, None)
        elif colon and _is_source(plain_path(head)):
            yield from self._check_file(plain_path(head), model)
        else:
            loaded = loading.load(name, **parameters(self._options))
            yield from loaded.warnings
            yield from budgets.findings(loaded, None, self._options)

    def _artifact(self, path: Path) -> Iterator[Diagnostic]:
        from convdsl.cli.info import facts_of

        facts = facts_of(str(path))
        project, name = self._project(path), str(facts["model"])
        note = f"{path} is an artifact of {name}, whole; `convdsl info` says more"
        console.note(note)
        kept = iter(()) if project is None else project.budgets_of(path, name)
        yield from budgets.findings_of_an_artifact(
            name, facts["file bytes"], str(path), kept, self._options
        )

    def _check_file(self, path: Path, model: str | None) -> Iterator[Diagnostic]:
        """One model of a file, or every one, or its blocks where it holds no model."""
        with parsed_once():
            yield from self._check_models(path, model)

    def _check_models(self, path: Path, model: str | None) -> Iterator[Diagnostic]:
        given = parameters(self._options)
        spans = model_spans(path)
        if not spans:
            yield from check_file(path, zoo=zoo.folder())
        for name in spans if model is None else (model,):
            self._models.append((path, name))
            try:
                loaded = self._loaded(path, name, given)
            except CompileError as error:
                yield from error.diagnostics
                continue
            yield from self._trained(loaded)
            yield from budgets.findings(loaded, spans[name], self._options)
            project = self._project(path)
            for budget in () if project is None else project.budgets_of(path, name):
                yield from budgets.findings_of_a_file(path, spans[name], budget, self._options)

    def _trained(self, model: Model) -> Iterator[Diagnostic]:
        """Warnings of a model, and losses and metrics that cannot judge what the network puts out:
        of its `train` block, and what `--set train.` says over it."""
        said = self._training
        yield from (w for w in model.warnings if not ("loss" in said and w.code == "W0903"))
        if model.training is None and not said:
            return
        from convdsl.training.judging import disagreements

        yield from disagreements(model, said)

    def _loaded(self, path: Path, name: str, given: Mapping[str, Any]) -> Model:
        """A model of a file; what `--input` says of open sizes holds where it needs them."""
        try:
            return load_file(path, model=name, parameters=given, zoo=zoo.folder())
        except CompileError:
            sizes = sizing.said_sizes(path, name, input_shapes(self._options), given)
            if not sizes:
                raise
            given = {**given, **sizes}
            return load_file(path, model=name, parameters=given, zoo=zoo.folder())


def _told(found: Iterator[Diagnostic], file: str | None) -> Iterator[_Found]:
    """What is found in a file, also what ends the search."""
    try:
        yield from ((diagnostic, file) for diagnostic in found)
    except CompileError as error:
        yield from ((diagnostic, file) for diagnostic in error.diagnostics)


def _file_of(name: str) -> str | None:
    """The file that a name on the command line means, where it is one."""
    head, colon, _ = name.rpartition(":")
    return next((x for x in (name, head if colon else name) if Path(x).exists()), None)


def _is_source(path: Path) -> bool:
    return path.suffix == ".cnn" and path.is_file()
