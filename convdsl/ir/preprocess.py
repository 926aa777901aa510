"""What a `.cnn` file declares about turning an image into an input array.

Data only, free of graph and imaging libraries, so that an artifact can carry it;
convdsl.preprocessing carries it out and documents the steps and their units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PreprocessingStep:
    """One step from image to array, e.g. `center_crop` with {"fraction": 0.875}."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the model input `input`: steps in order."""

    input: str
    steps: tuple[PreprocessingStep, ...]

    def to_json(self) -> dict[str, Any]:
        steps = [{"name": s.name, "arguments": dict(s.arguments)} for s in self.steps]
        return {"input": self.input, "steps": steps}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Preprocessing:
        steps = (PreprocessingStep(s["name"], s["arguments"]) for s in data["steps"])
        return Preprocessing(data["input"], tuple(steps))
