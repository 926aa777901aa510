"""What is listed of every model of the zoo: figures of its defaults, kept between runs.

Figures follow from the texts of a file and of those it names, and from the sources of convdsl:
these are the key that they are kept under, beside the code cache. A zoo that was listed before is
listed without loading any of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convdsl.runtime.cache import ObjectCache, default_directory, sources

if TYPE_CHECKING:
    from convdsl.zoo import Entry

_QUOTED = re.compile(r'"(?:zoo:)?([^"\n]+)"')
_ROOMS = ("tensor", "kernel", "ir", "ops", "syntax", "elaborate", "analysis", "reporting")
_FILES = ("__init__.py", "diagnostics.py", "spelling.py", "loading.py", "zoo.py")


def catalogue(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    """A row a model, as `convdsl zoo --format json` has it, and last its `field` as tables have it.

    `params` and `macs` are those of one sample; where sizes are open but for the batch N they are
    polynomials in these, as text, as in reports. The receptive field is that of the last map on the
    way to the first output.
    """
    cache = ObjectCache(default_directory().parent / "zoo")
    for entry in entries:
        key = "\n".join((entry.model, _rooms(), *_texts(entry.path)))
        kept = cache.get(key)
        figures = _figures(entry.model) if kept is None else json.loads(kept)
        if kept is None:
            cache.put(key, json.dumps(figures).encode())
        said = {"name": entry.model, "title": entry.title, "paper": entry.paper}
        seen = {"receptive_field": figures["receptive_field"]}
        listed = {"parameters": list(entry.parameters), "field": figures["field"]}
        yield {**said, "params": figures["params"], "macs": figures["macs"], **seen, **listed}


def _figures(name: str) -> dict[str, Any]:
    from convdsl.analysis.cost import costs, known_sum
    from convdsl.analysis.receptive_field import field_of_last_map
    from convdsl.analysis.report import dim_to_json, field_to_json
    from convdsl.loading import load
    from convdsl.reporting.rows import field_text
    from convdsl.tensor import substitute

    graph = load(name).graph
    figures = costs(graph).values()
    params, macs = (known_sum(f.params for f in figures), known_sum(f.macs for f in figures))
    field = field_of_last_map(graph)
    return {
        "params": dim_to_json(substitute(params, {"N": 1})),
        "macs": dim_to_json(substitute(macs, {"N": 1})),
        "receptive_field": {name: field_to_json(axes) for name, axes in field.items()},
        "field": field_text(field),
    }


@lru_cache(maxsize=1)
def _rooms() -> str:
    return sources(_ROOMS, _FILES)


def _texts(path: Path) -> list[str]:
    """The texts that a file's models follow from: its own, and those of all that it names, and so
    on. Whatever is quoted and is a file counts, imports and comments alike."""
    found: dict[Path, str] = {}
    waiting = [path]
    for file in waiting:
        if file in found:
            continue
        found[file] = file.read_text(encoding="utf-8")
        named = _QUOTED.findall(found[file]) if file.suffix == ".cnn" else []
        near = (folder / name for name in named for folder in (file.parent, *path.parents[:2]))
        waiting += [other for other in near if other.suffix and other.is_file()]
    return [f"{file.name}\n{text}" for file, text in found.items()]
