"""What losses and metrics compare: their graph, and what is said of those that cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from convdsl.diagnostics import CompileError, Diagnostic, InputError, Label
from convdsl.ir import techniques
from convdsl.ir.build import Build
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.model import Model
from convdsl.ir.training import Choice, Loss, Training
from convdsl.ops import BY_NAME
from convdsl.ops.shape import OPERATORS as SHAPES
from convdsl.tensor import TensorType
from convdsl.training.data.augmentation import BATCHES
from convdsl.training.losses import COMPARING, LOSSES, UnknownSize
from convdsl.training.metrics import METRICS
from convdsl.training.settings import complete

LOSS = "loss"


class Misfit(CompileError, InputError):
    """Losses and metrics that do not go with a network, and where the text says them."""


def mixes(training: Training) -> bool:
    """Whether augmentation mixes samples, so that labels are shares of classes."""
    return any(choice.name in BATCHES for choice in training.augment)


def agree(model: Model, training: Training) -> None:
    """Whether losses and metrics can judge what the network puts out. Raises Misfit with all
    that cannot, at their places in the text; UnknownSize where a size that is open decides it."""
    training = replace(training, loss=tuple(map(_without_data, training.loss)))
    loss_model(model, training, mixes=mixes(training))
    _, targets = loss_model(model, training)
    found = (*_misjudged(model, training, targets), *_other_images(model, training))
    if found:
        raise Misfit(found)


def disagreements(model: Model, said: Mapping[str, Any] | None = None) -> tuple[Diagnostic, ...]:
    """What `agree` says of a model's `train` block, and what is `said` over it, as far as sizes are
    known; of a block that several models share, which may be meant for others, as warnings. An
    output that was told to be missing is not missed again."""
    settings = complete(model, said)
    told = any(w.code == "W0903" for w in model.warnings)
    try:
        agree(model, settings)
    except Misfit as error:
        found = error.diagnostics
        if not model.shares_training:
            return () if told and "loss" not in (said or {}) else found
        places = [w.span for w in model.warnings if w.code == "W0903" and w.span is not None]
        return tuple(
            replace(d, code="W0903", severity="warning")
            for d in found
            if d.span is None or not any(d.span.to(span) == d.span for span in places)
        )
    except InputError:  # there is no loss yet, or an open size decides
        return ()
    return tuple(doubts(model, settings))


def doubts(model: Model, training: Training) -> Iterator[Diagnostic]:
    """What losses are likely not meant for, though they can judge it: warnings, at the loss where
    the text has one, and at the layer that makes the output."""
    for term in training.loss:
        name = compares(model.graph, term)[0]
        value = model.graph.outputs[name]
        node = _before_views(value).node
        doubt = LOSSES[term.measure.name].doubt(
            value.type, node.op if isinstance(node, OpNode) else None
        )
        if doubt is None:
            continue
        text, help = doubt
        labels = () if term.measure.span is None else (Label(term.measure.span),)
        if node.span is not None:
            labels += (Label(node.span, f"makes `{name}`"),)
        message = f"`{term.measure.name}` {text}"
        yield Diagnostic("W0904", message, labels, help=(help,), severity="warning")


def _before_views(value: Value) -> Value:
    """The same elements, before they were given other shapes."""
    while isinstance(node := value.node, OpNode) and node.op in SHAPES:
        value = node.data_inputs[0]
    return value


def _without_data(term: Loss) -> Loss:
    """A term without the weights of classes that only data say."""
    arguments = term.measure.arguments
    if not isinstance(arguments.get("class_weights"), str):
        return term
    arguments = {**arguments, "class_weights": None}
    return replace(term, measure=replace(term.measure, arguments=arguments))


def loss_model(
    model: Model, training: Training, *, mixes: bool = False
) -> tuple[Model, Mapping[str, TensorType]]:
    """What measures the loss of outputs: a model of the network's outputs and the targets, that
    gives `loss`; and the targets' types. Without penalties on weights, as they are no error.
    Raises Misfit as `total_loss` does."""
    graph = Graph()
    build = Build(graph, BY_NAME)
    source = model.graph
    compared = {name for term in training.loss for name in _names_of(source, term)}
    for name, value in {**source.inputs, **source.outputs}.items():
        if name in compared:
            graph.outputs[name] = build.input(name, value.type)
    targets: dict[str, TensorType] = {}
    graph.outputs = {LOSS: total_loss(build, training.loss, targets, mixes=mixes)}
    return Model(f"{model.name}.loss", graph), targets


def compares(graph: Graph, term: Loss) -> tuple[str, str]:
    """The output and the target that a term of the loss compares: by default the only output, and
    what the loss usually compares with. Of a term that is the network's own, twice the output."""
    known = list(graph.outputs)
    builder = LOSSES[term.measure.name]
    if builder.own and len(term.compares) != 1:
        said = f"`{term.measure.name}` is of an output that is a term of the loss itself"
        raise InputError(f"{said}\nhelp: name it, without a target: {term.measure.name}(output)")
    output = term.compares[0] if term.compares else known[0]
    if not term.compares and len(known) > 1:
        said = f"{term.measure.name}(output, target)"
        raise InputError(f"there are several outputs; say which the loss compares: {said}")
    if output not in graph.outputs:
        raise InputError(f"the loss compares output {output}; there are: {', '.join(known)}")
    if builder.own:
        return output, output
    target = term.compares[1] if len(term.compares) > 1 else builder.usual
    if target in graph.outputs and target not in graph.inputs:
        said = f"a target comes with the data, and `{target}` is an output"
        raise InputError(f"{said}\nhelp: call one of them otherwise")
    return output, target


