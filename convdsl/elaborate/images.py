"""`preprocess image: resize(256) -> center_crop(224) -> normalize(...)`, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import foreign_training, limits
from convdsl.elaborate.expressions import Evaluator
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop, suggest
from convdsl.elaborate.values import POISON, ListValue, describe, is_number
from convdsl.ir.graph import Value
from convdsl.ir.preprocess import Preprocessing, PreprocessingStep
from convdsl.syntax import ast

FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
LARGEST_SIDE = 65_536

# step -> its arguments in order; the ones with a default may be left out
STEPS: Mapping[str, tuple[str, ...]] = {
    "resize": ("size", "filter"),
    "center_crop": ("size",),
    "pad": ("size",),
    "rescale": ("factor",),
    "normalize": ("mean", "std"),
}
OPTIONAL = {"filter": "bilinear"}

Argument = tuple[Any, Span]


class _Unfit(Exception):
    def __init__(self, message: str, span: Span, help: tuple[str, ...] = ()) -> None:
        self.message = message
        self.span = span
        self.help = help


def preprocessing(evaluator: Evaluator, node: ast.Preprocess, context: Context) -> Preprocessing:
    """The declared steps, in order; raises Stop after reporting what is wrong."""
    _, image = context.scope.find(node.input.id)
    if image is POISON:
        raise Stop
    if not isinstance(image, Value) or image.node.name != node.input.id or image.type.rank != 4:
        raise evaluator.fail(
            context,
            "E0901",
            f"`{node.input.id}` is no image input of this model",
            node.input.span,
            help=suggest(node.input.id, evaluator.session.graph.inputs)
            or "declare it before: input image: f32[N, 3, 224, 224]",
        )
    calls = (
        (node.steps.head, *node.steps.stages)
        if isinstance(node.steps, ast.Chain)
        else (node.steps,)
    )
    channels = image.type.shape[1]
    if isinstance(channels, int) and channels > limits.IMAGE_CHANNELS:
        text = f"an image of {channels:,} channels; at most {limits.IMAGE_CHANNELS:,} make sense"
        raise evaluator.fail(context, "E0901", text, node.input.span)
    steps: list[PreprocessingStep] = []
    failed = False
    for call in calls:
        try:
            steps.append(_step(evaluator, call, channels, context))
        except _Unfit as error:
            evaluator.fail(context, "E0901", error.message, error.span, help=error.help)
            failed = True
        except Stop:
            failed = True
    if failed:
        raise Stop
    _check_units(evaluator, node, steps)
    if evaluator.session.is_as_written:  # another size may be looked at without an image
        _check_size(evaluator, node, image, _made(steps), context)
    return Preprocessing(node.input.id, tuple(steps))


def _check_units(
    evaluator: Evaluator, node: ast.Preprocess, steps: Sequence[PreprocessingStep]
) -> None:
    """Warn of statistics of pixels from 0 to 1 where they are 0 to 255, and the other way."""
    most = _PIXELS
    for step in steps:
        if step.name == "rescale":
            most *= step.arguments["factor"]
            if most > _PIXELS:
                text = f"pixels are 0 to 255, and 0 to {most:,.0f} behind this"
                help = "to 0 to 1: rescale(1 / 255)"
                evaluator.session.warn("W0901", text, node.steps.span, help=(help,))
                return
        elif step.name == "normalize":
            mean, std = step.arguments["mean"], step.arguments["std"]
            said = (*mean, *std)
            if most == _PIXELS and all(0 <= v <= 1 for v in said) and set(said) != {0.0, 1.0}:
                text = "pixels are 0 to 255 here, and these means and deviations of 0 to 1"
                help = "write `rescale(1 / 255) -> ` before it"
            elif max(mean) > most and most <= 1:
                text = f"pixels are 0 to {most:g} here, and these means up to {max(mean):g}"
                help = "leave `rescale` out: pixels are 0 to 255 by themselves"
            else:
                return
            evaluator.session.warn("W0901", text, node.steps.span, help=(help,))
            return


_PIXELS = 255.0
"""The largest value of a pixel that no step has changed."""


def _check_size(
    evaluator: Evaluator,
    node: ast.Preprocess,
    image: Value,
    made: tuple[int, int] | None,
    context: Context,
) -> None:
    """What the steps make is as large as the input."""
    space = image.type.shape[2:]
    if made is not None and all(isinstance(d, int) for d in space) and made != space:
        comes, wanted = ("x".join(map(str, pair)) for pair in (made, space))
        text = f"the image comes out as {comes}, and `{node.input.id}` is {wanted}"
        raise evaluator.fail(context, "E0901", text, node.steps.span)


def _made(steps: Sequence[PreprocessingStep]) -> tuple[int, int] | None:
    """Height and width of what the steps make, where they say them."""
    for step in reversed(steps):
        size = step.arguments.get("size")
        if step.name in ("center_crop", "pad", "resize"):
            if isinstance(size, int):
                return None if step.name == "resize" else (size, size)
            return None if size is None else (size[0], size[1])
    return None


def _step(
    evaluator: Evaluator, node: ast.Expression, channels: Any, context: Context
) -> PreprocessingStep:
    said = node.callee if isinstance(node, ast.Call) else node
    if isinstance(said, ast.Name) and (meant := foreign_training.step(said.id)):
        raise _Unfit(f"unknown preprocessing step `{said.id}`", said.span, meant)
    if not isinstance(node, ast.Call) or not isinstance(node.callee, ast.Name):
        known = (f"one of {', '.join(STEPS)}",)
        raise _Unfit("a preprocessing step is a call such as resize(256)", node.span, known)
    name = node.callee.id
    if name not in STEPS:
        raise _Unfit(
            f"unknown preprocessing step `{name}`",
            node.callee.span,
            suggest(name, STEPS) or (f"one of {', '.join(STEPS)}",),
        )
    arguments = _bind(evaluator, node, STEPS[name], context)
    rules: dict[str, Callable[[dict[str, Argument], Any], dict[str, Any]]] = {
        "resize": _resize,
        "center_crop": _center_crop,
        "pad": _pad,
        "rescale": _rescale,
        "normalize": _normalize,
    }
    return PreprocessingStep(name, rules[name](arguments, channels))


def _bind(
    evaluator: Evaluator, node: ast.Call, names: tuple[str, ...], context: Context
) -> dict[str, Argument]:
    bound: dict[str, Argument] = {}
    for position, argument in enumerate(node.arguments):
        if argument.name is not None:
            name = argument.name.id
        elif position < len(names):
            name = names[position]
        else:
            text = f"too many arguments: ({', '.join(names)})"
            first, second = (node.arguments[p].value.span.text for p in (position - 1, position))
            sides = names[position - 1] == "size" and first.isdecimal() and second.isdecimal()
            help = f"height and width are one size: {first}x{second}"
            raise _Unfit(text, argument.span, (help,) if sides else ())
        if name not in names:
            raise _Unfit(
                f"no argument `{name}`: ({', '.join(names)})", argument.span, suggest(name, names)
            )
        if name in bound:
            raise _Unfit(f"`{name}` is given twice", argument.span)
        given = argument.value
        if isinstance(given, ast.Name) and name == "filter":
            value = given.id
        else:
            value = evaluator.need(given, context)
        bound[name] = (value, given.span)
    for name in names:
        if name not in bound:
            if name not in OPTIONAL:
                takes = f"{node.span.text.partition('(')[0]}({', '.join(names)})"
                raise _Unfit(f"`{name}` is missing", node.span, (f"it is {takes}",))
            bound[name] = (OPTIONAL[name], node.span)
    return bound


def _pixels(argument: Argument) -> int | list[int]:
    value, span = argument
    value = tuple(value.items) if isinstance(value, ListValue) else value
    values = list(value) if isinstance(value, tuple) else [value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    for item in values:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(item, bool) or not isinstance(item, int) or not 1 <= item <= LARGEST_SIDE:
            raise _Unfit(
                f"pixels are counted from 1 to {LARGEST_SIDE}, as 256 or 224x224; "
                f"this is {describe(value)}",
                span,
            )
    if len(values) not in (1, 2):  # pyright: ignore[reportUnknownArgumentType]
        raise _Unfit("an image has height and width", span)
    return values[0] if len(values) == 1 else values  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _resize(arguments: dict[str, Argument], channels: Any) -> dict[str, Any]:
    filter, span = arguments["filter"]
    if filter not in FILTERS:
        raise _Unfit(
            f"unknown filter `{filter}`",
            span,
            _both_sides(arguments["size"][0], filter)
            or suggest(str(filter), FILTERS)
            or (f"one of {', '.join(FILTERS)}",),
        )
    return {"size": _pixels(arguments["size"]), "filter": filter}


def _both_sides(size: Any, second: Any) -> tuple[str, ...]:
    """Help for height and width as two numbers."""
    return (f"height and width are one size: {size}x{second}",) if type(second) is int else ()


def _center_crop(arguments: dict[str, Argument], channels: Any) -> dict[str, Any]:
    value, span = arguments["size"]
    if isinstance(value, float):
        if not 0 < value <= 1:
            raise _Unfit("a fraction of the shorter side lies between 0 and 1", span)
        return {"fraction": value}
    return {"size": _pixels(arguments["size"])}


def _pad(arguments: dict[str, Argument], channels: Any) -> dict[str, Any]:
    return {"size": _pixels(arguments["size"])}


def _rescale(arguments: dict[str, Argument], channels: Any) -> dict[str, Any]:
    value, span = arguments["factor"]
    if not is_number(value):
        raise _Unfit(f"a factor is a number, not {describe(value)}", span)
    return {"factor": float(value)}


def _normalize(arguments: dict[str, Argument], channels: Any) -> dict[str, Any]:
    made = {name: _per_channel(name, arguments[name], channels) for name in ("mean", "std")}
    if 0.0 in made["std"]:
        raise _Unfit("a standard deviation of 0", arguments["std"][1])
    return made


def _per_channel(name: str, argument: Argument, channels: Any) -> list[float]:
    value, span = argument
    count = channels if isinstance(channels, int) else 1
    values = list(value.items) if isinstance(value, ListValue) else [value] * count
    if not all(is_number(item) for item in values):
        raise _Unfit(f"`{name}` takes a number, or one for each channel", span)
    if len(values) != count:
        raise _Unfit(f"{len(values)} numbers for {count} channels", span)
    return [float(item) for item in values]
