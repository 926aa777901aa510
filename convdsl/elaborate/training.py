"""`train { ... }` blocks, read and checked by the tables of `ir.techniques`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from convdsl.diagnostics import Span
from convdsl.elaborate import foreign_training
from convdsl.elaborate.builtins import BUILTINS
from convdsl.elaborate.expressions import Evaluator
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Session, Stop, suggest
from convdsl.elaborate.values import ListValue, describe, format_value
from convdsl.ir.opdef import Role
from convdsl.ir.techniques import (
    COUNT,
    FRACTION,
    LOSSES,
    NUMBER,
    ONE_OF,
    PATTERNS,
    SETTINGS,
    SOME_OF,
    Argument,
    Table,
    Takes,
    Technique,
)
from convdsl.ir.training import Choice, Loss, Training, names
from convdsl.spelling import those
from convdsl.syntax import ast
from convdsl.syntax.walk import nodes


@dataclass(frozen=True, slots=True)
class TrainBlock:
    """A `train` block as read, with the names of parameters and of outputs in it, where they
    stand, and what is compared with them; of a loss that names no output, None."""

    settings: Training
    patterns: tuple[tuple[str, Span], ...]
    compared: tuple[tuple[str | None, Span, str | None], ...] = ()

    def check(self, session: Session, *, shared: bool = False) -> None:
        """Report names that no parameter, and no output, of the network has. A block that several
        models share may be meant for others: then an output is only missed, and so is one that the
        model has with other parameters than are set from outside."""
        outputs = list(session.graph.outputs)
        for name, span, other in self.compared:
            spared = (
                name is not None and not session.is_as_written and puts_out(session, span, name)
            )
            report = session.warn if shared or spared else session.fail
            code = "W0903" if shared or spared else "E0903"
            if name is None and len(outputs) > 1:
                text = f"there are {len(outputs)} outputs, and the loss does not say which it means"
                report(code, text, span, help=(f"write e.g. `mse({outputs[0]}, target)`",))
            elif name is not None and name not in outputs:
                help = suggest(name, outputs) or (those(outputs[:8]),)
                if other in outputs:
                    help = (f"the output comes first, then the target: ({other}, {name})",)
                if spared:
                    help = (
                        f"what is trained instead: --set 'train.loss=mse({outputs[0]}, target)'",
                    )
                report(code, f"no output is called `{name}`", span, help=help)
        self._check_schedule(session)
        states = session.graph.states.items()
        known = [key for key, state in states if state.role is Role.PARAMETER]
        layers = {key.rpartition(".")[0] for key in known}
        for pattern, span in self.patterns:
            if not any(names(pattern, key) for key in known):
                plain = pattern.rstrip("*").rstrip(".")
                near = _without(session, pattern) or suggest(plain, (*layers, *known))
                help = near or (f"there are {_listed(known)}",)
                text = f"no parameter, or layer with parameters, is called `{pattern}`"
                session.fail("E0903", text, span, help=help)

    def _check_schedule(self, session: Session) -> None:
        """Warn of what a schedule does behind the end of training, where the text says that."""
        choice, epochs = self.settings.schedule, self.settings.epochs
        if choice is None or choice.span is None or epochs is None:
            return
        for name, what in _IN_EPOCHS.items():
            said: Any = choice.arguments.get(name)
            first: Any = min(cast("list[int]", said)) if type(said) is list else said
            late = isinstance(first, int | float) and first >= epochs + (name == "warmup")
            if late and epochs:
                text = f"{what} {first:g} epochs, and training ends after {epochs}"
                help = (f"`{name}` is in epochs; `epochs` says how many there are",)
                session.warn("W0905", text, choice.span, help=help)


def _without(session: Session, pattern: str) -> tuple[str, ...]:
    """What a pattern names that has no weights."""
    named = (n for n in session.graph.op_nodes() if names(pattern, n.name))
    return tuple(f"`{n.name}` is an operator without: `{n.op.name}`" for n in named)[:1]


def puts_out(session: Session, place: Span, name: str) -> bool:
    """Whether some model of the file, in which something stands, calls an output so."""
    tree = session.trees.get(id(place.source))
    found = nodes(tree) if tree is not None else ()
    labels = (n.label for n in found if isinstance(n, ast.Sink | ast.Output))
    return any(label.plain == name for label in labels)


_IN_EPOCHS = {
    "warmup": "the warm-up takes",
    "every": "the rate drops first after",
    "at": "the rate drops first after",
}
"""Arguments of schedules that count epochs, and what happens then."""

_ONE = {"metrics": "metric", "augment": "augmentation"}
"""What one of a setting's techniques is called, where that is not as the setting."""


