"""Adam and what follows it: running means of gradients and of their squares.

m = beta1 * m + (1 - beta1) * g          divided by 1 - beta1^t, since it starts from zero
v = beta2 * v + (1 - beta2) * g^2        divided by 1 - beta2^t
"""

from __future__ import annotations

from dataclasses import dataclass

from convdsl.training.optimisers.record import Arguments, Optimiser, Slot, Update, keeps
from convdsl.training.terms import Term


@dataclass(frozen=True, slots=True)
class Moments:
    """The new means, and what they have to be divided by (scalars)."""

    m: Term
    v: Term
    m_correction: Term
    v_correction: Term


def moments(u: Update, g: Term) -> Moments:
    """The means with a gradient added."""
    beta1, beta2 = u.arguments["beta1"], u.arguments["beta2"]
    m, v = u.slot("mean"), u.slot("square")
    return Moments(
        m + (g - m) * (1 - beta1),
        v * beta2 + g * g * (1 - beta2),
        1.0 - beta1**u.t,
        1.0 - beta2**u.t,
    )


def slots_adam(arguments: Arguments) -> tuple[Slot, ...]:
    """The two means; the largest square so far for AMSGrad."""
    names = ("mean", "square", *["largest"] * arguments["amsgrad"])
    return tuple(Slot(name) for name in names)


def _adam(u: Update, p: Term, g: Term, amsgrad: bool) -> dict[str, Term]:
    """p - rate * m' / (sqrt(v') + eps) of corrected means; AMSGrad by the largest v so far."""
    k = moments(u, g)
    made = {"mean": k.m, "square": k.v}
    v = k.v
    if amsgrad:
        v = made["largest"] = u.slot("largest").maximum(v)
    below = v.sqrt() * (1.0 / k.v_correction.sqrt()) + u.arguments["eps"]
    return {"parameter": p - (u.lr / k.m_correction) * (k.m / below), **made}


def update_adam(u: Update) -> dict[str, Term]:
    """p = p - rate * m' / (sqrt(v') + eps); decay is part of the gradient.

    Kingma, Ba 2015, arXiv:1412.6980, algorithm 1.
    """
    return _adam(u, u.p, u.g_decayed, u.arguments["amsgrad"])


def update_amsgrad(u: Update) -> dict[str, Term]:
    """Adam, divided by the largest second mean so far, corrected as PyTorch does.

    Reddi et al. 2018, "On the convergence of Adam and beyond", algorithm 2.
    """
    return _adam(u, u.p, u.g_decayed, amsgrad=True)


def update_adamw(u: Update) -> dict[str, Term]:
    """Adam beside p (1 - rate * decay). Loshchilov, Hutter 2019, arXiv:1711.05101."""
    return _adam(u, u.p_decayed, u.g, u.arguments["amsgrad"])


def update_adamax(u: Update) -> dict[str, Term]:
    """u = max(beta2 * u, |g| + eps);  p = p - rate / (1 - beta1^t) * m / u

    Kingma, Ba 2015, arXiv:1412.6980, algorithm 2.
    """
    beta1, beta2, g, m = u.arguments["beta1"], u.arguments["beta2"], u.g_decayed, u.slot("mean")
    m = m + (g - m) * (1 - beta1)
    largest = (u.slot("largest") * beta2).maximum(g.abs() + u.arguments["eps"])
    rate = u.lr / (1.0 - beta1**u.t)
    return {"parameter": u.p - rate * (m / largest), "mean": m, "largest": largest}


