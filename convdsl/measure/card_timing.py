"""How long the kernels of a program take on a card that is here, each by itself.

    seconds of a kernel = seconds of a graph of many of its launches / their number

so that the host does not count. What a kernel reads lies in the card's cache where it fits there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convdsl.kernel.cuda_binary import CudaBinary
from convdsl.kernel.cuda_module import Launch
from convdsl.measure.card_prediction import Made
from convdsl.measure.steps import random_inputs
from convdsl.runtime.cuda.card import Card, cupy, on_card
from convdsl.runtime.cuda.launching import Addresses, Functions

TIMES, ROUNDS = 20, 5
"""Of a kernel in a graph, and of the graph: kernels of some microseconds make a tenth of a
millisecond, a hundred times what events resolve."""


def time_on_card(made: Made, arrays: Mapping[str, Any], card: Card) -> list[float]:
    """Seconds of every launch, in order; `arrays` are the weights by key. DeviceError where the
    card fails."""
    found = cupy()
    with on_card(found, card.number):
        return _times(found, made, arrays, card)


def _times(found: Any, made: Made, arrays: Mapping[str, Any], card: Card) -> list[float]:
    program, compiled = made.lowered.program, made.compiled
    binary = CudaBinary(made.target.arch, compiled.cubin, compiled.ptx, made.module.launches)
    functions = Functions(found, binary, card)
    weights = np.zeros(program.weight_bytes, np.uint8)
    made.lowered.pack_weights(arrays, weights)
    memory = [found.cuda.alloc(max(size, 1)) for size in (weights.nbytes, program.arena_bytes)]
    if weights.nbytes:
        memory[0].copy_from_host(weights.ctypes.data, weights.nbytes)
    zeros = [
        [np.zeros(port.type.sizes, port.type.dtype.numpy) for port in ports]
        for ports in (program.outputs, program.states)
    ]
    held = [[_placed(found, a) for a in of] for of in (random_inputs(program), *zeros)]
    places = (tuple(int(array.data.ptr) for array in of) for of in held)
    addresses = Addresses(int(memory[0].ptr), int(memory[1].ptr), *places)
    stream = found.cuda.Stream(non_blocking=True)
    found.cuda.get_current_stream().synchronize()  # everything is where it belongs
    functions.launch_all(
        functions.launches, addresses, stream
    )  # and values are as a call makes them
    stream.synchronize()
    graphs = [_repeated(functions, launch, addresses, stream) for launch in functions.launches]
    return [_timed(found, graph, stream) / TIMES for graph in graphs]


def _placed(found: Any, array: Any) -> Any:
    made = found.empty(array.shape, array.dtype)
    made.set(np.asarray(array, order="C"))
    return made


def _repeated(functions: Functions, launch: Launch, addresses: Addresses, stream: Any) -> Any:
    """So many launches in a row as a graph."""
    stream.begin_capture()
    try:
        for _ in range(TIMES):
            functions.launch(launch, addresses, stream)
    finally:
        graph = stream.end_capture()
    return graph


def _timed(found: Any, graph: Any, stream: Any) -> float:
    """Seconds of a graph: the best of some rounds, the first of which also wakes the clocks."""
    best = float("inf")
    for _ in range(ROUNDS):
        start, end = found.cuda.Event(), found.cuda.Event()
        start.record(stream)
        graph.launch(stream)
        end.record(stream)
        end.synchronize()
        best = min(best, found.cuda.get_elapsed_time(start, end) * 1e-3)
    return best
