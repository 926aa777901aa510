"""Findings as a SARIF log, which code scanning and editors read.

OASIS, Static Analysis Results Interchange Format 2.1.0, errata 01; sections are named below.
Paths are relative to the root of the sources, `%SRCROOT%`: the nearest folder upward that is a git
checkout, else the current one. That is what code scanning of GitHub shows beside the lines.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from convdsl import explanations
from convdsl.diagnostics import Diagnostic, Span

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
VERSION = "2.1.0"
ROOT = "%SRCROOT%"


def source_root(folder: Path) -> Path:
    """The checkout that a folder belongs to, or the folder."""
    for candidate in (folder, *folder.parents):
        if (candidate / ".git").exists():
            return candidate
    return folder


def log(found: Sequence[tuple[Diagnostic, str | None]], root: Path, version: str) -> dict[str, Any]:
    """One run of this version of convdsl with all findings; of each, the file that was looked at,
    where it has no place."""
    codes = sorted({diagnostic.code for diagnostic, _ in found})
    numbers = {code: number for number, code in enumerate(codes)}
    seen: dict[str, int] = {}
    results = [_result(*finding, numbers, root, seen) for finding in found]
    driver = {
        "name": "convdsl",
        "version": version,
        "rules": [_rule(code) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {ROOT: {"description": {"text": "the root of the sources"}}},
        "results": results,
    }
    return {"$schema": SCHEMA, "version": VERSION, "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    """A reportingDescriptor (3.49): what `convdsl explain` says of the code."""
    known = explanations.find(code)
    assert known is not None, f"{code} has no explanation"
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in re.findall(r"\w+", known.title)),
        "shortDescription": {"text": known.title},
        "fullDescription": {"text": known.text},
        "help": {"text": _help(known), "markdown": known.markdown()},
        "defaultConfiguration": {"level": known.level},
    }


def _help(known: explanations.Explanation) -> str:
    examples = f"Wrong, {known.where}:\n\n{known.wrong}\nRight:\n\n{known.right}"
    return f"{known.text}\n\n{examples}"


def _result(
    found: Diagnostic,
    file: str | None,
    numbers: Mapping[str, int],
    root: Path,
    seen: dict[str, int],
) -> dict[str, Any]:
    """A result (3.27)."""
    lines = [found.message, *found.notes, *(f"help: {text}" for text in found.help)]
    result: dict[str, Any] = {
        "ruleId": found.code,
        "ruleIndex": numbers[found.code],
        "level": found.severity,
        "message": {"text": "\n".join(lines)},
        "locations": list(_locations(found, file, root)),
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(found, seen)},
    }
    if related := list(_related(found, root)):
        result["relatedLocations"] = related
    return result


def _locations(found: Diagnostic, file: str | None, root: Path) -> Iterator[dict[str, Any]]:
    if found.span is not None:
        location = _place(found.span, root)
        if found.labels[0].text:
            location["message"] = {"text": found.labels[0].text}
        yield location
    elif file is not None:
        yield {"physicalLocation": {"artifactLocation": _artifact(file, root)}}


def _related(found: Diagnostic, root: Path) -> Iterator[dict[str, Any]]:
    """What explains the finding: further labels, and the blocks on the way there."""
    spans = [(label.span, label.text) for label in found.labels[1:]]
    spans += [(f.span, f"in {f.description}") for f in found.frames if f.span is not None]
    for number, (span, text) in enumerate(spans, start=1):
        location = _place(span, root) | {"id": number}
        yield location | ({"message": {"text": text}} if text else {})


def _place(span: Span, root: Path) -> dict[str, Any]:
    """A location (3.28): the region's end is the column behind its last character."""
    line, column = span.source.position(span.end)
    region = {
        "startLine": span.line,
        "startColumn": span.column,
        "endLine": line,
        "endColumn": column,
    }
    return {
        "physicalLocation": {
            "artifactLocation": _artifact(span.source.path, root),
            "region": region,
        }
    }


def _artifact(path: str, root: Path) -> dict[str, str]:
    """Below the root a relative URI, else an absolute one."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  links stay as they were named
    for base in (root, Path(os.path.realpath(root))):
        if base in absolute.parents:
            inside = os.fsencode(absolute.relative_to(base))
            return {"uri": quote(inside), "uriBaseId": ROOT}
    return {"uri": absolute.as_uri()}


def _fingerprint(found: Diagnostic, seen: dict[str, int]) -> str:
    """What stays when lines move: code and text of the line, and which of several alike it is."""
    text = found.span.source.line(found.span.line) if found.span else found.message
    words = f"{found.code}\0{' '.join(text.split())}"
    digest = hashlib.sha256(words.encode(errors="surrogatepass")).hexdigest()[:16]
    seen[digest] = seen.get(digest, 0) + 1
    return f"{digest}:{seen[digest]}"
