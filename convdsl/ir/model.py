"""A network as loaded: its graph, and what its text declares around it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from convdsl.appearance import Shown
from convdsl.diagnostics import Diagnostic, InputError, SourceFile, expect
from convdsl.ir.graph import Graph
from convdsl.ir.preprocess import Preprocessing, usual_preprocessing
from convdsl.ir.training import Training
from convdsl.tensor import Symbol, TensorType


@dataclass(slots=True, repr=False)
class Model(Shown):
    """A loaded network. Symbols stay symbolic until it is compiled."""

    name: str
    graph: Graph
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])  # DSL parameters in force
    source: SourceFile | None = None
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None  # class names, by index
    training: Training | None = None  # the `train` block of the model, or else of its file
    shares_training: bool = False  # the block is the file's, which holds other models, too
    weights: Mapping[str, Any] | None = None  # arrays by name, where they came with the network
    notes: tuple[str, ...] = ()  # said to the user: how the file was read
    warnings: tuple[Diagnostic, ...] = ()  # what is likely wrong in the text, and can be computed

    # Networks whose graph is another one for other sizes: ONNX files. While there is an
    # `obstacle`, the graph has inputs only.
    obstacle: str | None = None  # what has to be known before there is a graph
    deciding: tuple[str, ...] = ()  # inputs whose values decide shapes
    declares: Mapping[str, TensorType] = field(default_factory=dict[str, TensorType])  # outputs
    accepts: Mapping[str, TensorType] = field(default_factory=dict[str, TensorType])  # other inputs
    reread: Callable[[Mapping[str, int], Mapping[str, Any]], Model] | None = None

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {type}" for name, type in self.inputs.items())
        outputs = ", ".join(f"{name} {type}" for name, type in self.outputs.items())
        return f"<Model {self.name}: {inputs} -> {outputs}>"

    def __copy__(self) -> Model:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        own = {each.name: copy.deepcopy(getattr(self, each.name), memo) for each in fields(self)}
        return replace(self, **own)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """What pickle takes. Kernels of most operators are functions made where they stand, which
        it does not: then it is said what can be sent instead."""
        made = object.__reduce_ex__(self, protocol)
        try:
            pickle.dumps(made, protocol)
        except (pickle.PicklingError, AttributeError, TypeError, RecursionError):
            raise pickle.PicklingError(
                f"the model {self.name} cannot be pickled: send its file's path, or a "
                "convdsl.Predictor, which each process opens by itself"
            ) from None
        return made

    @property
    def image_preprocessing(self) -> Preprocessing | None:
        """How images become an input: as the text declares it; for a network of one image that has
        a `train` block, and declares nothing, as training reads images."""
        if self.preprocessing is not None or self.training is None:
            return self.preprocessing
        images = [(name, type) for name, type in self.inputs.items() if type.rank == 4]
        if len(images) != 1 or images[0][1].shape[1] not in (1, 3):
            return None
        return usual_preprocessing(*images[0], self.training.setting("fit"))

    @property
    def inputs(self) -> dict[str, TensorType]:
        return {name: value.type for name, value in self.graph.inputs.items()}

    @property
    def outputs(self) -> dict[str, TensorType]:
        found = {name: value.type for name, value in self.graph.outputs.items()}
        return dict(self.declares) if self.obstacle else found

    def settled(self, sizes: Mapping[str, int], values: Mapping[str, Any] | None = None) -> Model:
        """The network whose graph stands for these sizes, and for these values of inputs that
        decide shapes. Raises InputError where more has to be known."""
        missing = [name for name in self.deciding if name not in (values or {})]
        if self.reread is None or (self.obstacle is None and self._stands_for(sizes)):
            return self
        if missing:
            raise InputError(f"{self.obstacle}")
        found = self.reread(sizes, values or {})
        if found.obstacle is not None:
            raise InputError(found.obstacle)
        return found

    def _stands_for(self, sizes: Mapping[str, int]) -> bool:
        """Whether sizes fit what the graph assumes of them."""
        known = {s.name: s for value in self.graph.inputs.values() for s in value.type.symbols()}
        return all(known[name].admits(size) for name, size in sizes.items() if name in known)

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """Free symbols of the input shapes, in order of appearance."""
        found: dict[str, Symbol] = {}
        for type in self.inputs.values():
            for extent in type.shape:
                for symbol in sorted(TensorType(type.dtype, (extent,)).symbols(), key=str):
                    found.setdefault(symbol.name, symbol)
        return tuple(found.values())


def expect_model(model: object) -> None:
    """InputError for what is no model; of the name of one, how to load it."""
    if isinstance(model, str | Path):
        raise InputError(
            f"the model is a {type(model).__name__}, not a Model: convdsl.load(...) makes one"
        )
    expect("the model", model, Model)
