"""exp, sin, pow and their kin over loop IR values: the one home of vector mathematics, printed for
every target and evaluated by the interpreter alike.

LLVM turns `llvm.exp.v16f32` into sixteen scalar calls; these stay vectors, without branches.
The functions' records (`scalar`) bound their errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from convdsl.kernel.formula import read
from convdsl.kernel.nodes import Binary, Compare, Const, Unary, Value, Var
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.kernel.vector_math.angles import Angles
from convdsl.kernel.vector_math.arcs import Arcs
from convdsl.kernel.vector_math.division import Divisions
from convdsl.kernel.vector_math.gates import Gates
from convdsl.kernel.vector_math.powers import Powers


class Vectors(Powers, Gates, Angles, Arcs, Divisions):
    """Writes scalar functions of values into one kernel."""

    def apply(self, function: str, parts: tuple[Value, ...]) -> Value:
        """A function of values: as one operation where backends have it, else written out."""
        record = FUNCTIONS[function]
        if parts[0].type.dtype in record.printed:
            if record.is_comparison:
                return Compare(function, *parts)
            return Unary(function, *parts) if record.arity == 1 else Binary(function, *parts)
        named = tuple(p if isinstance(p, (Const, Var)) else self.b.let(p) for p in parts)
        if function in EXPANSIONS:
            return EXPANSIONS[function](self, *named)
        assert record.formula is not None
        return self.b.let(read(record.formula, named, self), function)


EXPANSIONS: Mapping[str, Callable[..., Value]] = {
    "exp": Vectors.exp,
    "decay": Vectors.decay,
    "expm1": Vectors.expm1,
    "log": Vectors.log,
    "log1p": Vectors.log1p,
    "tanh": Vectors.tanh,
    "erf": Vectors.erf,
    "erfc": Vectors.erfc,
    "sin": Vectors.sin,
    "cos": Vectors.cos,
    "atan": Vectors.atan,
    "pow": Vectors.pow,
    "div": Vectors.floor_div,
    "mod": Vectors.mod,
    "sigmoid": Vectors.sigmoid,
    "sign": Vectors.sign,
    "gelu": Vectors.gelu,
    "softplus": Vectors.softplus,
    "tanh_softplus": Vectors.tanh_softplus,
}
"""How functions are written out that are neither printed nor made of others, or that are, but in
fewer operations than their formulas say."""
