"""A notebook as a page, with the outputs that are kept in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def shown(path: Path) -> Iterator[str]:
    """Its cells, without the heading, which the page has."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield from (re.sub(r"^# .*\n", "", text), "")
            continue
        magic = text.startswith("%%cnn")
        yield from (f"```{'convdsl' if magic else 'python'}", text, "```", "")
        for output in cell["outputs"]:
            yield from _output(output)


def _output(output: dict[str, Any]) -> Iterator[str]:
    data = output.get("data", {})
    for kind in ("text/html", "image/svg+xml"):
        if kind in data:
            yield from ("````{raw} html", "".join(data[kind]), "````", "")
            return
    text = data.get("text/plain", output.get("text", "\n".join(output.get("traceback", ()))))
    yield from ("```text", _COLOUR.sub("", "".join(text)), "```", "")
