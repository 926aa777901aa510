"""Short ways to write sources in tests."""

from __future__ import annotations

from typing import Any

import pytest

from convdsl.diagnostics import CompileError, Diagnostic, SourceFile
from convdsl.elaborate import elaborate
from convdsl.ir.model import Model
from convdsl.tensor import format_shape

INPUT = "input x: f32[N, 8, 32, 32]"


def build(text: str, **parameters: Any) -> Model:
    return elaborate(SourceFile("test.cnn", text), parameters=parameters)


def model(body: str, before: str = "", declared: str = INPUT, **parameters: Any) -> Model:
    """A model `m` with an input x of 8 channels and 32 x 32 pixels."""
    return build(f"{before}\nmodel m {{\n{declared}\n{body}\n}}\n", **parameters)


def shape(model: Model, output: str = "out") -> str:
    return format_shape(model.outputs[output].shape)


def layers(model: Model) -> list[str]:
    """Names of the operators in order."""
    return [node.name for node in sorted(model.graph.op_nodes(), key=lambda node: node.id)]


def weights(model: Model) -> list[str]:
    return list(model.graph.states)


def errors(text: str, **parameters: Any) -> tuple[Diagnostic, ...]:
    with pytest.raises(CompileError) as caught:
        build(text, **parameters)
    return caught.value.diagnostics


def error(body: str, before: str = "") -> Diagnostic:
    """The only diagnostic of a model with the usual input."""
    found = errors(f"{before}\nmodel m {{\n{INPUT}\n{body}\n}}\n")
    assert len(found) == 1, "\n\n".join(d.render() for d in found)
    return found[0]
