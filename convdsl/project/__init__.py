"""The project file, convdsl.toml: which models there are, and what each may cost.

It stands at the top of a project, in the nearest folder upward of a model's file, and may be empty.
"""
