"""Optimisers whose step is measured by the norm of the parameter: lars, lamb.

Norms are of the whole parameter, so that a step is a reduction and then one pass. A parameter, or a
step, of norm zero is not scaled.
"""

from __future__ import annotations

from convdsl.training.optimisers.moments import moments
from convdsl.training.optimisers.record import Optimiser, Update, keeps
from convdsl.training.terms import Term


def update_lars(u: Update) -> dict[str, Term]:
    """b = momentum * b + rate * trust * |p| / (|g| + decay * |p|) * (g + decay * p)
    p = p - b

    You et al. 2017, arXiv:1708.03888, algorithm 1.
    """
    size, slope = u.p.norm(), u.g.norm()
    below = slope + size * u.decay if u.decay else slope
    share = _where_both(size, slope, size / below * u.arguments["trust"])
    b = u.slot("momentum") * u.arguments["momentum"] + u.lr * share * u.g_decayed
    return {"parameter": u.p - b, "momentum": b}


def update_lamb(u: Update) -> dict[str, Term]:
    """r = m' / (sqrt(v') + eps) + decay * p
    p = p - rate * |p| / |r| * r

    You et al. 2020, arXiv:1904.00962, algorithm 2, phi the identity.
    """
    k = moments(u, u.g)
    below = k.v.sqrt() * (1.0 / k.v_correction.sqrt()) + u.arguments["eps"]
    r = (1.0 / k.m_correction) * (k.m / below)
    if u.decay:
        r = r + u.p * u.decay
    size, length = u.p.norm(), r.norm()
    share = _where_both(size, length, size / length)
    return {"parameter": u.p - u.lr * share * r, "mean": k.m, "square": k.v}


def _where_both(a: Term, b: Term, share: Term) -> Term:
    """A share where both norms are positive, else 1."""
    return (a.minimum(b) > 0.0).where(share, 1.0)


LARS = Optimiser(keeps("momentum"), update_lars)
LAMB = Optimiser(keeps("mean", "square"), update_lamb)