def judged(graph: Graph, training: Training) -> tuple[str, str]:
    """The output and the target that metrics look at: those of the first term that has a target."""
    terms = [term for term in training.loss if not LOSSES[term.measure.name].own]
    return compares(graph, (terms or training.loss)[0])


def _names_of(graph: Graph, term: Loss) -> tuple[str, str]:
    """As `compares`. Raises Misfit with the place."""
    try:
        return compares(graph, term)
    except InputError as error:
        raise Misfit([_misfit(term.measure, str(error))]) from None


def total_loss(
    build: Build, terms: Sequence[Loss], targets: dict[str, TensorType], *, mixes: bool = False
) -> Value:
    """The weighted sum of losses, [] in the type of the first; inputs are added for targets that
    the graph does not have yet, and noted in `targets`. With `mixes`, labels are shares of all
    classes, as augmentation makes them that mixes samples. Raises Misfit with all terms that
    cannot be, and their places."""
    total: Value | None = None
    found: list[Diagnostic] = []
    for term in terms:
        try:
            measured = _measured(build, term, targets, mixes=mixes)
        except UnknownSize:
            raise
        except InputError as error:
            found.append(_misfit(term.measure, str(error), *_that_suit(build.graph, term)))
            continue
        if term.weight != 1.0:
            weight = build.constant(term.weight, measured.type.dtype, name="weight")
            measured = build("mul", measured, weight, name="loss")
        total = measured if total is None else build("add", total, measured, name="loss")
    if found:
        raise Misfit(found)
    if total is None:
        raise InputError("there is no loss: say one in a `train` block, or --set train.loss=...")
    return total


def _misfit(choice: Choice, message: str, *help: str) -> Diagnostic:
    text, *more = message.split("\nhelp: ")
    labels = () if choice.span is None else (Label(choice.span),)
    return Diagnostic("E0903", text, labels, help=(*more, *help))


def _that_suit(graph: Graph, term: Loss) -> Iterator[str]:
    """What losses there are for an output that this one cannot judge."""
    y = graph.outputs.get(term.compares[0] if term.compares else next(iter(graph.outputs)))
    if y is None or not y.type.dtype.is_float or _judges(term.measure.name, y.type):
        return
    others = [name for name in COMPARING if _judges(name, y.type)]
    if others:
        yield f"losses of {y.type} are {', '.join(others)}"


def _judges(name: str, output: TensorType) -> bool:
    """Whether a loss can judge an output of this type."""
    try:
        LOSSES[name].target(output, techniques.LOSSES[name].complete({}))
    except InputError:
        return False
    return True