class TrainingReader:
    """Reads a `train` block, reporting every unknown setting, choice, argument and unfit value."""

    def __init__(self, evaluator: Evaluator, context: Context) -> None:
        self._evaluator = evaluator
        self._context = context
        self._patterns: list[tuple[str, Span]] = []
        self._compares: list[tuple[str | None, Span, str | None]] = []

    def read(self, node: ast.Train) -> TrainBlock:
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
        return TrainBlock(Training(**found), tuple(self._patterns), tuple(self._compares))

    def _fail(
        self, message: str, *labels: Span | tuple[Span, str], help: tuple[str, ...] = ()
    ) -> Stop:
        return self._evaluator.fail(self._context, "E0903", message, *labels, help=help)

    def _setting(self, setting: ast.Setting) -> Any:
        name, value = setting.name.id, setting.value
        if name in SETTINGS:
            return self._value(name, SETTINGS[name].takes, value)
        if name == "loss":
            return self._loss(value, 1.0)
        if name in ONE_OF:
            return self._choice(name, ONE_OF[name], value)
        if name in SOME_OF:
            several = self._several(name, value)
            if name == "metrics":
                for item in several:
                    self._check_metric(item)
            return tuple(self._choice(name, SOME_OF[name], item) for item in several)
        known = ("loss", *ONE_OF, *SOME_OF, *SETTINGS)
        help = foreign_training.setting(name) or suggest(name, known)
        help = help or (f"there are {', '.join(known)}",)
        owners = ((kind, t) for kind, table in ONE_OF.items() for t in table.values())
        found = next((o for o in owners if name in (a.name for a in o[1].arguments)), None)
        if found is not None:
            kind, technique = found
            help = (f"it is part of the {kind}: {kind} = {technique.name}({name} = ...)",)
        raise self._fail(f"unknown training setting `{name}`", setting.name.span, help=help)

    def _value(self, name: str, takes: Takes, node: ast.Expression, doc: str = "") -> Any:
        if takes is PATTERNS:
            self._check_quotes(name, node)
        value = self._word(name, takes, node) or self._evaluator.need(node, self._context)
        plain = list(value.items) if isinstance(value, ListValue) else value
        if not takes.fits(plain):
            text = f"`{name}` takes {takes.words}, not {describe(value)}"
            if takes is COUNT and type(value) is int:
                text = f"`{name}` is at least 0, not {value}"
            help = _instead(name, takes, value) or ((f"`{name}`: {doc}",) if doc else ())
            raise self._fail(text, node.span, help=help)
        made = takes.made(plain)
        if takes is PATTERNS:
            spans = [item.span for item in node.items] if isinstance(node, ast.Items) else []
            spans = spans if len(spans) == len(made) else [node.span] * len(made)
            self._patterns += zip(made, spans, strict=True)
        return made

    def _check_quotes(self, setting: str, node: ast.Expression) -> None:
        """Names of parameters are texts, as they have dots and wildcards."""
        for item in node.items if isinstance(node, ast.Items) else (node,):
            if isinstance(item, ast.Name) and not self._context.scope.find(item.id)[0]:
                help = (f'write "{item.id}"',)
                raise self._fail(f"`{setting}` takes names in quotes", item.span, help=help)

    def _word(self, name: str, takes: Takes, node: ast.Expression) -> str | None:
        """A choice that stands without quotes, where the file means nothing else by it."""
        if not takes.choices or not isinstance(node, ast.Name):
            return None
        if self._context.scope.find(node.id)[0]:
            return None
        if node.id not in takes.choices:
            help = suggest(node.id, takes.choices)
            text = f"`{name}` takes {takes.words}, not `{node.id}`"
            raise self._fail(text, node.span, help=help)
        return node.id

    def _check_metric(self, node: ast.Expression) -> None:
        """Metrics look at no output of their own."""
        for argument in node.arguments if isinstance(node, ast.Call) else ():
            value = argument.value
            if isinstance(value, ast.Name | ast.Member) and argument.name is None:
                name = value.span.text
                if isinstance(value, ast.Member) or not self._context.scope.find(name)[0]:
                    text = f"a metric names no output, and `{name}` would be one"
                    help = ("leave it out: metrics look at what the loss compares, its first term",)
                    raise self._fail(text, argument.span, help=help)

    def _several(self, setting: str, node: ast.Expression) -> tuple[ast.Expression, ...]:
        """The items of a list, or the stages of a chain."""
        if isinstance(node, ast.Items):
            return node.items
        if isinstance(node, ast.Chain) and setting == "augment":
            return (node.head, *node.stages)
        return (node,)

    def _choice(self, setting: str, known: Table, node: ast.Expression) -> Choice:
        """A name, or a call with arguments."""
        match node:
            case ast.Name():
                technique = self._known(setting, known, node)
                return self._chosen(technique, (), node.span)
            case ast.Call(callee=ast.Name() as name):
                technique = self._known(setting, known, name)
                return self._chosen(technique, node.arguments, node.span)
            case _:
                first = next(iter(known))
                text = f"`{setting}` takes one of its names, `{first}` or `{first}(...)`"
                help = self._quoted(setting, known, node.span.text) or _joined(setting, node)
                if isinstance(node, ast.Conditional):
                    help = ("settings have no conditions: --set train.NAME=VALUE says another",)
                raise self._fail(text, node.span, help=help or (f"one of {', '.join(known)}",))

    def _quoted(self, setting: str, known: Table, text: str) -> tuple[str, ...]:
        """Help for a technique that stands as a text."""
        word = text.strip('"')
        if word == text:
            return ()
        kind = _ONE.get(setting, setting)
        return (
            (f"write it without quotes: {word}",)
            if word in known
            else foreign_training.technique(kind, word, known) or suggest(word, known)
        )

    def _known(self, setting: str, known: Table, name: ast.Name) -> Technique:
        if name.id not in known:
            near = [other for other in known if name.id.lower() in other.split("_")]
            listed = (f"one of {', '.join(near or known)}",)
            if setting == "loss" and puts_out(self._evaluator.session, name.span, name.id):
                listed = (f"an output is compared with a target: mse({name.id}, target)",)
            kind = _ONE.get(setting, setting)
            help = (
                foreign_training.technique(kind, name.id, known)
                or suggest(name.id, known)
                or listed
            )
            text = f"unknown {kind} `{name.id}`"
            raise self._fail(text, name.span, help=help)
        return known[name.id]

    def _chosen(
        self, technique: Technique, arguments: Sequence[ast.Argument], span: Span
    ) -> Choice:
        """A technique with its arguments, all that it needs among them."""
        takes = technique.takes
        made: dict[str, Any] = {}
        position = 0
        for argument in arguments:
            keyword = self._keyword(technique.name, list(takes), position, argument)
            position += argument.name is None
            if keyword in made:
                raise self._fail(f"`{keyword}` is given twice", argument.span)
            made[keyword] = self._value(
                keyword, takes[keyword].takes, argument.value, takes[keyword].doc
            )
        for name in technique.lacks(made):
            text = f"`{technique.name}` needs `{name}`"
            raise self._fail(text, span, help=(_explained(takes[name]),))
        objection = technique.objects(technique.complete(made))
        if objection is not None:
            raise self._fail(f"`{technique.name}` {objection}", span)
        return Choice(technique.name, made, span)

    def _keyword(self, name: str, takes: list[str], position: int, argument: ast.Argument) -> str:
        listing = f"it takes {', '.join(takes) or 'none'}"
        if argument.name is None:
            if position >= len(takes):
                raise self._fail(f"too many arguments for `{name}`", argument.span, help=(listing,))
            return takes[position]
        keyword = argument.name.id
        if keyword not in takes:
            help = (
                foreign_training.technique_takes(keyword, takes)
                or suggest(keyword, takes)
                or (listing,)
            )
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
                technique = self._known("loss", LOSSES, name)
                split = 0
                while split < len(node.arguments) and node.arguments[split].name is None:
                    split += 1
                compares = tuple(self._compared(name.id, a) for a in node.arguments[:split])
                place = node.arguments[0].span if compares else node.span
                other = compares[1] if len(compares) > 1 else None
                self._compares.append((compares[0] if compares else None, place, other))
                if len(compares) > 2:
                    text = f"`{name.id}` compares an output with a target"
                    raise self._fail(text, node.arguments[2].span)
                measure = self._chosen(technique, node.arguments[split:], node.span)
                return (Loss(measure, compares, weight),)
            case _:
                self._compares.append((None, node.span, None))
                return (Loss(self._choice("loss", LOSSES, node), (), weight),)

    def _weighted(self, node: ast.Arithmetic, weight: float) -> tuple[Loss, ...]:
        """A loss times, or divided by, numbers."""
        losses: list[ast.Expression] = []
        for symbol, operand in (("*", node.first), *node.rest):
            if symbol == "*" and self._is_loss(operand):
                losses.append(operand)
                continue
            factor = self._value("loss", NUMBER, operand)
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
            help = _computed(name, argument.value)
            what = "is of an output" if name == _OWN else "compares an output with a target"
            raise self._fail(f"`{name}` {what}", argument.span, help=help)
        return argument.value.span.text


