"""Optimizers."""

from __future__ import annotations

from convdsl.ir.techniques.record import (
    FLAG,
    FRACTION,
    POSITIVE,
    RATE,
    SHARE,
    Argument,
    Table,
    Technique,
    table,
)


def _common(lr: float, weight_decay: float = 0.0) -> tuple[Argument, ...]:
    return (
        Argument("lr", RATE, lr, "the learning rate, which the schedule changes"),
        Argument("weight_decay", RATE, weight_decay, "how much weights are drawn to zero"),
    )


def _adam(
    lr: float = 1e-3, weight_decay: float = 0.0, eps: float = 1e-8, beta2: float = 0.999
) -> tuple[Argument, ...]:
    return (*_common(lr, weight_decay), *_betas(beta2), _eps(eps))


def _betas(beta2: float) -> tuple[Argument, ...]:
    return (
        Argument("beta1", SHARE, 0.9, "decay of the gradients' mean"),
        Argument("beta2", SHARE, beta2, "decay of the second mean"),
    )


def _eps(eps: float) -> Argument:
    return Argument("eps", RATE, eps, "added to what is divided by")


def _momentum(default: float = 0.0) -> Argument:
    return Argument("momentum", FRACTION, default, "how much of the last step is repeated")


_AMSGRAD = Argument("amsgrad", FLAG, False, "divide by the largest second mean so far")

OPTIMIZERS: Table = table(
    Technique(
        "sgd",
        "gradient descent, with momentum or Nesterov's",
        (
            *_common(1e-3),
            _momentum(),
            Argument("dampening", FRACTION, 0.0, "how much less of a gradient enters the momentum"),
            Argument("nesterov", FLAG, False, "look ahead; needs momentum, no dampening"),
        ),
        lambda a: (
            "with `nesterov` needs `momentum`, and no `dampening`"
            if a["nesterov"] and (a["momentum"] == 0 or a["dampening"] != 0)
            else None
        ),
    ),
    Technique(
        "adagrad",
        "Duchi et al. 2011",
        (
            *_common(1e-2),
            Argument("lr_decay", RATE, 0.0, "the rate is divided by 1 + lr_decay * steps"),
            _eps(1e-10),
            Argument("initial", RATE, 0.0, "what the sums of squares start from"),
        ),
    ),
    Technique(
        "adadelta",
        "Zeiler 2012",
        (*_common(1.0), Argument("rho", SHARE, 0.9, "decay of the mean squares"), _eps(1e-6)),
    ),
    Technique(
        "rmsprop",
        "Hinton 2012, lecture 6e",
        (
            *_common(1e-2),
            Argument("alpha", SHARE, 0.99, "decay of the mean squares"),
            _momentum(),
            _eps(1e-8),
            Argument("centered", FLAG, False, "divide by the deviation instead"),
        ),
    ),
    Technique("adam", "Kingma, Ba 2015", (*_adam(), _AMSGRAD)),
    Technique(
        "adamw",
        "Adam with a decay of its own; Loshchilov, Hutter 2019",
        (*_adam(weight_decay=1e-2), _AMSGRAD),
    ),
    Technique("adamax", "Adam by the infinity norm; Kingma, Ba 2015", _adam(lr=2e-3)),
    Technique(
        "nadam",
        "Adam with Nesterov's momentum; Dozat 2016",
        (*_adam(lr=2e-3), Argument("momentum_decay", RATE, 4e-3, "how fast the momentum comes")),
    ),
    Technique("radam", "Adam, rectified; Liu et al. 2020", _adam()),
    Technique(
        "lion",
        "by signs; Chen et al. 2023",
        (*_common(1e-4), *_betas(0.99)),
    ),
    Technique("lamb", "Adam, layer by layer; You et al. 2020", _adam(eps=1e-6)),
    Technique(
        "lars",
        "SGD, layer by layer; You et al. 2017",
        (
            *_common(1e-1),
            _momentum(0.9),
            Argument("trust", RATE, 1e-3, "step of a layer in shares of its norm"),
        ),
    ),
    Technique("amsgrad", "Adam with `amsgrad = true`; Reddi et al. 2018", _adam()),
    Technique(
        "adabound",
        "Adam between bounds that close; Luo et al. 2019",
        (
            *_adam(),
            Argument("final_lr", RATE, 0.1, "where the bounds close, at the rate `lr`"),
            Argument("gamma", POSITIVE, 1e-3, "how fast they close"),
        ),
    ),
)