def update_nadam(u: Update) -> dict[str, Term]:
    """mu(t) = beta1 * (1 - 0.96^(t * momentum_decay) / 2), M(t) = mu(1) ... mu(t)
    p = p - rate * ((1 - mu(t)) / (1 - M(t)) * g + mu(t+1) / (1 - M(t+1)) * m) / (sqrt(v') + eps)

    Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2.
    """
    beta1, power = u.arguments["beta1"], u.arguments["momentum_decay"]
    g = u.g_decayed
    k = moments(u, g)
    mu = (1.0 - 0.96 ** (u.t * power) * 0.5) * beta1
    mu_next = (1.0 - 0.96 ** ((u.t + 1.0) * power) * 0.5) * beta1
    product = u.slot("momenta") * mu
    of_g = u.lr * (1.0 - mu) / (1.0 - product)
    of_m = u.lr * mu_next / (1.0 - product * mu_next)
    below = k.v.sqrt() * (1.0 / k.v_correction.sqrt()) + u.arguments["eps"]
    p = u.p - (of_g * g + of_m * k.m) / below
    return {"parameter": p, "mean": k.m, "square": k.v, "momenta": product}


def slots_nadam(arguments: Arguments) -> tuple[Slot, ...]:
    """The two means, and the product of all momenta so far."""
    return (Slot("mean"), Slot("square"), Slot("momenta", 1.0, scalar=True))


def update_radam(u: Update) -> dict[str, Term]:
    """Adam times the rectification r(t); while the variance of v is unbounded, p - rate * m'.

    rho = 2 / (1 - beta2) - 1,  rho(t) = rho - 2 t beta2^t / (1 - beta2^t)
    r(t) = sqrt((rho(t) - 4) (rho(t) - 2) rho / ((rho - 4) (rho - 2) rho(t))),  where rho(t) > 5

    Liu et al. 2020, arXiv:1908.03265, algorithm 2; the 5 is PyTorch's.
    """
    beta2 = u.arguments["beta2"]
    k = moments(u, u.g_decayed)
    limit = 2 / (1 - beta2) - 1
    rho = limit - u.t * 2.0 * beta2**u.t / k.v_correction
    rectified = rho > 5.0
    held = rho.maximum(5.0)  # so that the root is of something positive
    scale = limit / ((limit - 4) * (limit - 2)) if limit > 4 else 0.0
    r = ((held - 4.0) * (held - 2.0) / held * scale).sqrt()
    rate = u.lr / k.m_correction
    adapted = (rate * r * k.v_correction.sqrt()) * (k.m / (k.v.sqrt() + u.arguments["eps"]))
    return {
        "parameter": u.p - rectified.where(adapted, rate * k.m),
        "mean": k.m,
        "square": k.v,
    }


def update_adabound(u: Update) -> dict[str, Term]:
    """p = p - clip(rate * sqrt(1 - beta2^t) / (1 - beta1^t) / (sqrt(v) + eps), low, high) * m
    low = last * (1 - 1 / (gamma * t + 1)),  high = last * (1 + 1 / (gamma * t))

    `last` is final_lr at the rate `lr` and follows the schedule, as the authors' code.
    Luo et al. 2019, arXiv:1902.09843.
    """
    base, gamma = u.arguments["lr"], u.arguments["gamma"]
    k = moments(u, u.g_decayed)
    last = u.lr * (u.arguments["final_lr"] / base if base else 0.0)
    low = last * (1.0 - 1.0 / (u.t * gamma + 1.0))
    high = last * (1.0 + 1.0 / (u.t * gamma))
    wanted = u.lr * k.v_correction.sqrt() / k.m_correction / (k.v.sqrt() + u.arguments["eps"])
    rate = wanted.maximum(low).minimum(high)
    return {"parameter": u.p - rate * k.m, "mean": k.m, "square": k.v}


ADAM = Optimiser(slots_adam, update_adam)
AMSGRAD = Optimiser(keeps("mean", "square", "largest"), update_amsgrad)
ADAMW = Optimiser(slots_adam, update_adamw)
ADAMAX = Optimiser(keeps("mean", "largest"), update_adamax)
NADAM = Optimiser(slots_nadam, update_nadam)
RADAM = Optimiser(keeps("mean", "square"), update_radam)
ADABOUND = Optimiser(keeps("mean", "square"), update_adabound)
