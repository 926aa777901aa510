"""CITATION.cff follows the schema of the format, and says what the package says."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import yaml

import convdsl

FILE = Path(__file__).parents[2] / "CITATION.cff"


def test_it_follows_the_schema() -> None:
    spec = find_spec("cffconvert")
    assert spec is not None
    assert spec.origin is not None
    told = yaml.load(FILE.read_text(encoding="utf-8"), yaml.BaseLoader)
    path = Path(spec.origin).parent / "schemas" / told["cff-version"] / "schema.json"
    jsonschema.validate(told, json.loads(path.read_text(encoding="utf-8")))
    assert told["version"] == convdsl.__version__
