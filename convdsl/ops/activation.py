"""Activations: maps of one operand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import pi, sqrt
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    Attribute,
    Call,
    Derived,
    Kind,
    OpDef,
    Operand,
    OpError,
    Role,
    StateSpec,
    always,
    float_type,
    never,
    no_contraction,
    no_state,
    pointwise,
    same_type,
    size_for_weights,
)
from convdsl.kernel.expr import (
    Compare,
    Expr,
    Literal,
    Read,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    axes_over,
    elementwise,
    maximum,
    minimum,
)
from convdsl.tensor import TensorType

Rule = Callable[[Call, Expr], Expr]


def resolve_activation(call: Call) -> Mapping[str, Any]:
    """x floating; raises OpError otherwise."""
    float_type(call)
    return call.attributes


def resolve_hard_tanh(call: Call) -> Mapping[str, Any]:
    """x floating; raises OpError for a lower limit above the upper one."""
    if call["min"] > call["max"]:
        raise OpError(
            f"nothing lies between {call['min']:g} and {call['max']:g}",
            attributes=("min", "max"),
            help=("the lower limit comes first",),
        )
    return resolve_activation(call)


def activation(
    name: str,
    rule: Rule,
    doc: str,
    attributes: tuple[Attribute, ...] = (),
    aliases: tuple[str, ...] = (),
    resolve: Callable[[Call], Mapping[str, Any]] = resolve_activation,
    settled: float | None = None,
    at_result: Callable[[Call], bool] = never,
) -> OpDef:
    """The record of y = rule(x). From `settled` on, on either side, y is max(x, 0) to the last
    digit: there the gradient is that, where an infinite x times a slope of zero would be NaN."""

    def kernel(call: Call) -> TensorExpr:
        return elementwise((call.var("x"),), call.outputs[0], partial(rule, call))

    def form(call: Call) -> TensorExpr:
        def either(x: Expr) -> Expr:
            far = Compare("ge", Unary("abs", x), Literal(settled or 0.0, x.dtype))
            return Select(far, maximum(x, 0.0), rule(call, x))

        return elementwise((call.var("x"),), call.outputs[0], either)

    return OpDef(
        name=name,
        aliases=aliases,
        doc=doc,
        operands=(Operand("x"),),
        attributes=attributes,
        outputs=("y",),
        resolve=resolve,
        state=no_state,
        infer=same_type,
        window=pointwise,
        cost=no_contraction,
        kernel=kernel,
        gradient=Derived(form=form if settled is not None else None, at_result=at_result),
    )


def number(name: str, default: float, doc: str) -> Attribute:
    """An attribute that is a number."""
    return Attribute(name, Kind.FLOAT, default, doc)


# Formulas


def positive(x: Expr) -> Expr:
    """Whether x is above zero."""
    return Compare("gt", x, Literal(0.0, x.dtype))


def ramp(x: Expr, slope: float, offset: float) -> Expr:
    """slope * x + offset, within 0..1."""
    return maximum(minimum(x * slope + offset, 1.0), 0.0)


def relu(call: Call, x: Expr) -> Expr:
    """max(x, 0)"""
    return maximum(x, 0.0)


def relu6(call: Call, x: Expr) -> Expr:
    """min(max(x, 0), 6)"""
    return minimum(maximum(x, 0.0), 6.0)


def leaky_relu(call: Call, x: Expr) -> Expr:
    """x where positive, else slope * x"""
    return Select(positive(x), x, x * call["slope"])


def keeps_signs(call: Call) -> bool:
    """Whether leaky_relu is positive where x is and nowhere else."""
    return call["slope"] >= 0


def elu(call: Call, x: Expr) -> Expr:
    """x where positive, else alpha * (exp(x) - 1)"""
    return Select(positive(x), x, Unary("expm1", x) * call["alpha"])


# Klambauer et al. 2017, arXiv:1706.02515, appendix A.
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def selu(call: Call, x: Expr) -> Expr:
    """scale * x where positive, else scale * alpha * (exp(x) - 1)"""
    negative = Unary("expm1", x) * (SELU_ALPHA * SELU_SCALE)
    return Select(positive(x), x * SELU_SCALE, negative)


def celu(call: Call, x: Expr) -> Expr:
    """x where positive, else alpha * (exp(x / alpha) - 1)"""
    return Select(positive(x), x, Unary("expm1", x / call["alpha"]) * call["alpha"])


def gelu(call: Call, x: Expr) -> Expr:
    """Exact in the tail: (1 + tanh(u)) / 2 as sigmoid(2 u)."""
    if call["approximate"] == "none":
        return Unary("gelu", x)
    inner = (x + x * x * x * 0.044715) * sqrt(8 / pi)
    return x * Unary("sigmoid", inner)


def silu(call: Call, x: Expr) -> Expr:
    """x * sigmoid(x)"""
    return x * Unary("sigmoid", x)


def mish(call: Call, x: Expr) -> Expr:
    """x * tanh(softplus(x))"""
    return x * Unary("tanh_softplus", x)


def hardsigmoid(call: Call, x: Expr) -> Expr:
    """min(max(slope * x + offset, 0), 1)"""
    return ramp(x, call["slope"], call["offset"])


def hardswish(call: Call, x: Expr) -> Expr:
    """x * min(max(x / 6 + 1 / 2, 0), 1)"""
    return x * ramp(x, 1 / 6, 0.5)


def hard_tanh(call: Call, x: Expr) -> Expr:
    """min(max(x, min), max)"""
    return minimum(maximum(x, call["min"]), call["max"])


def softplus_scaled(call: Call, x: Expr) -> Expr:
    """log(1 + exp(beta * x)) / beta"""
    beta = call["beta"]
    return Unary("softplus", x) if beta == 1.0 else Unary("softplus", x * beta) / beta


# prelu owns a weight


def resolve_prelu(call: Call) -> Mapping[str, Any]:
    """x floating; raises OpError for one slope a channel where these are not known."""
    float_type(call)
    x = call.type("x")
    if not call["shared"]:
        if x.rank < 2:
            raise OpError(f"prelu needs a known number of channels, not {x}", operands=("x",))
        size_for_weights(call, 1, "channels")
    return call.attributes


def state_prelu(call: Call) -> tuple[StateSpec, ...]:
    """weight[1], or weight[C] of x[N, C, ..], of the dtype of x."""
    x = call.type("x")
    slopes = TensorType(x.dtype, (1 if call["shared"] else x.shape[1],))
    return (StateSpec("weight", slopes, Role.PARAMETER, "quarter"),)


def kernel_prelu(call: Call) -> TensorExpr:
    """y[n,c..] = select(x[n,c..] > 0, x[n,c..], x[n,c..] * weight[c])"""
    x, weight = call.var("x"), call.var("weight")
    axes = axes_over(x.type.shape)
    value = Read(x, tuple(axis.i for axis in axes))
    slope = weight[0 if call["shared"] else axes[1].i]
    body = Select(positive(value), value, value * slope)
    return TensorExpr((x, weight), (Stage(TensorVar("y", call.outputs[0]), axes, body),), ("y",))


PRELU = OpDef(
    name="prelu",
    aliases=(),
    doc="x where positive, else x * weight, a trained slope. He et al. 2015, arXiv:1502.01852.",
    operands=(Operand("x"), Operand("weight", Role.PARAMETER)),
    attributes=(
        Attribute("shared", Kind.BOOL, True, "one slope for all channels, as PyTorch's default"),
    ),
    outputs=("y",),
    resolve=resolve_prelu,
    state=state_prelu,
    infer=same_type,
    window=pointwise,
    cost=no_contraction,
    kernel=kernel_prelu,
    gradient=DERIVED,
)

_ALPHA = number("alpha", 1.0, "minus the limit towards minus infinity, as PyTorch")

OPERATORS = (
    activation("relu", relu, "max(x, 0). Nair, Hinton 2010.", at_result=always),
    activation(
        "relu6",
        relu6,
        "min(max(x, 0), 6). Howard et al. 2017, arXiv:1704.04861.",
        at_result=always,
    ),
    activation(
        "leaky_relu",
        leaky_relu,
        "x where positive, else slope * x. Maas et al. 2013.",
        (number("slope", 0.01, "slope below zero, as PyTorch"),),
        at_result=keeps_signs,
    ),
    PRELU,
    activation(
        "elu",
        elu,
        "x where positive, else alpha * (exp(x) - 1). Clevert et al. 2015, arXiv:1511.07289.",
        (_ALPHA,),
    ),
    activation("selu", selu, "A scaled elu that normalises itself. arXiv:1706.02515."),
    activation(
        "celu",
        celu,
        "x where positive, else alpha * (exp(x / alpha) - 1). Barron 2017, arXiv:1704.07483.",
        (_ALPHA,),
    ),
    activation(
        "gelu",
        gelu,
        "x * Phi(x), Phi the normal distribution. Hendrycks, Gimpel 2016, arXiv:1606.08415.",
        (
            Attribute(
                "approximate",
                Kind.STRING,
                "none",
                "none: by erf; tanh: the paper's approximation",
                choices=("none", "tanh"),
            ),
        ),
        settled=100.0,
    ),
    activation(
        "silu",
        silu,
        "x * sigmoid(x). Ramachandran et al. 2017, arXiv:1710.05941.",
        aliases=("swish",),
        settled=1000.0,
    ),
    activation(
        "mish",
        mish,
        "x * tanh(softplus(x)). Misra 2019, arXiv:1908.08681.",
        settled=1000.0,
    ),
    activation(
        "hardswish",
        hardswish,
        "x * hardsigmoid(x). Howard et al. 2019, arXiv:1905.02244.",
        aliases=("hard_swish",),
    ),
    activation(
        "hardsigmoid",
        hardsigmoid,
        "slope * x + offset, within 0..1.",
        (
            number("slope", 1 / 6, "a sixth, as PyTorch (ONNX: a fifth)"),
            number("offset", 0.5, "value at zero"),
        ),
        aliases=("hard_sigmoid",),
    ),
    activation("sigmoid", lambda call, x: Unary("sigmoid", x), "1 / (1 + exp(-x))."),
    activation(
        "hard_tanh",
        hard_tanh,
        "min(max(x, min), max). Collobert 2004.",
        (
            number("min", -1.0, "lower limit, as PyTorch"),
            number("max", 1.0, "upper limit, as PyTorch"),
        ),
        aliases=("hardtanh",),
        resolve=resolve_hard_tanh,
    ),
    activation("tanh", lambda call, x: Unary("tanh", x), "The hyperbolic tangent."),
    activation(
        "softplus",
        softplus_scaled,
        "log(1 + exp(beta * x)) / beta. Dugas et al. 2001.",
        (number("beta", 1.0, "sharpness, as PyTorch"),),
    ),
    activation("softsign", lambda call, x: Unary("softsign", x), "x / (1 + |x|). Bergstra 2009."),
)
