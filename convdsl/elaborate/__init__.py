"""From syntax tree to graph: names, parameters, blocks, loops and imports are resolved here."""

from convdsl.elaborate.model import check_definitions, elaborate, load_file, parameter_value

__all__ = ["check_definitions", "elaborate", "load_file", "parameter_value"]
