"""`train { ... }` blocks, read and checked: which settings exist, and what they take.

The names and defaults are PyTorch's where PyTorch has the thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from convdsl.diagnostics import Span
from convdsl.elaborate.builtins import BUILTINS
from convdsl.elaborate.expressions import Evaluator
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop, suggest
from convdsl.elaborate.values import ListValue, describe, is_number
from convdsl.ir.training import Choice, Loss, Training
from convdsl.syntax import ast

Check = Callable[[Any], bool]
Choices: TypeAlias = "Mapping[str, Mapping[str, Check]]"


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

ONE_OF: dict[str, Choices] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
SOME_OF: dict[str, Choices] = {"augment": AUGMENTATIONS, "metrics": METRICS}


class TrainingReader:
    """Reads a `train` block, reporting every unknown setting, choice, argument and unfit value."""

    def __init__(self, evaluator: Evaluator, context: Context) -> None:
        self._evaluator = evaluator
        self._context = context

    def read(self, node: ast.Train) -> Training:
        """What the block says, as far as it is sound."""
        found: dict[str, Any] = {}
        spans: dict[str, Span] = {}
        for setting in node.settings:
            name = setting.name.id
            try:
                if name in spans:
                    first = (spans[name], "first here")
                    raise self._fail(f"`{name}` is set twice", setting.name.span, first)
                spans[name] = setting.name.span
                found[name] = self._setting(setting)
            except Stop:
                continue
        return Training(**found)

    def _fail(
        self, message: str, *labels: Span | tuple[Span, str], help: tuple[str, ...] = ()
    ) -> Stop:
        return self._evaluator.fail(self._context, "E0903", message, *labels, help=help)

    def _setting(self, setting: ast.Setting) -> Any:
        name, value = setting.name.id, setting.value
        if name in VALUES:
            return self._value(name, VALUES[name], value)
        if name == "loss":
            return self._loss(value, 1.0)
        if name in ONE_OF:
            return self._choice(name, ONE_OF[name], value)
        if name in SOME_OF:
            several = self._several(name, value)
            return tuple(self._choice(name, SOME_OF[name], item) for item in several)
        known = ("loss", *VALUES, *ONE_OF, *SOME_OF)
        help = suggest(name, known) or (f"there are {', '.join(known)}",)
        raise self._fail(f"unknown training setting `{name}`", setting.name.span, help=help)

    def _value(self, name: str, check: Check, node: ast.Expression) -> Any:
        value = self._evaluator.need(node, self._context)
        if not check(value):
            wanted = WANTED.get(check, "a size, or a whole number")
            raise self._fail(f"`{name}` takes {wanted}, not {describe(value)}", node.span)
        return list(value.items) if isinstance(value, ListValue) else value

    def _several(self, setting: str, node: ast.Expression) -> tuple[ast.Expression, ...]:
        """The items of a list, or the stages of a chain."""
        if isinstance(node, ast.Items):
            return node.items
        if isinstance(node, ast.Chain) and setting == "augment":
            return (node.head, *node.stages)
        return (node,)

    def _choice(self, setting: str, known: Choices, node: ast.Expression) -> Choice:
        """A name, or a call with arguments."""
        match node:
            case ast.Name():
                self._known(setting, known, node)
                return Choice(node.id)
            case ast.Call(callee=ast.Name() as name):
                takes = self._known(setting, known, name)
                return Choice(name.id, self._arguments(name.id, takes, node.arguments))
            case _:
                text = f"`{setting}` takes one of {', '.join(known)}"
                raise self._fail(text, node.span)

    def _known(self, setting: str, known: Choices, name: ast.Name) -> Mapping[str, Check]:
        if name.id not in known:
            help = suggest(name.id, known) or (f"one of {', '.join(known)}",)
            raise self._fail(f"unknown {setting} `{name.id}`", name.span, help=help)
        return known[name.id]

    def _arguments(
        self, name: str, takes: Mapping[str, Check], arguments: Sequence[ast.Argument]
    ) -> dict[str, Any]:
        made: dict[str, Any] = {}
        position = 0
        for argument in arguments:
            keyword = self._keyword(name, list(takes), position, argument)
            position += argument.name is None
            if keyword in made:
                raise self._fail(f"`{keyword}` is given twice", argument.span)
            made[keyword] = self._value(keyword, takes[keyword], argument.value)
        return made

    def _keyword(self, name: str, takes: list[str], position: int, argument: ast.Argument) -> str:
        listing = f"it takes {', '.join(takes) or 'none'}"
        if argument.name is None:
            if position >= len(takes):
                raise self._fail(f"too many arguments for `{name}`", argument.span, help=(listing,))
            return takes[position]
        keyword = argument.name.id
        if keyword not in takes:
            help = suggest(keyword, takes) or (listing,)
            raise self._fail(f"`{name}` has no argument `{keyword}`", argument.name.span, help=help)
        return keyword

    # Losses

    def _loss(self, node: ast.Expression, weight: float) -> tuple[Loss, ...]:
        """The terms of a weighted sum."""
        match node:
            case ast.Arithmetic() if node.rest[0][0] in ("+", "-"):
                signs = [1.0, *(1.0 if symbol == "+" else -1.0 for symbol, _ in node.rest)]
                operands = (node.first, *(operand for _, operand in node.rest))
                terms = (self._loss(o, weight * s) for o, s in zip(operands, signs, strict=True))
                return tuple(term for some in terms for term in some)
            case ast.Arithmetic():
                return self._weighted(node, weight)
            case ast.Call(callee=ast.Name() as name):
                takes = self._known("loss", LOSSES, name)
                split = 0
                while split < len(node.arguments) and node.arguments[split].name is None:
                    split += 1
                compares = tuple(self._compared(name.id, a) for a in node.arguments[:split])
                if len(compares) > 2:
                    text = f"`{name.id}` compares an output with a target"
                    raise self._fail(text, node.arguments[2].span)
                measure = Choice(name.id, self._arguments(name.id, takes, node.arguments[split:]))
                return (Loss(measure, compares, weight),)
            case _:
                return (Loss(self._choice("loss", LOSSES, node), (), weight),)

    def _weighted(self, node: ast.Arithmetic, weight: float) -> tuple[Loss, ...]:
        """A loss times, or divided by, numbers."""
        losses: list[ast.Expression] = []
        for symbol, operand in (("*", node.first), *node.rest):
            if symbol == "*" and self._is_loss(operand):
                losses.append(operand)
                continue
            factor = self._value("loss", _number, operand)
            if symbol not in ("*", "/") or (symbol == "/" and factor == 0):
                raise self._fail("the loss is a weighted sum of losses", node.span)
            weight = weight * factor if symbol == "*" else weight / factor
        if len(losses) != 1:
            raise self._fail("the loss is a weighted sum of losses", node.span)
        return self._loss(losses[0], weight)

    def _is_loss(self, node: ast.Expression) -> bool:
        match node:
            case ast.Call(callee=ast.Name() as name) | (ast.Name() as name):
                return name.id not in BUILTINS and not self._context.scope.find(name.id)[0]
            case ast.Arithmetic():
                return any(map(self._is_loss, (node.first, *(o for _, o in node.rest))))
            case _:
                return False

    def _compared(self, name: str, argument: ast.Argument) -> str:
        """An output, or a target, by name."""
        if not isinstance(argument.value, ast.Name | ast.Member):
            raise self._fail(f"`{name}` compares an output with a target", argument.span)
        return argument.value.span.text
