"""Runs machine code. Knows programs and buffers, nothing of graphs or operators."""
