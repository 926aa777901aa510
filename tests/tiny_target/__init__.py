"""A target of its own, all of it here: what a second one must bring, and that it is enough.

A machine record (`machine`), schedules (`loops`, `grid`), and a printer with a runtime (`printer`).
Nothing of the package is changed for it, and nothing of it is the CPU's.
"""
