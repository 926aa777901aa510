"""Sizes, element types and windows: the nouns that every room shares."""

from convdsl.tensor.binding import evaluate, evaluator, substitute, symbols_of
from convdsl.tensor.dim import (
    Dim,
    Symbol,
    SymDim,
    bounds,
    ceil_div,
    dim_max,
    dim_min,
    exact_div,
    floor_div,
    provably,
    symbol,
)
from convdsl.tensor.types import (
    HOST_DTYPES,
    LANGUAGE_DTYPES,
    DType,
    Kind,
    TensorType,
    Window,
    format_shape,
)

__all__ = [
    "HOST_DTYPES",
    "LANGUAGE_DTYPES",
    "DType",
    "Dim",
    "Kind",
    "SymDim",
    "Symbol",
    "TensorType",
    "Window",
    "bounds",
    "ceil_div",
    "dim_max",
    "dim_min",
    "evaluate",
    "evaluator",
    "exact_div",
    "floor_div",
    "format_shape",
    "provably",
    "substitute",
    "symbol",
    "symbols_of",
]
