"""Graphs on the card that is here, through the same doors as a user's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

import convdsl
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model

Array = np.ndarray[Any, Any]

CACHE = bool(os.environ.get("CONVDSL_SUITE_CACHE"))
"""Whether what is compiled is kept in the user's cache, for another run of the same."""


def run_on_card(
    graph: Graph, arrays: Mapping[str, Array], precision: str = "highest"
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs by name, and the states that change as they are then. `arrays` holds inputs and
    states by name, of any floating-point type."""
    states = {
        key: np.asarray(arrays[key], node.type.dtype.numpy)
        for key, node in graph.states.items()
        if node.data is None
    }
    network = convdsl.compile(
        Model("test", graph), states, device="cuda", precision=precision, passes=(), cache=CACHE
    )
    inputs = {
        name: np.ascontiguousarray(arrays[name], type.dtype.numpy).reshape(arrays[name].shape)
        for name, type in network.inputs.items()
    }
    return network.by_name(**inputs), network.state.copy()
