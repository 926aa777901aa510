"""Models whose open sizes the command line says, where they are sound with numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convdsl import loading, zoo
from convdsl.diagnostics import CompileError, InputError
from convdsl.elaborate import declared_inputs

if TYPE_CHECKING:
    from convdsl.ir.model import Model
    from convdsl.sizes import Shapes


def load_for(source: str | Path, shapes: Shapes, **parameters: Any) -> Model:
    """`loading.load`, where shapes are said of the inputs: a model that is sound with numbers alone
    in the place of open sizes has theirs; else sizes stay open."""
    try:
        return loading.load(source, **parameters)
    except CompileError:
        sizes = said_sizes(*loading.found(str(source)), shapes, parameters)
        if not sizes:
            raise
        return loading.load(source, **parameters, **sizes)


def sizes_of(model: Model, shapes: Shapes) -> Mapping[str, int]:
    """What shapes of a model's inputs say of its open sizes, but for the batch. Raises InputError
    where they do not fit."""
    from convdsl.kernel.signature import batch_symbol
    from convdsl.sizes import bound

    binding = bound({name: value.type for name, value in model.graph.inputs.items()}, shapes)
    samples = batch_symbol(binding)
    return {name: size for name, size in binding.items() if name != samples}


def said_sizes(
    path: Path, model: str | None, shapes: Shapes, parameters: Mapping[str, Any]
) -> Mapping[str, int]:
    """What shapes of inputs say of open sizes, but for the batch; nothing where they do not fit."""
    if shapes is None or path.suffix.lower() == ".onnx":
        return {}
    from convdsl.kernel.signature import batch_symbol
    from convdsl.sizes import bound

    types = declared_inputs(path, model=model, parameters=parameters, zoo=zoo.folder())
    try:
        binding = bound(types, shapes)
    except InputError:
        return {}
    samples = batch_symbol(binding)
    return {name: size for name, size in binding.items() if name != samples}
