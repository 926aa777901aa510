"""What is known of rows that are shared out by exponentials: softmax, its logarithm.

    top = max over j of x[j];  e[i] = decay(x[i] - top);  total = sum over j of e[j]

A term that is NaN makes total NaN, whatever top is: the maximum need not look for it, which is one
operation instead of three. And total lies between 1 and the length of the row: what is divided by
it may as well be multiplied by its inverse, once for all.
"""

from __future__ import annotations

from dataclasses import replace

from convdsl.kernel.expr import Binary, Expr, Literal, Read, Reduce, Unary, reads, transform, walk
from convdsl.schedules.joins import Join, Part
from convdsl.tensor.records import record


@record
class Weights:
    """Names of the three, and the reduction that finds the first."""

    top: str
    e: str
    total: str
    largest: Reduce


def weights_of(join: Join) -> Weights | None:
    """None where a row is no such thing, or anything that does not see its total leaves it."""
    found: dict[str, tuple[str, Reduce]] = {}  # of what a reduction gives to its name
    bodies: dict[str, Expr] = {}
    for part in join.parts:
        for stage in part.task.stages:
            bodies[stage.target.name] = stage.body
            if part.totals is not None and isinstance(stage.body, Reduce):
                found[stage.target.name] = (stage.body.op, part.totals.reduces[0])
    for total, (op, summed) in found.items():
        e = summed.body
        if op != "sum" or not isinstance(e, Read):
            continue
        decay = bodies.get(e.tensor.name)
        if not (isinstance(decay, Unary) and decay.op == "decay"):
            continue
        tops = [r.tensor.name for r in reads(decay) if found.get(r.tensor.name, ("",))[0] == "max"]
        if isinstance(decay.x, Binary) and decay.x.op == "sub" and len(tops) == 1:
            made = Weights(tops[0], e.tensor.name, total, found[tops[0]][1])
            if _leaves_whole(join, made):
                return made
    return None


def _leaves_whole(join: Join, weights: Weights) -> bool:
    """Whether all that leaves depends on the total."""
    seen = {weights.total}
    for part in join.parts:
        for stage in part.task.stages:
            if any(read.tensor.name in seen for read in reads(stage.body)):
                seen.add(stage.target.name)
    return all(o.var.name in seen for part in join.parts for o in part.task.outputs)


def divided_once(join: Join, weights: Weights) -> Join:
    """The same with products in place of quotients by the total."""

    def rule(e: Expr) -> Expr | None:
        if not (isinstance(e, Binary) and e.op == "div" and isinstance(e.b, Read)):
            return None
        if e.b.tensor.name != weights.total or not any(isinstance(n, Read) for n in walk(e.a)):
            return None
        return Binary("mul", e.a, Binary("div", Literal(1.0, e.b.dtype), e.b))

    def rewritten(part: Part) -> Part:
        stages = tuple(replace(s, body=transform(s.body, rule)) for s in part.task.stages)
        return replace(part, task=replace(part.task, stages=stages))

    return replace(join, parts=tuple(map(rewritten, join.parts)))
