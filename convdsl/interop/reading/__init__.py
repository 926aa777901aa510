"""Every ONNX operator that is read: one rule each, here and nowhere else."""

from __future__ import annotations

from convdsl.interop.reading import layers, maps, movement, resizing, windows
from convdsl.interop.reading.windows import Rule

RULES: dict[str, Rule] = {
    **windows.RULES,
    **layers.RULES,
    **maps.RULES,
    **movement.RULES,
    **resizing.RULES,
}

FIRST_OPSET = 6

__all__ = ["FIRST_OPSET", "RULES", "Rule"]
