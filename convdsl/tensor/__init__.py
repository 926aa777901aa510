"""Sizes, element types and windows: the nouns that every room shares."""

from convdsl.tensor.binding import evaluate, evaluator, substitute, symbols_of
from convdsl.tensor.dim import Dim, Symbol, SymDim, symbol
from convdsl.tensor.division import ceil_div, exact_div, floor_div
from convdsl.tensor.extrema import dim_max, dim_min
from convdsl.tensor.proof import bounds, provably
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
