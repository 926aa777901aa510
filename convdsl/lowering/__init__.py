"""From a graph with bound shapes to a program: kernels, steps, memory."""
