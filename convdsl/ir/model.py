"""A network as loaded: its graph, and what its text declares around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from convdsl.diagnostics import SourceFile
from convdsl.ir.graph import Graph
from convdsl.ir.preprocess import Preprocessing
from convdsl.tensor import Symbol, TensorType


@dataclass(slots=True)
class Model:
    """A loaded network. Symbols stay symbolic until it is compiled."""

    name: str
    graph: Graph
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])  # DSL parameters in force
    source: SourceFile | None = None
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None  # class names, by index
    weights: Mapping[str, Any] | None = None  # arrays by name, where they came with the network

    @property
    def inputs(self) -> dict[str, TensorType]:
        return {name: value.type for name, value in self.graph.inputs.items()}

    @property
    def outputs(self) -> dict[str, TensorType]:
        return {name: value.type for name, value in self.graph.outputs.items()}

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """Free symbols of the input shapes, in order of appearance."""
        found: dict[str, Symbol] = {}
        for type in self.inputs.values():
            for extent in type.shape:
                for symbol in sorted(TensorType(type.dtype, (extent,)).symbols(), key=str):
                    found.setdefault(symbol.name, symbol)
        return tuple(found.values())
