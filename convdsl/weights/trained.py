"""What a weight file remembers of the training that made it, in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

TRAINED = "convdsl.trained"
"""Its name there: a JSON object of the fields of `Trained`."""


@dataclass(frozen=True)
class Trained:
    """The model's name, the parameters in force, and how images became inputs, where the text of
    the model does not say so (ir.preprocess.Preprocessing.to_json)."""

    model: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    preprocessing: Mapping[str, Any] | None = None

    def to_text(self) -> str:
        """Parameters that are no plain values (blocks, operators) are left out."""
        plain = {name: value for name, value in self.parameters.items() if _is_plain(value)}
        said = {"model": self.model, "parameters": plain, "preprocessing": self.preprocessing}
        return json.dumps(said)

    @staticmethod
    def from_text(text: str | None) -> Trained:
        """Nothing where a file says nothing, or what this did not write."""
        try:
            found: object = json.loads(text or "{}")
        except ValueError:
            return Trained()
        if not isinstance(found, dict):
            return Trained()
        said = cast("dict[str, object]", found)
        model, parameters, images = (said.get(n) for n in ("model", "parameters", "preprocessing"))
        return Trained(
            model if isinstance(model, str) else "",
            cast("dict[str, Any]", parameters) if isinstance(parameters, dict) else {},
            cast("dict[str, Any]", images) if isinstance(images, dict) else None,
        )


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)
