"""ONNX files as models: free sizes, and inputs whose values decide shapes.

What is missing for one graph of all sizes is assumed where a condition on one size suffices
(`H % 32 == 0`). Otherwise, and for other sizes, the file is read anew for given sizes and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any

import numpy as np
import onnx

from convdsl.diagnostics import InputError
from convdsl.interop.onnx_file import ExternalData, read, unlisted
from convdsl.interop.onnx_import import SizesNeeded, convert, model_name, told_as_malformed
from convdsl.interop.onnx_nodes import narrowed
from convdsl.interop.onnx_ports import (
    deciding_inputs,
    declared_outputs,
    halves_of,
    read_ports,
)
from convdsl.interop.trial import Trial
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.kernel.program import Port
from convdsl.kernel.signature import batch_symbol
from convdsl.spelling import by_words, those
from convdsl.tensor import Symbol, TensorType

_ASSUMPTIONS = 32
"""Conditions on free sizes that are tried, one after the other."""


def load(
    trial: Trial, parameters: Mapping[str, Any] | None = None, outputs: Sequence[str] = ()
) -> Model:
    """The model in a file on trial, with its weights. `parameters` binds free sizes, and inputs
    whose values decide shapes; `outputs` are the tensors wanted, where not all are. Raises
    InputError."""
    proto, external = read(trial)
    return model_of(proto, str(trial.path), parameters or {}, external, outputs)


def model_of(
    proto: onnx.ModelProto,
    source: str,
    parameters: Mapping[str, Any],
    external: ExternalData | None = None,
    outputs: Sequence[str] = (),
) -> Model:
    """A checked file as a model. Raises InputError."""
    with told_as_malformed(source):
        proto = narrowed(proto, source, outputs) if outputs else proto
        return _model_of(_File(proto, source, external), parameters)


def _model_of(file: _File, parameters: Mapping[str, Any]) -> Model:
    proto, source = file.proto, file.source
    types = {port.name: port.type for port in read_ports(proto, source, {}, {}).values()}
    symbols = {s.name for type in types.values() for s in type.symbols()}
    sizes: dict[str, int] = {}
    values: dict[str, Any] = {}
    words = by_words(types)
    for name, given in parameters.items():
        name = name if name in symbols else words.get(name, name)
        if name in symbols:
            sizes[name] = _size(name, given)
        elif name in types:
            values[name] = _value(name, types[name], given)
        else:
            known = those([*sorted(symbols), *types])
            raise InputError(f"{source} has no size and no input called {name}; {known}")
    return file.model(sizes, values)


def _size(name: str, value: Any) -> int:
    try:
        size = 0 if isinstance(value, bool) else index(value)
    except TypeError:
        size = 0
    if size < 1:
        raise InputError(f"{name} = {value}, but it must be at least 1")
    return size


def _value(name: str, type: TensorType, given: Any) -> Any:
    """An array for an input, of the type that the file says."""
    try:
        array = np.asarray(given).astype(type.dtype.numpy, casting="same_kind")
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} = {given} is no {type}") from None
    fits = array.ndim == type.rank and all(
        not isinstance(size, int) or size == has
        for size, has in zip(type.shape, array.shape, strict=True)
    )
    if not fits:
        raise InputError(f"{name} = {given} is no {type}")
    return array


@dataclass(frozen=True)
class _File:
    """A file, and what is known of it already: sizes by symbol, values by port."""

    proto: onnx.ModelProto
    source: str
    external: ExternalData | None
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def model(self, sizes: Mapping[str, int], values: Mapping[str, Any]) -> Model:
        """The network, more being known of it."""
        known = replace(self, sizes={**self.sizes, **sizes}, values={**self.values, **values})
        return known.read()

    def read(self) -> Model:
        """One graph for all that is left open if there can be one, else an open model."""
        ports = self._ports()
        deciding = [ports[name].name for name in deciding_inputs(self.proto.graph)]
        waiting = [name for name in deciding if name not in self.values]
        if waiting:
            reason = f"its shapes depend on the values of {', '.join(waiting)}"
            return self._open(f"{self.source}: {reason}", tuple(waiting))
        assumed: dict[str, Symbol] = {}
        while True:
            try:
                model = self._convert(assumed)
            except SizesNeeded as error:
                found = error.condition
                if found is None or len(assumed) > _ASSUMPTIONS or found in assumed.values():
                    return self._open(f"{error}; {self._bind_first()}", ())
                assumed[found.name] = found
                continue
            model = replace(model, notes=self._notes())
            return self._relaxed(model) if assumed else model

    def _bind_first(self) -> str:
        free = sorted(self._symbols())
        batch = batch_symbol(free)
        said = " ".join("--batch 1" if name == batch else f"--set {name}=..." for name in free)
        return f"bind sizes first ({', '.join(free)})\nhelp: for example {said}"

    def _notes(self) -> tuple[str, ...]:
        """What a reader of the file should know."""
        notes: list[str] = []
        names = [tensor.name for tensor in unlisted(self.proto)]
        if names:
            told = f"{len(names)} initialisers are no inputs, against IR {self.proto.ir_version}"
            notes.append(f"{told} ({names[0]}, ...)")
        halves = sorted(map(str, halves_of(self.proto)))
        if halves:
            notes.append(f"{' and '.join(halves)} numbers are computed with in f32")
        return tuple(notes)

    def _convert(self, assumed: Mapping[str, Symbol]) -> Model:
        by_file = {port.name: name for name, port in self._ports().items()}
        values = {by_file[name]: value for name, value in self.values.items()}
        return convert(self.proto, self.source, self.sizes, values, self.external, assumed)

    def _ports(self) -> Mapping[str, Port]:
        return read_ports(self.proto, self.source, self.sizes, {})

    def _symbols(self) -> set[str]:
        return {s.name for port in self._ports().values() for s in port.type.symbols()}

    def _free_inputs(self) -> dict[str, TensorType]:
        return {p.name: p.type for p in self._ports().values() if p.name not in self.values}

    def _relaxed(self, model: Model) -> Model:
        """A graph under assumptions; where they do not hold, the file is read anew."""
        return replace(model, accepts=self._free_inputs(), reread=self.model)

    def _open(self, obstacle: str, deciding: tuple[str, ...]) -> Model:
        graph = Graph()
        for name, type in self._free_inputs().items():
            graph.add_input(name, type)
        return Model(
            name=model_name(self.proto, self.source),
            graph=graph,
            obstacle=obstacle,
            deciding=deciding,
            declares=declared_outputs(self.proto),
            notes=self._notes(),
            reread=self.model,
        )
