"""Weights that are there under other names, and what is said of them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from convdsl.tensor import TensorType
from convdsl.weights.store import Entry, shown

_SUGGESTIONS = 25  # names to look for near misses; a wholly foreign file needs none
_ALIKE = 0.75
"""How alike names are that may be slips of each other; of tensors of one shape less will do."""
_ALIKE_IN_SHAPE = 0.6
_PAIRS = 6
"""Layers that are named with what they may be called."""

_Shapes = Mapping[str, tuple[object, ...]]
_Layers = dict[str, tuple[tuple[str, tuple[object, ...]], ...]]


def absences(missing: Mapping[str, TensorType], extra: Mapping[str, Entry]) -> list[str]:
    """A line for each weight that is not there, with the name that may be a slip of its own: of a
    tensor of its shape, else of one that has as many axes."""
    lines: list[str] = []
    for index, (name, type) in enumerate(missing.items()):
        close = ""
        if index < _SUGGESTIONS and len(extra) <= 2000:
            close = _slip(name, type, extra)
        near = f"; did you mean {shown(close)}?" if close else ""
        lines.append(f"{name}: not in the file, the model needs {type}{near}")
    return lines


def _slip(name: str, type: TensorType, extra: Mapping[str, Entry]) -> str:
    same = [other for other, entry in extra.items() if entry.shape == type.shape]
    rank = [other for other, entry in extra.items() if len(entry.shape) == type.rank]
    found = difflib.get_close_matches(name, same, n=1, cutoff=_ALIKE_IN_SHAPE)
    found += difflib.get_close_matches(name, rank, n=1, cutoff=_ALIKE)
    return found[0] if found else ""


def naming_hint(missing: Mapping[str, TensorType], extra: Mapping[str, Entry]) -> str:
    """What all names that differ have in common; empty where that is nothing."""
    shapes = {name: type.shape for name, type in missing.items()}
    return _prefix_hint([*missing], [*extra]) or _other_names(
        shapes, {name: entry.shape for name, entry in extra.items()}
    )


def _other_names(missing: _Shapes, extra: _Shapes) -> str:
    """Layers that are the same but for their names, in the same order, or where no two are alike
    in any: files of some formats are sorted by name."""
    ours, theirs = _layers(missing), _layers(extra)
    if not ours or Counter(ours.values()) != Counter(theirs.values()):
        return ""
    alone = max(Counter(ours.values()).values()) == 1
    if not alone and [*ours.values()] != [*theirs.values()]:
        return (
            "its tensors have the model's names within layers and shapes, and other names of "
            'layers: call the layers as the file does, `as "features.0"`'
        )
    by_kind = {kind: name for name, kind in theirs.items()}
    pairs = [
        (name, by_kind[kind] if alone else other)
        for (name, kind), other in zip(ours.items(), theirs, strict=True)
    ]
    said = ", ".join(f"{name} may be {shown(other)}" for name, other in islice(pairs, _PAIRS))
    more = ", ..." if len(pairs) > _PAIRS else ""
    first = shown(pairs[0][1])
    return (
        f"the shapes are the model's, the names are not: {said}{more}; a layer takes a name with "
        f'`as "{first}"`'
    )


def _layers(shapes: _Shapes) -> _Layers:
    """What is in each layer, by its name."""
    found: dict[str, list[tuple[str, tuple[object, ...]]]] = {}
    for name, shape in shapes.items():
        layer, _, last = name.rpartition(".")
        found.setdefault(layer, []).append((last, shape))
    return {layer: tuple(sorted(parts, key=lambda part: part[0])) for layer, parts in found.items()}


def _prefix_hint(missing: Sequence[str], extra: Sequence[str]) -> str:
    """Files saved from a wrapper differ by one prefix in every name."""
    if missing and extra:
        for wrapped, plain, words in (
            (extra, missing, "the file's names begin with {}, the model's do not"),
            (missing, extra, "the model's names begin with {}, the file's do not"),
        ):
            prefix = wrapped[0].partition(".")[0] + "."
            stripped = {n.removeprefix(prefix) for n in wrapped if n.startswith(prefix)}
            if len(stripped & set(plain)) * 2 > len(plain):
                return words.format(f"`{shown(prefix)}`")
    return _block_hint(missing, extra)


def _block_hint(missing: Sequence[str], extra: Sequence[str]) -> str:
    """Text in blocks, a file without: each name has a part more, `stage_2.conv2.weight`."""
    held, parts = set(extra), list[str]()
    for name in missing:
        path = name.split(".")
        less = (
            path[at] for at in range(len(path) - 2) if ".".join(path[:at] + path[at + 1 :]) in held
        )
        parts += [part for part in less if not part.isdigit()][:1]
    if not missing or len(parts) * 2 <= len(missing):
        return ""
    said = ", ".join(f"`{shown(part)}`" for part in list(dict.fromkeys(parts))[:2])
    return f"the file's names have no part for {said}: `as _` behind a block leaves its name out"
