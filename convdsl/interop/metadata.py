"""What a `.cnn` file declares around its network, as metadata of an ONNX model (JSON by key)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import onnx

from convdsl.ir.model import Model
from convdsl.ir.preprocess import Preprocessing
from convdsl.tensor import Symbol

PREPROCESSING, LABELS, SYMBOLS = "convdsl.preprocessing", "convdsl.labels", "convdsl.symbols"


def metadata(model: Model) -> dict[str, str]:
    """What travels with a model: preprocessing, class names, what is known of free sizes."""
    facts: dict[str, str] = {}
    if model.preprocessing is not None:
        facts[PREPROCESSING] = json.dumps(model.preprocessing.to_json())
    if model.labels is not None:
        facts[LABELS] = json.dumps(list(model.labels))
    constrained = [s for s in model.symbols if s != Symbol(s.name)]
    if constrained:
        facts[SYMBOLS] = json.dumps(
            {s.name: [s.minimum, s.divisor, s.remainder, s.maximum] for s in constrained}
        )
    return facts


def preprocessing_of(proto: onnx.ModelProto) -> Preprocessing | None:
    """The preprocessing that a file declares, if it does."""
    data = _read(proto, PREPROCESSING)
    try:
        return Preprocessing.from_json(data) if data else None
    except (KeyError, TypeError, AttributeError):  # not ours: metadata is free text
        return None


def labels_of(proto: onnx.ModelProto) -> tuple[str, ...] | None:
    """The class names that a file declares, if it does."""
    names = _read(proto, LABELS)
    if not isinstance(names, list) or not names:
        return None
    return tuple(str(name) for name in cast("list[Any]", names))


def symbols_of(proto: onnx.ModelProto) -> dict[str, Symbol]:
    """What is known of free sizes, by name."""
    found: dict[str, Symbol] = {}
    facts = _read(proto, SYMBOLS)
    for name, limits in (cast("dict[str, Any]", facts) if isinstance(facts, dict) else {}).items():
        match limits:
            case [int(low), int(divisor), int(rest), int() | None as high] if (
                low >= 1 and 0 <= rest < divisor and (high is None or high >= low)
            ):
                found[name] = Symbol(name, low, divisor, rest, high)
            case _:  # not ours
                continue
    return found


def _read(proto: onnx.ModelProto, key: str) -> Any:
    facts: Mapping[str, str] = {item.key: item.value for item in proto.metadata_props}
    try:
        return json.loads(facts[key]) if key in facts else None
    except (ValueError, RecursionError):
        return None
