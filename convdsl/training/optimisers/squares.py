"""Optimisers that divide by the root of squared gradients: adagrad, adadelta, rmsprop."""

from __future__ import annotations

from convdsl.training.optimisers.record import Arguments, Optimiser, Slot, Update, keeps
from convdsl.training.terms import Term


def slots_adagrad(arguments: Arguments) -> tuple[Slot, ...]:
    """`squares`, from what the arguments say on."""
    return (Slot("squares", arguments["initial"]),)


def update_adagrad(u: Update) -> dict[str, Term]:
    """s = s + g^2
    p = p - rate / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Duchi et al. 2011, "Adaptive subgradient methods for online learning", JMLR 12.
    """
    g, rate = u.g_decayed, u.lr
    if u.arguments["lr_decay"]:
        rate = rate / (1.0 + (u.t - 1.0) * u.arguments["lr_decay"])
    s = u.slot("squares") + g * g
    return {"parameter": u.p - rate * (g / (s.sqrt() + u.arguments["eps"])), "squares": s}


def update_adadelta(u: Update) -> dict[str, Term]:
    """s = rho * s + (1 - rho) * g^2
    d = sqrt(a + eps) / sqrt(s + eps) * g
    a = rho * a + (1 - rho) * d^2
    p = p - rate * d

    Zeiler 2012, arXiv:1212.5701, algorithm 1.
    """
    rho, eps, g = u.arguments["rho"], u.arguments["eps"], u.g_decayed
    s = u.slot("squares") * rho + g * g * (1 - rho)
    a = u.slot("steps")
    d = (a + eps).sqrt() / (s + eps).sqrt() * g
    return {"parameter": u.p - u.lr * d, "squares": s, "steps": a * rho + d * d * (1 - rho)}


def slots_rmsprop(arguments: Arguments) -> tuple[Slot, ...]:
    """`squares`; `mean` where centered; `momentum` where there is any."""
    names = (
        "squares",
        *["mean"] * arguments["centered"],
        *["momentum"] * bool(arguments["momentum"]),
    )
    return tuple(Slot(name) for name in names)


def update_rmsprop(u: Update) -> dict[str, Term]:
    """s = alpha * s + (1 - alpha) * g^2
    n = g / (sqrt(s) + eps);  centered  g / (sqrt(s - m^2) + eps) with the mean m of g
    b = momentum * b + n
    p = p - rate * b

    Hinton 2012, lecture 6e; centered as in Graves 2013, arXiv:1308.0850, eq. 38 to 41.
    """
    alpha, momentum, g = u.arguments["alpha"], u.arguments["momentum"], u.g_decayed
    s = u.slot("squares") * alpha + g * g * (1 - alpha)
    made = {"squares": s}
    if u.arguments["centered"]:
        m = u.slot("mean")
        m = made["mean"] = m + (g - m) * (1 - alpha)
        s = s - m * m
    step = g / (s.sqrt() + u.arguments["eps"])
    if momentum:
        step = made["momentum"] = u.slot("momentum") * momentum + step
    return {"parameter": u.p - u.lr * step, **made}


ADAGRAD = Optimiser(slots_adagrad, update_adagrad)
ADADELTA = Optimiser(keeps("squares", "steps"), update_adadelta)
RMSPROP = Optimiser(slots_rmsprop, update_rmsprop)
