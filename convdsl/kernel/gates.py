"""Activations x g(x) as formulas that keep their tails.

Far below zero g is lost before x g is: silu(-90) = -7e-38 is a normal number of f32, sigmoid(-90)
is none. Here g is a v, v = exp(x / 2), which is far from any end, and x meets a before it meets v.
"""

from __future__ import annotations

import math

from convdsl.kernel.formula import Formula, X, call

LOWEST = -1500.0
"""exp(x / 2) is nothing, in f64 as well."""
SETTLED = 40.0
"""From here on v * v + 1 is v * v, and v**4 is finite."""


def held(x: Formula, low: float, high: float) -> Formula:
    """x, no lower and no higher than that."""
    return call("min", call("max", x, low), high)


def _half(x: Formula) -> Formula:
    """v = exp(x / 2)."""
    return call("exp", held(x, LOWEST, SETTLED) * 0.5)


def _gated(a: Formula, x: Formula) -> Formula:
    """a sigmoid(x)."""
    v = _half(x)
    return a * (v / (v * v + 1.0)) * v


def _gate_slope(a: Formula, x: Formula) -> Formula:
    """sigmoid(x) + a sigmoid'(x): the slope of x sigmoid(u) where u is x, and a is x u'."""
    v = _half(x)
    inverse = 1.0 / (v * v + 1.0)
    return v * inverse * (a * inverse + 1.0) * v


_LOW = call("max", X, LOWEST)
_HELD = held(X, LOWEST, SETTLED)

PLAIN_SILU = X * call("sigmoid", X)
SILU = _gated(_LOW, X)
SILU_SLOPE = _gate_slope(_HELD, X)

# tanh(log(1 + w)) of w = exp(x) is w (w + 2) / (w (w + 2) + 2); 1 from w = exp(20) on.
_W = call("exp", call("min", X, 20.0))
_N = _W * (_W + 2.0)
TANH_SOFTPLUS = _N / (_N + 2.0)

PLAIN_MISH = X * call("tanh_softplus", X)
_V = _half(X)
_U = _V * (_V * _V + 2.0)
MISH = _LOW * (_U / (_V * _U + 2.0)) * _V
# w (w + 2) / d + 4 x w (w + 1) / d**2, d = w (w + 2) + 2
_D = 1.0 / (_V * _U + 2.0)
MISH_SLOPE = _V * _D * (_HELD * 4.0 * (_V * _V + 1.0) * _D + (_V * _V + 2.0)) * _V

PLAIN_GELU = X * 0.5 * call("erfc", X * -math.sqrt(0.5))
GELU_ENDS = 100.0
"""exp(-x**2 / 4), and what the tanh in gelu's approximation leaves, are nothing."""
_ROOM = held(X, -GELU_ENDS, GELU_ENDS)
_BELL = call("exp", _ROOM * _ROOM * -0.25)
GELU_SLOPE = (
    call("erfc", X * -math.sqrt(0.5)) * 0.5 + _ROOM * (1 / math.sqrt(2 * math.pi)) * _BELL * _BELL
)

_CUBIC = 0.044715  # Hendrycks, Gimpel 2016
_SCALE = math.sqrt(8 / math.pi)


def tanh_gelu_gate(x: Formula) -> Formula:
    """u: (1 + tanh(u / 2)) / 2 = sigmoid(u)."""
    return (x + x * x * x * _CUBIC) * _SCALE


PLAIN_TANH_GELU = X * call("sigmoid", tanh_gelu_gate(X))
TANH_GELU = _gated(call("max", X, -GELU_ENDS), tanh_gelu_gate(_ROOM))
TANH_GELU_SLOPE = _gate_slope(
    _ROOM * (_ROOM * _ROOM * (3 * _CUBIC) + 1.0) * _SCALE, tanh_gelu_gate(_ROOM)
)
