"""Rewrites of graphs: each pass one file, one class, one name."""

from convdsl.passes.pipeline import PASSES, Observer, Step, check_passes, run, select
from convdsl.passes.rewrite import Pass

__all__ = ["PASSES", "Observer", "Pass", "Step", "check_passes", "run", "select"]
