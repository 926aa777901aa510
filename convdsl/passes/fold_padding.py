"""Padding as an operator of its own, folded into the windows that read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from convdsl.ir.graph import Graph, OpNode
from convdsl.ir.opdef import OpError
from convdsl.ir.windows import GLOBAL, SAME
from convdsl.passes.rewrite import Pass, Pattern, Rewriter, rewrite_greedily
from convdsl.tensor import Dim

Pairs = tuple[tuple[Dim, Dim], ...]

_NEUTRAL = {"max_pool": -float("inf"), "avg_pool": 0.0}
"""What poolings take for outside."""


@dataclass(frozen=True)
class FoldPadding(Pass):
    """Let convolutions and poolings do the padding that stands before them."""

    name: ClassVar[str] = "fold-padding"

    def run(self, graph: Graph) -> int:
        return rewrite_greedily(graph, (FoldIntoWindow(),))


class FoldIntoWindow(Pattern):
    """conv(pad(x))  ->  conv(x) with more padding; likewise pooling.

    Requires: only space is padded, with what the window itself takes for outside (zeros for
    convolutions and for averages that count padding, minus infinity for maxima; any way of
    folding back for a convolution that pads nothing yet).
    """

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        pad = node.inputs["x"].node if "x" in node.inputs else None
        if not isinstance(pad, OpNode) or pad.op.name != "pad":
            return False
        changes = _absorbed(node, pad)
        if changes is None:
            return False
        operands = {**node.inputs, "x": pad.inputs["x"]}
        try:
            attributes = {**node.attributes, **changes}
            value = rewriter.at(node).apply(node.op, operands, attributes, name="padded").output
        except OpError:  # more padding than the window's own rules allow
            return False
        if value.type != node.output.type:
            rewriter.sweep(value.node)
            return False
        rewriter.replace(node, value, node.name)
        return True


def _absorbed(node: OpNode, pad: OpNode) -> dict[str, Any] | None:
    """The attributes of the window once it does the padding, or None if it cannot."""
    if node.op.name not in ("conv", *_NEUTRAL) or node.attributes["kernel"] == GLOBAL:
        return None
    own: Any = node.attributes["pad"]
    outer = _spatial(pad)
    if outer is None or own == SAME or node.attributes.get("ceil_mode"):
        return None
    mode, value = pad.attributes["mode"], pad.attributes["value"]
    pairs: Pairs = own
    total = tuple((a + c, b + d) for (a, b), (c, d) in zip(pairs, outer, strict=True))
    if node.op.name == "conv":
        bare = all(pair == (0, 0) for pair in pairs)
        if mode == "zeros":
            fits = value == 0 and (bare or node.attributes["pad_mode"] == "zeros")
        else:
            fits = bare
        return {"pad": total, "pad_mode": mode} if fits else None
    if (
        mode != "zeros"
        or value != _NEUTRAL[node.op.name]
        or not node.attributes.get("count_include_pad", True)
    ):
        return None
    return {"pad": total}


def _spatial(pad: OpNode) -> Pairs | None:
    """The padding of each axis of space, if nothing else is padded."""
    given = dict(zip(pad.attributes["axes"], pad.attributes["pad"], strict=True))
    rank = pad.output.type.rank
    if any(pair != (0, 0) for axis, pair in given.items() if axis < 2):
        return None
    return tuple(given.get(axis, (0, 0)) for axis in range(2, rank))
