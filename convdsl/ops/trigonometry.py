"""Functions of angles in radians, hyperbolic functions, and their inverses."""

from __future__ import annotations

from convdsl.ir.maps import unary

OPERATORS = (
    unary("sin", "The sine of an angle in radians, exact however large."),
    unary("cos", "The cosine of an angle in radians, exact however large."),
    unary("tan", "The tangent of an angle in radians."),
    unary("asin", "The angle of a sine, -pi/2 .. pi/2; NaN beyond -1 .. 1."),
    unary("acos", "The angle of a cosine, 0 .. pi; NaN beyond -1 .. 1."),
    unary("atan", "The angle of a slope, -pi/2 .. pi/2."),
    unary("sinh", "The hyperbolic sine."),
    unary("cosh", "The hyperbolic cosine."),
    unary("asinh", "The inverse of the hyperbolic sine."),
    unary("acosh", "The inverse of the hyperbolic cosine; NaN below 1."),
    unary("atanh", "The inverse of the hyperbolic tangent; NaN beyond -1 .. 1."),
)
