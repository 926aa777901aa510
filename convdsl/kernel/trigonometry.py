"""What functions of angles, hyperbolic ones and their inverses are made of, in forms that neither
cancel near zero nor overflow before their results do."""

from __future__ import annotations

from math import log

from convdsl.kernel.formula import Formula, X, call, choose

_SIZE = call("abs", X)


def _odd(f: Formula) -> Formula:
    """f of |x|, with the sign of x."""
    return call("copysign", f, X)


TAN = call("sin", X) / call("cos", X)
ASIN = call("atan", X / call("sqrt", (1.0 - X) * (X + 1.0)))
ACOS = call("atan", call("sqrt", (1.0 - X) / (X + 1.0))) * 2.0

# From 20 on exp(-x) is nothing beside exp(x) in 53 digits; the halves are multiplied last.
_GROWN, _ROOT = call("expm1", _SIZE), call("exp", _SIZE * 0.5)
SINH = _odd(
    choose(call("lt", _SIZE, 20.0), (_GROWN + _GROWN / (_GROWN + 1.0)) * 0.5, _ROOT * 0.5 * _ROOT)
)
COSH = _ROOT * 0.5 * _ROOT + 0.5 / _ROOT / _ROOT

# From 1e8 on x**2 + 1 is x**2 in 53 digits, which the root takes back.
_FAR = 1e8
_SQUARE = X * X
ASINH = _odd(
    choose(
        call("lt", _SIZE, _FAR),
        call("log1p", _SIZE + _SQUARE / (call("sqrt", _SQUARE + 1.0) + 1.0)),
        call("log", _SIZE) + log(2),
    )
)
_OVER = X - 1.0
ACOSH = choose(
    call("lt", X, _FAR),
    call("log1p", _OVER + call("sqrt", _OVER) * call("sqrt", _OVER + 2.0)),
    call("log", X) + log(2),
)
ATANH = _odd(call("log1p", _SIZE * 2.0 / (1.0 - _SIZE)) * 0.5)

# Derivatives
ARC_SLOPE = call("rsqrt", (1.0 - X) * (X + 1.0))
ASINH_SLOPE = call("rsqrt", _SQUARE + 1.0)
ACOSH_SLOPE = call("rsqrt", _OVER) * call("rsqrt", X + 1.0)
ATANH_SLOPE = 1.0 / ((1.0 - X) * (X + 1.0))
