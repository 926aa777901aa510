"""What is done with gradients before weights change, and with weights after: as graph builders.

    regularise     g + l1 * sign(p) + l2 * p
    accumulate     the mean over several batches
    clip           each element, then the norm of all gradients together
    average        the moving average of a weight

All are of values by the key of the parameter; scalars are of double precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convdsl.diagnostics import InputError
from convdsl.ir.build import Build
from convdsl.ir.graph import Value
from convdsl.ir.training import Training, names
from convdsl.tensor import TensorType
from convdsl.training.terms import Term

Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Group:
    """How a parameter is trained: times the rate of all; weight decay; whether `l1` and `l2` are
    for it."""

    lr_factor: float
    weight_decay: float
    is_regularised: bool


def group_of(training: Training, key: str, type: TensorType) -> Group:
    """The group of a parameter: the first one whose names it has, or else that of all others.

    Biases, and weights of normalisation, do not decay: what has one axis, unless `decay_all` says
    otherwise, or its group a decay.
    """
    decays = type.rank > 1 or bool(training.setting("decay_all"))
    optimizer = training.optimizer
    usual = 0.0 if optimizer is None else float(optimizer.arguments.get("weight_decay", 0.0))
    decay = usual if decays else 0.0
    for group in training.groups:
        if any(names(pattern, key) for pattern in group.arguments["parameters"]):
            own = group.arguments.get("weight_decay")
            factor = float(group.arguments.get("lr_factor", 1.0))
            return Group(factor, decay if own is None else float(own), decays)
    return Group(1.0, decay, decays)


def check_groups(training: Training, keys: list[str]) -> None:
    """Raise InputError for names in groups that no parameter has."""
    for group in training.groups:
        for pattern in group.arguments["parameters"]:
            if not any(names(pattern, key) for key in keys):
                known = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
                raise InputError(f"groups: no parameter is called {pattern}; there are {known}")


def regularise(build: Build, gradient: Value, parameter: Value, l1: float, l2: float) -> Value:
    """The gradient of the loss and l1 * sum |p| + l2 / 2 * sum p^2."""
    g, p = Term(build, gradient), Term(build, parameter)
    if l2:
        g = g + p * l2
    if l1:
        g = g + p.sign() * l1
    return g.value


def clip_values(build: Build, gradients: Values, limit: float) -> dict[str, Value]:
    """Every element within -limit..limit; NaN stays."""
    return {
        key: build("clip", g, low=-limit, high=limit, name="clipped")
        for key, g in gradients.items()
    }


def clip_norm(build: Build, gradients: Values, limit: float) -> dict[str, Value]:
    """All of them times min(1, limit / (norm + 1e-6)), the norm that of all elements together.

    As PyTorch's clip_grad_norm_. Pascanu et al. 2013, arXiv:1211.5063.
    """
    squares = [Term(build, g).norm() for g in gradients.values()]
    total = squares[0] * squares[0]
    for norm in squares[1:]:
        total = total + norm * norm
    share = (limit / (total.sqrt() + 1e-6)).minimum(1.0)
    return {key: (Term(build, g) * share).value for key, g in gradients.items()}


def average(build: Build, old: Value, new: Value, decay: float, step: Value) -> Value:
    """The moving average of a weight, decay * average + (1 - decay) * new; the first is `new`.

    step: f64 [], 1 at the first update. Polyak, Juditsky 1992; as PyTorch's AveragedModel.
    """
    mean, p, t = Term(build, old), Term(build, new), Term(build, step)
    one = Term(build, build.constant(1.0, step.type.dtype, name="number"))
    return (mean + (p - mean) * (t <= 1.0).where(one, 1 - decay)).value
