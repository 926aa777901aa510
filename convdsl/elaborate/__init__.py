"""From syntax tree to graph: names, parameters, blocks, loops and imports are resolved here."""

from convdsl.elaborate.declared import declared_inputs
from convdsl.elaborate.model import (
    check_definitions,
    check_file,
    elaborate,
    load_file,
    model_spans,
    parameter_value,
    spans_of_models,
)

__all__ = [
    "check_definitions",
    "check_file",
    "declared_inputs",
    "elaborate",
    "load_file",
    "model_spans",
    "parameter_value",
    "spans_of_models",
]