_OWN = "mean"
_TAKEN_AS_LOGITS = ("cross_entropy", "binary_cross_entropy", "focal", "dice", "kl_divergence")
_SHARES = ("sigmoid", "softmax")


def _computed(loss: str, node: ast.Expression) -> tuple[str, ...]:
    """Help for a loss of what is computed where it stands."""
    if loss == _OWN:
        return foreign_training.WRITTEN_OUT
    layer = node.callee if isinstance(node, ast.Call) else None
    if isinstance(layer, ast.Name) and layer.id in _SHARES and loss in _TAKEN_AS_LOGITS:
        return (f"it takes logits, and computes the {layer.id} itself: leave that out",)
    return ("what is computed is put out by the model, `... -> output NAME`, and named here",)


def _instead(name: str, takes: Takes, value: Any) -> tuple[str, ...]:
    """Help for a value of another kind that says what is meant."""
    if isinstance(value, str) and re.fullmatch(r"-?[\d.]+(e-?\d+)?", value.strip()):
        return (f"write it without quotes: {value.strip()}",)
    if isinstance(value, float) and value.is_integer() and takes.fits(int(value)):
        return (f"write {int(value)}",)
    if takes is FRACTION and type(value) is int and 10 <= value <= 100:
        return (f"write {value / 100} for {value} in a hundred",)
    if value is True and name == "ema":
        return ("say how much of the average stays: ema = 0.999",)
    if takes.fits([value]):
        return (f"a list stands in square brackets: {name} = [{format_value(value)}]",)
    return ()


def _joined(setting: str, node: ast.Expression) -> tuple[str, ...]:
    """Help for several techniques that are put together in another way."""
    if setting == "loss" and isinstance(node, ast.Items):
        return (f"losses are added: {' + '.join(item.span.text for item in node.items)}",)
    if setting == "augment" and isinstance(node, ast.Arithmetic):
        parts = (node.first, *(operand for _, operand in node.rest))
        return (f"steps follow each other: {' -> '.join(part.span.text for part in parts)}",)
    return ()


def _explained(argument: Argument) -> str:
    return f"`{argument.name}`, {argument.takes.words}: {argument.doc}"


def _listed(known: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(known[:8]) + (", ..." if len(known) > 8 else "") if known else "none"
