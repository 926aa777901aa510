"""Checks of `train { ... }` blocks: which settings exist, and what they take.

The names and defaults are PyTorch's where PyTorch has the thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convdsl.elaborate.expressions import Evaluator
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop, suggest
from convdsl.elaborate.values import ListValue, describe, is_number
from convdsl.syntax import ast

Check = Callable[[Any], bool]


def _rate(value: Any) -> bool:
    return is_number(value) and value >= 0


def _fraction(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return is_number(value)


def _numbers(value: Any) -> bool:
    return is_number(value) or (
        isinstance(value, ListValue) and all(is_number(item) for item in value.items)
    )


def _counts(value: Any) -> bool:
    return isinstance(value, ListValue) and all(_count(item) for item in value.items)


WANTED: Mapping[Check, str] = {
    _rate: "a number of 0 or more",
    _fraction: "a number from 0 to 1",
    _count: "a whole number",
    _flag: "true or false",
    _number: "a number",
    _numbers: "a number or a list of numbers",
    _counts: "a list of whole numbers",
}

_COMMON: dict[str, Check] = {"lr": _rate, "weight_decay": _rate}
_ADAM: dict[str, Check] = _COMMON | {"beta1": _fraction, "beta2": _fraction, "eps": _rate}

OPTIMIZERS: dict[str, dict[str, Check]] = {
    "sgd": _COMMON | {"momentum": _fraction, "dampening": _fraction, "nesterov": _flag},
    "adagrad": _COMMON | {"lr_decay": _rate, "eps": _rate},
    "adadelta": _COMMON | {"rho": _fraction, "eps": _rate},
    "rmsprop": _COMMON
    | {"alpha": _fraction, "momentum": _fraction, "eps": _rate, "centered": _flag},
    "adam": _ADAM | {"amsgrad": _flag},
    "adamw": _ADAM | {"amsgrad": _flag},
    "adamax": _ADAM,
    "nadam": _ADAM | {"momentum_decay": _rate},
    "radam": _ADAM,
    "lion": _COMMON | {"beta1": _fraction, "beta2": _fraction},
    "lamb": _ADAM,
    "lars": _COMMON | {"momentum": _fraction, "trust": _rate},
}

SCHEDULES: dict[str, dict[str, Check]] = {
    "constant": {"warmup": _rate},
    "step": {"every": _count, "factor": _fraction, "warmup": _rate},
    "multistep": {"at": _counts, "factor": _fraction, "warmup": _rate},
    "exponential": {"factor": _fraction, "warmup": _rate},
    "cosine": {"warmup": _rate, "minimum": _rate},
    "linear": {"warmup": _rate, "minimum": _rate},
    "polynomial": {"power": _rate, "warmup": _rate, "minimum": _rate},
    "one_cycle": {"warmup": _rate, "peak": _rate},
}

LOSSES: dict[str, dict[str, Check]] = {
    "cross_entropy": {"label_smoothing": _fraction},
    "binary_cross_entropy": {},
    "mse": {},
    "l1": {},
    "smooth_l1": {"beta": _rate},
    "nll": {},
    "dice": {"eps": _rate},
}

AUGMENTATIONS: dict[str, dict[str, Check]] = {
    "random_crop": {"size": lambda v: _count(v) or isinstance(v, tuple), "pad": _count},
    "random_resized_crop": {
        "size": lambda v: _count(v) or isinstance(v, tuple),
        "scale": _numbers,
        "ratio": _numbers,
    },
    "horizontal_flip": {"probability": _fraction},
    "vertical_flip": {"probability": _fraction},
    "rotate": {"degrees": _rate},
    "color_jitter": {"brightness": _rate, "contrast": _rate, "saturation": _rate, "hue": _rate},
    "erase": {"probability": _fraction},
    "mixup": {"alpha": _rate},
    "cutmix": {"alpha": _rate},
}

METRICS: dict[str, dict[str, Check]] = {
    "accuracy": {"top": _count},
    "precision": {},
    "recall": {},
    "f1": {},
    "mean_absolute_error": {},
    "mean_squared_error": {},
    "intersection_over_union": {},
}

VALUES: dict[str, Check] = {
    "epochs": _count,
    "batch": _count,
    "seed": _count,
    "clip": _rate,
    "ema": _fraction,
}

CALLS: dict[str, dict[str, dict[str, Check]]] = {
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "metrics": METRICS,
}


def check_train(evaluator: Evaluator, node: ast.Train, context: Context) -> None:
    """Report every unknown setting, choice, argument and unfit value."""
    seen: set[str] = set()
    for setting in node.settings:
        try:
            name = setting.name.id
            if name in seen:
                raise evaluator.fail(context, "E0903", f"`{name}` is set twice", setting.name.span)
            seen.add(name)
            if name in VALUES:
                _check_value(evaluator, name, VALUES[name], setting.value, context)
            elif name in CALLS:
                _check_calls(evaluator, name, setting.value, context)
            else:
                raise evaluator.fail(
                    context,
                    "E0903",
                    f"unknown training setting `{name}`",
                    setting.name.span,
                    help=suggest(name, {*VALUES, *CALLS}),
                )
        except Stop:
            continue


def _check_value(
    evaluator: Evaluator, name: str, check: Check, node: ast.Expression, context: Context
) -> None:
    value = evaluator.need(node, context)
    if not check(value):
        wanted = WANTED.get(check, "another kind of value")
        raise evaluator.fail(
            context, "E0903", f"`{name}` takes {wanted}, not {describe(value)}", node.span
        )


def _check_calls(
    evaluator: Evaluator, setting: str, node: ast.Expression, context: Context
) -> None:
    """One call, or a list or chain of calls."""
    match node:
        case ast.Items() if setting in ("augment", "metrics"):
            for item in node.items:
                _check_calls(evaluator, setting, item, context)
        case ast.Chain() if setting == "augment":
            for item in (node.head, *node.stages):
                _check_calls(evaluator, setting, item, context)
        case ast.Arithmetic() if setting == "loss":
            for item in (node.first, *(operand for _, operand in node.rest)):
                if not isinstance(item, ast.Literal):
                    _check_calls(evaluator, setting, item, context)
        case ast.Name():
            _choice(evaluator, setting, node, context)
        case ast.Call(callee=ast.Name() as name):
            arguments = _choice(evaluator, setting, name, context)
            _check_arguments(evaluator, setting, name.id, arguments, node, context)
        case _:
            raise evaluator.fail(context, "E0903", f"`{setting}` takes a call", node.span)


def _choice(
    evaluator: Evaluator, setting: str, name: ast.Name, context: Context
) -> dict[str, Check]:
    known = CALLS[setting]
    if name.id not in known:
        raise evaluator.fail(
            context,
            "E0903",
            f"unknown {setting} `{name.id}`",
            name.span,
            help=suggest(name.id, known) or (f"one of {', '.join(known)}",),
        )
    return known[name.id]


def _check_arguments(
    evaluator: Evaluator,
    setting: str,
    name: str,
    known: Mapping[str, Check],
    node: ast.Call,
    context: Context,
) -> None:
    positional = 0
    for argument in node.arguments:
        if argument.name is None:
            if setting == "loss":  # prediction and target, by name of output or label
                positional += 1
                if positional > 2 or not isinstance(argument.value, ast.Name | ast.Member):
                    raise evaluator.fail(
                        context,
                        "E0903",
                        f"`{name}` compares an output with a target",
                        argument.span,
                    )
                continue
            if positional >= len(known):
                raise evaluator.fail(
                    context, "E0903", f"too many arguments for `{name}`", argument.span
                )
            keyword = list(known)[positional]
            positional += 1
        else:
            keyword = argument.name.id
            if keyword not in known:
                raise evaluator.fail(
                    context,
                    "E0903",
                    f"`{name}` has no argument `{keyword}`",
                    argument.name.span,
                    help=suggest(keyword, known) or (f"it takes {', '.join(known) or 'none'}",),
                )
        _check_value(evaluator, keyword, known[keyword], argument.value, context)
