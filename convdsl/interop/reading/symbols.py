"""Names for the free sizes of an ONNX model's inputs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import onnx

_NO_NAMES = "None|null|nil|any|nan|inf|true|false"
_GENERATED = re.compile(rf"unk__\d+|.*\.DynamicDimension\.\d+|\?|_*|{_NO_NAMES}", re.IGNORECASE)
"""Names that exporters make up where nobody gave one."""


class SymbolNames:
    """The file's own names as words; N, H, W and the like where it has none.

    Axes without a name are told apart by place: the first is the batch, and where there is one
    image, its sides are H and W. The same made-up name is the same size.
    """

    def __init__(self, graph: onnx.GraphProto, deciding: Collection[str]) -> None:
        """`deciding` are inputs of sizes and axes, which have neither batch nor sides."""
        stored = {tensor.name for tensor in graph.initializer}
        inputs = [info for info in graph.input if info.name not in stored]
        images = [info for info in inputs if info.name not in deciding]
        self._names: dict[tuple[str, int], str] = {}
        self._by_generated: dict[str, str] = {}
        taken: set[str] = set()
        free = [
            (info, axis, dim.dim_param)
            for info in inputs
            for axis, dim in enumerate(info.type.tensor_type.shape.dim)
            if dim.dim_value <= 0
        ]
        for info, axis, given in free:
            if not _GENERATED.fullmatch(given):
                self._names[info.name, axis] = word(given)
                taken.add(word(given))
        for info, axis, given in free:
            if (info.name, axis) not in self._names:
                is_named = given not in ("", "?", "None")
                known = self._by_generated.get(given) if is_named else None
                name = known or _place(info, axis, images, taken)
                self._names[info.name, axis] = name
                if is_named:
                    self._by_generated[given] = name
                if name != "N":
                    taken.add(name)

    def name(self, tensor: str, axis: int) -> str:
        return self._names[tensor, axis]


def _place(
    info: onnx.ValueInfoProto,
    axis: int,
    images: Sequence[onnx.ValueInfoProto],
    taken: set[str],
) -> str:
    sizes = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
    letters: dict[int, str] = {0: "N"} if info in images else {}
    if len(images) == 1 and len(sizes) == 4:
        is_last = sizes[3] in (1, 3, 4) and sizes[1] not in (1, 3, 4)
        letters |= {1: "H", 2: "W"} if is_last else {2: "H", 3: "W"}
    if len(images) == 1 and len(sizes) == 3:
        letters[2] = "L"
    wanted = letters.get(axis, f"{word(info.name)}_{axis}")
    return wanted if wanted not in taken else f"{word(info.name)}_{axis}"


def word(text: str) -> str:
    """Letters, digits and underscores, a letter first."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    return plain if plain[:1].isalpha() else f"d_{plain}"
