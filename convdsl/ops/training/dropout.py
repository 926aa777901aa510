"""What dropout is while training."""

from __future__ import annotations

from convdsl.ir.opdef import (
    REQUIRED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    Rule,
    no_contraction,
    no_state,
    pointwise,
    resolve_as_given,
    same_type,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Compare,
    Expr,
    IndexValue,
    Literal,
    Read,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    axes_over,
)
from convdsl.kernel.philox import philox
from convdsl.tensor import Dim, DType


def kernel_dropout(call: Call) -> TensorExpr:
    """word = philox((place in the sample, first + sample, step, 0), stream)
    y = x / (1 - p) where word >= p 2^32, else 0"""
    x, step = call.var("x"), call.var("step")
    axes = axes_over(x.type.shape)
    sample, place = _place(axes)
    number: Expr = IndexValue(sample, DType.U32)
    if call.has("first"):
        number = number + Cast(Read(call.var("first"), ()), DType.U32)
    words = (
        IndexValue(place, DType.U32),
        number,
        Cast(Read(step, ()), DType.U32),
        Literal(0, DType.U32),
    )
    key = [Literal(word, DType.U32) for word in call["stream"]]
    stages, (word, *_) = philox(axes, words, (key[0], key[1]))
    dtype, p = x.type.dtype, call["p"]
    nothing = Literal(0.0, dtype)
    drawn = Literal(min(round(p * 2**32), 2**32 - 1), DType.U32)
    kept = Binary("mul", Read(x, tuple(a.i for a in axes)), Literal(1 / (1 - p), dtype))
    y = Stage(TensorVar("y", x.type), axes, Select(Compare("ge", word, drawn), kept, nothing))
    counters = tuple(call.var(name) for name in ("step", "first") if call.has(name))
    return TensorExpr((x, *counters), (*stages, y), ("y",))


def _place(axes: tuple[Axis, ...]) -> tuple[Dim, Dim]:
    """(number of the sample, number of the element in it)."""
    if not axes:
        return 0, 0
    place: Dim = 0
    for axis in axes[1:]:
        place = place * axis.extent + axis.i
    return axes[0].i, place


def gradient_dropout(p: Pullback) -> Gradients:
    """The same mask over dy: drawn again, nothing is kept."""
    given = {**p.node.inputs, "x": p.dy}
    return {"x": p.build.apply(DROPOUT_TRAINING, given, p.node.attributes, name="dx").output}


DROPOUT_TRAINING = OpDef(
    name="dropout.training",
    aliases=(),
    doc="""Zeroes elements at random and enlarges the others, so that the mean stays.

    The mask follows from the stream, the step and the place of an element alone (Philox 4x32-10):
    on any number of threads, on any machine, after a resume. `first` is the number of the first
    sample in a batch that several ranks share. Srivastava et al. 2014, JMLR 15.""",
    operands=(Operand("x"), Operand("step"), Operand("first", optional=True)),
    attributes=(
        Attribute("p", Kind.FLOAT, REQUIRED, "probability of dropping, less than 1"),
        Attribute("stream", Kind.INTS, REQUIRED, "two words that no other layer has", minimum=0),
    ),
    outputs=("y",),
    resolve=resolve_as_given,
    state=no_state,
    infer=same_type,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_dropout,
    gradient=Rule(gradient_dropout, "the same mask, drawn again"),
)
