"""A batch in rounds: all steps for some samples, then for the next ones, as the machine does best.
The program stays one, and its kernels are those of a smaller batch.
"""

from __future__ import annotations

from dataclasses import replace

from convdsl.kernel.program import Port
from convdsl.lowering.lower import Lowered


def in_rounds(lowered: Lowered, rounds: int) -> Lowered:
    """So many times as many samples by the same steps."""
    if rounds == 1:
        return lowered
    program = lowered.program
    inputs, outputs = (
        tuple(whole_port(port, rounds) for port in ports)
        for ports in (program.inputs, program.outputs)
    )
    made = replace(program, rounds=rounds, inputs=inputs, outputs=outputs)
    return replace(lowered, program=made)


def whole_port(port: Port, rounds: int) -> Port:
    """Of all rounds."""
    if rounds == 1:
        return port
    type = port.type
    return Port(port.name, replace(type, shape=(type.shape[0] * rounds, *type.shape[1:])))
