"""Optimisers that step along the gradient, its mean, or their signs: sgd, lion."""

from __future__ import annotations

from convdsl.training.optimisers.record import Arguments, Optimiser, Slot, Update, keeps
from convdsl.training.terms import Term


def slots_sgd(arguments: Arguments) -> tuple[Slot, ...]:
    """`momentum`, where there is any."""
    return (Slot("momentum"),) if arguments["momentum"] else ()


def update_sgd(u: Update) -> dict[str, Term]:
    """Gradient descent with momentum, as PyTorch: the first step takes the whole gradient.

    b = momentum * b + (1 - dampening) * g,  b = g at first
    p = p - rate * b;  with nesterov  p - rate * (g + momentum * b)

    Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning".
    """
    momentum, dampening = u.arguments["momentum"], u.arguments["dampening"]
    g = u.g_decayed
    if not momentum:
        return {"parameter": u.p - u.lr * g}
    enters = g
    if dampening:
        enters = g * (u.t <= 1.0).where(u.number(1.0), 1.0 - dampening)
    b = u.slot("momentum") * momentum + enters
    step = g + b * momentum if u.arguments["nesterov"] else b
    return {"parameter": u.p - u.lr * step, "momentum": b}


def update_lion(u: Update) -> dict[str, Term]:
    """p = p (1 - rate * decay) - rate * sign(beta1 * m + (1 - beta1) * g)
    m = beta2 * m + (1 - beta2) * g

    Chen et al. 2023, arXiv:2302.06675, algorithm 2.
    """
    beta1, beta2, m = u.arguments["beta1"], u.arguments["beta2"], u.slot("mean")
    towards = (m + (u.g - m) * (1 - beta1)).sign()
    return {
        "parameter": u.p_decayed - u.lr * towards,
        "mean": m + (u.g - m) * (1 - beta2),
    }


SGD = Optimiser(slots_sgd, update_sgd)
LION = Optimiser(keeps("mean"), update_lion)
