"""A program compiled for a card: machine code, PTX, and what is launched; as bytes, too.

0    bytes of the three parts that follow, as three u64
24   facts: JSON {"arch", "launches"}
...  cubin, the machine code of one architecture
...  PTX, from which a driver makes machine code for later ones
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from convdsl.kernel.cuda_module import Launch, Three
from convdsl.kernel.program import Access, Argument, Place
from convdsl.tensor.records import record

_LENGTHS = struct.Struct("<QQQ")


@record
class CudaBinary:
    """Everything that running needs, besides weights and sizes. `arch` as in CudaTarget."""

    arch: str
    cubin: bytes
    ptx: str
    launches: tuple[Launch, ...]

    def to_bytes(self) -> bytes:
        """What the code cache and artifacts keep as object code."""
        facts = {"arch": self.arch, "launches": [_launch_to_json(row) for row in self.launches]}
        parts = (json.dumps(facts).encode(), self.cubin, self.ptx.encode())
        return b"".join((_LENGTHS.pack(*map(len, parts)), *parts))

    @staticmethod
    def from_bytes(data: bytes) -> CudaBinary:
        """The same again. ValueError, KeyError or TypeError for what `to_bytes` never wrote."""
        if len(data) < _LENGTHS.size:
            raise ValueError("no lengths")
        lengths = _LENGTHS.unpack_from(data)
        if _LENGTHS.size + sum(lengths) != len(data):
            raise ValueError("parts do not fill the whole")
        middle, end = _LENGTHS.size + lengths[0], _LENGTHS.size + lengths[0] + lengths[1]
        facts = json.loads(data[_LENGTHS.size : middle])
        launches = tuple(map(_launch_from_json, facts["launches"]))
        return CudaBinary(str(facts["arch"]), data[middle:end], data[end:].decode(), launches)


def _launch_to_json(launch: Launch) -> dict[str, Any]:
    return {
        "function": launch.function,
        "grid": launch.grid,
        "block": launch.block,
        "shared_bytes": launch.shared_bytes,
        "arguments": [(a.place.value, a.slot, a.offset, a.access.value) for a in launch.arguments],
        "nodes": launch.nodes,
        "first": launch.first,
    }


def _launch_from_json(data: Mapping[str, Any]) -> Launch:
    arguments = tuple(
        Argument(Place(place), _count(slot), _count(offset), Access(access))
        for place, slot, offset, access in data["arguments"]
    )
    grid, block = _three(data["grid"]), _three(data["block"])
    shared, nodes = _count(data["shared_bytes"]), tuple(map(str, data["nodes"]))
    first = _count(data.get("first", 0))  # artifacts, which have one phase, may not say
    return Launch(str(data["function"]), grid, block, shared, arguments, nodes, first=first)


def _three(values: Sequence[Any]) -> Three:
    x, y, z = map(_count, values)
    if not (x and y and z):
        raise ValueError(f"a grid of {x} x {y} x {z}")
    return x, y, z


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} counts nothing")
    return value
