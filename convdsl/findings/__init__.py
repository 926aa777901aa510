"""Findings in the formats that programs read: JSON, GitHub's workflow commands, SARIF."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convdsl.diagnostics import Diagnostic
from convdsl.findings import sarif

FORMATS = ("text", "json", "github", "sarif")


@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnostic, and the file that was being looked at, for those that have no place."""

    diagnostic: Diagnostic
    file: str | None = None


def draw(
    found: Sequence[Finding],
    format: str,
    *,
    version: str,
    color: bool = False,
    width: int | None = None,
) -> str:
    """All findings as one text; nothing where text or annotations have nothing to say. A SARIF log
    tells the version of convdsl; on a terminal, text is `width` columns wide."""
    plain = [finding.diagnostic for finding in found]
    match format:
        case "json":
            return json.dumps([d.to_json() for d in plain], indent=2, ensure_ascii=False)
        case "github":
            return "\n".join(map(_github, found))
        case "sarif":
            places = [(finding.diagnostic, finding.file) for finding in found]
            log = sarif.log(places, sarif.source_root(Path.cwd()), version)
            return json.dumps(log, indent=2, ensure_ascii=False)
        case _:
            return "\n\n".join(d.render(color=color, width=width) for d in plain)


def _github(finding: Finding) -> str:
    """A workflow command, which GitHub turns into an annotation of the line."""
    data = finding.diagnostic.to_json()
    kind = "error" if finding.diagnostic.severity == "error" else "warning"
    places = {
        "file": data["file"] or finding.file,
        "line": data["line"],
        "col": data["column"],
        "endLine": data["end_line"],
        "endColumn": data["end_column"],
        "title": f"convdsl {finding.diagnostic.code}",
    }
    fields = ",".join(
        f"{key}={_escape(str(value), property=True)}"
        for key, value in places.items()
        if value is not None
    )
    help = (f"help: {text}" for text in finding.diagnostic.help)
    message = "\n".join([finding.diagnostic.message, *help])
    return f"::{kind} {fields}::{_escape(message)}"


def _escape(text: str, *, property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property else text
