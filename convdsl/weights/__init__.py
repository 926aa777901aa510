"""Weights from files, arrays or initialisers, checked against a model before use."""

from convdsl.weights.binding import Bound, bind
from convdsl.weights.initialisers import RandomWeights
from convdsl.weights.loading import load
from convdsl.weights.store import ArrayStore, Entry, WeightStore

__all__ = ["ArrayStore", "Bound", "Entry", "RandomWeights", "WeightStore", "bind", "load"]
