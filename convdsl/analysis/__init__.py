"""Exact figures about a graph: costs, memory, receptive fields."""
