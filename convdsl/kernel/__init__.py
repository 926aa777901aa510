"""Arithmetic without a target (tensor expressions) and loops without an operator (loop IR)."""