def _measured(build: Build, term: Loss, targets: dict[str, TensorType], *, mixes: bool) -> Value:
    graph, name, arguments = build.graph, term.measure.name, term.measure.arguments
    builder = LOSSES[name]
    output, target = compares(graph, term)
    y = graph.outputs[output]
    if not y.type.dtype.is_float:
        raise InputError(f"`{output}` is {y.type}, and a loss is of floating-point values")
    rule = builder.target
    if mixes and target == builder.usual:
        if builder.shares is None:
            others = ", ".join(n for n, other in LOSSES.items() if other.shares is not None)
            said = f"`{name}` compares with no classes, and mixing samples mixes these"
            raise InputError(f"{said}\nhelp: losses of classes are {others}")
        rule = builder.shares
    try:
        wanted = rule(y.type, arguments)
    except UnknownSize:
        raise
    except InputError as error:
        raise InputError(f"`{name}` cannot judge `{output}`: {error}") from None
    given = y if builder.own else graph.inputs.get(target)
    if given is None:
        given, targets[target] = add_input(build, target, wanted), wanted
    if given.type != wanted:
        said = f"`{name}` compares `{output}` with {wanted}; `{target}` is {given.type}"
        again = "\nhelp: let each loss name a target of its own" if target in targets else ""
        raise InputError(f"{said}{again}")
    return builder.build(build, y, given, arguments)


def add_input(build: Build, name: str, type: TensorType) -> Value:
    """An input of exactly this name; an operator that has it is called otherwise."""
    for node in build.graph.nodes():
        if node.name == name and isinstance(node, StateNode):
            raise InputError(f"a target is called {name}, and so is a weight")
        if node.name == name:
            build.names.free(name)
            node.name = build.names.unused(f"{name}_2")
    assert build.names.unused(name) == name
    return build.graph.add_input(name, type)


# Metrics


def _misjudged(
    model: Model, training: Training, targets: Mapping[str, TensorType]
) -> Iterator[Diagnostic]:
    """Metrics that cannot compare what the first term of the loss compares."""
    output, target = judged(model.graph, training)
    y = model.graph.outputs[output].type
    if training.metrics and output == target:
        text = "metrics compare with a target, and no term of the loss has one"
        yield _misfit(training.metrics[0], text)
        return
    given = model.graph.inputs.get(target)
    t = y if output == target else targets[target] if given is None else given.type
    for choice in training.metrics:
        try:
            METRICS[choice.name].compares(y, t)
        except InputError as error:
            others = [name for name in METRICS if _measures(name, y, t)]
            help = (f"metrics of these are {', '.join(others)}",) if others else ()
            yield _misfit(choice, f"`{choice.name}`: {error}", *help)
            continue
        top, classes = choice.arguments.get("top", 1), y.shape[1] if y.rank > 1 else None
        if y.dtype.is_float and isinstance(classes, int) and 1 < classes <= top:
            yield _misfit(choice, f"of {classes} classes every guess is among the best {top}")


def _other_images(model: Model, training: Training) -> Iterator[Diagnostic]:
    """A part of images of another size than the network takes."""
    spaces = [v.type.shape[2:] for v in model.graph.inputs.values() if v.type.rank == 4]
    crops = [c for c in training.augment if c.name in ("random_crop", "random_resized_crop")]
    size = crops[-1].arguments.get("size") if crops else None
    if size is None or len(spaces) != 1 or not all(isinstance(d, int) for d in spaces[0]):
        return
    made = (size, size) if isinstance(size, int) else tuple(size)
    if made != spaces[0]:
        image, input = ("x".join(map(str, pair)) for pair in (made, spaces[0]))
        text = f"`{crops[-1].name}` gives {image}, and the network takes {input}"
        yield _misfit(crops[-1], text, "without a size it is the network's")


def _measures(name: str, output: TensorType, target: TensorType) -> bool:
    try:
        METRICS[name].compares(output, target)
    except InputError:
        return False
    return True
