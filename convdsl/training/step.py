"""The graph of one training step: network, losses, gradients, and what replaces the states.

states        the network's, `optimizer.<slot>.<key>` for each slot of each trained weight,
              and `optimizer.step`, how many updates were made
inputs        the network's, the targets as the losses name them, and `optimizer.rate`,
              f64 []
outputs       `loss`, and those of the network that are asked for
updates       trained weights, slots, running statistics, the counter

With loss scaling (`scaling`) its states, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.autodiff import gradients, remove_unused
from convdsl.diagnostics import InputError
from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph, Node, StateNode, Value
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role
from convdsl.ir.training import Loss, Training, names
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType
from convdsl.training.data.augmentation import BATCHES
from convdsl.training.losses import LOSSES
from convdsl.training.mode import training_mode
from convdsl.training.scaling import STATES, Scaling
from convdsl.training.updates import COUNTER, PREFIX, replace_weights

Array = npt.NDArray[Any]

RATE = f"{PREFIX}.rate"
LOSS = "loss"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of training as a model, and what feeds it.

    targets: what the losses compare with, by name.
    trained: keys of the weights that change.
    initial: what each state that training adds begins as: a number, or a weight by its key.
    parts: ids of the last node of the forward pass with its losses, and of the backward pass.
    """

    model: Model
    targets: Mapping[str, TensorType]
    trained: tuple[str, ...]
    initial: Mapping[str, float | str]
    parts: tuple[int, int]

    def part(self, node: Node) -> str:
        """`forward`, `backward` or `update`: where in the step an operator stands."""
        forward, backward = self.parts
        return "forward" if node.id <= forward else "backward" if node.id <= backward else "update"

    def arrays(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """All states before the first step, from the network's weights by key."""
        types = {key: node.type for key, node in self.model.graph.states.items()}
        made = {key: weights[key] for key in types if key in weights}
        for key, start in self.initial.items():
            whole = weights[start] if isinstance(start, str) else start
            made[key] = np.full(types[key].sizes, whole, types[key].dtype.numpy)
        return made


def training_step(
    model: Model, training: Training, outputs: Iterable[str] = (), *, scaled: bool = False
) -> Step:
    """The step that complete settings say, with the `outputs` of the network that are wanted;
    `scaled`: with loss scaling.

    Raises InputError where settings and network do not go together: an output that is not there, a
    pattern that nothing matches, nothing to train, one target of two types.
    """
    graph, build = _copy(model)
    counter = build.state(COUNTER, TensorType(DType.I64, ()), Role.BUFFER)
    trained, frozen = _trained(graph, training)
    training_mode(build, step=counter, seed=training.seed or 0, frozen=frozen)
    targets: dict[str, TensorType] = {}
    mixes = any(choice.name in BATCHES for choice in training.augment)
    loss = total_loss(build, training.loss, targets, mixes=mixes)
    weights = [graph.states[key].output for key in trained]
    forward = max(node.id for node in graph.nodes())
    scaling = Scaling.begin(build) if scaled else None
    seed = build.filled(1.0, loss.type) if scaling is None else scaling.seed(loss)
    found = gradients(graph, {loss: seed}, weights, build)
    flowing = {key: dy for key, dy in zip(trained, found, strict=True) if dy is not None}
    if not flowing:
        raise InputError(f"{model.name}: the loss depends on no weight that is trained")
    backward = max(node.id for node in graph.nodes())
    rate = add_input(build, RATE, TensorType(DType.F64, ()))
    initial = replace_weights(build, training, flowing, counter, rate, scaling)
    graph.outputs = {LOSS: loss} | {name: graph.outputs[name] for name in outputs}
    remove_unused(graph)
    made = replace(model, graph=graph, reread=None, declares={}, training=None)
    initial |= {COUNTER: 0, **(STATES if scaled else {})}
    return Step(made, targets, tuple(flowing), initial, (forward, backward))


def loss_model(model: Model, training: Training) -> tuple[Model, Mapping[str, TensorType]]:
    """What measures the loss of outputs: a model of the network's outputs and the targets, that
    gives `loss`; and the targets' types. Without penalties on weights, as they are no error."""
    graph = Graph()
    build = Build(graph, BY_NAME)
    source = model.graph
    compared = {name for term in training.loss for name in compares(model.graph, term)}
    for name, value in {**source.inputs, **source.outputs}.items():
        if name in compared:
            graph.outputs[name] = build.input(name, value.type)
    targets: dict[str, TensorType] = {}
    graph.outputs = {LOSS: total_loss(build, training.loss, targets)}
    return Model(f"{model.name}.loss", graph), targets


def compares(graph: Graph, term: Loss) -> tuple[str, str]:
    """The output and the target that a term of the loss compares: by default the only output, and
    what the loss usually compares with."""
    known = list(graph.outputs)
    builder = LOSSES[term.measure.name]
    output = term.compares[0] if term.compares else known[0]
    if not term.compares and len(known) > 1:
        said = f"{term.measure.name}(output, target)"
        raise InputError(f"there are several outputs; say which the loss compares: {said}")
    if output not in graph.outputs:
        raise InputError(f"the loss compares output {output}; there are: {', '.join(known)}")
    return output, term.compares[1] if len(term.compares) > 1 else builder.usual


def total_loss(
    build: Build, terms: Sequence[Loss], targets: dict[str, TensorType], *, mixes: bool = False
) -> Value:
    """The weighted sum of losses, [] in the type of the first; inputs are added for targets that
    the graph does not have yet, and noted in `targets`. With `mixes`, labels are shares of all
    classes, as augmentation makes them that mixes samples."""
    total: Value | None = None
    for term in terms:
        measured = _measured(build, term, targets, mixes=mixes)
        if term.weight != 1.0:
            weight = build.constant(term.weight, measured.type.dtype, name="weight")
            measured = build("mul", measured, weight, name="loss")
        total = measured if total is None else build("add", total, measured, name="loss")
    if total is None:
        raise InputError("there is no loss: say one in a `train` block, or --set train.loss=...")
    return total


def _measured(build: Build, term: Loss, targets: dict[str, TensorType], *, mixes: bool) -> Value:
    graph, name, arguments = build.graph, term.measure.name, term.measure.arguments
    builder = LOSSES[name]
    output, target = compares(graph, term)
    y = graph.outputs[output]
    if not y.type.dtype.is_float:
        raise InputError(f"output {output} is {y.type}: a loss is of floating-point values")
    rule = builder.target
    if mixes and target == builder.usual:
        if builder.shares is None:
            raise InputError(f"{name} compares with no classes, and mixing samples mixes these")
        rule = builder.shares
    wanted = rule(y.type, arguments)
    given = graph.inputs.get(target)
    if given is None:
        given, targets[target] = add_input(build, target, wanted), wanted
    if given.type != wanted:
        raise InputError(f"{name} compares {output} with {wanted}; {target} is {given.type}")
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


def _copy(model: Model) -> tuple[Graph, Build]:
    if model.obstacle is not None:
        raise InputError(model.obstacle)
    graph = model.graph.copy()
    taken = [key for key in graph.states if key.startswith(f"{PREFIX}.")]
    if taken:
        raise InputError(f"{model.name}: {taken[0]}: training itself calls states {PREFIX}.*")
    return graph, Build(graph, BY_NAME, Names(node.name for node in graph.nodes()))


def _trained(graph: Graph, training: Training) -> tuple[list[str], set[str]]:
    """Keys of the weights that are trained, and of those that are frozen."""
    keys = [
        key
        for key, node in graph.states.items()
        if node.role is Role.PARAMETER and node.type.dtype.is_float
    ]
    frozen: set[str] = set()
    for pattern in training.freeze:
        found = {key for key in graph.states if names(pattern, key)}
        if not found:
            raise InputError(
                f"freeze: no weight is called {pattern}\n"
                f"help: there are {', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''}; "
                "a layer's name stands for all of its weights, * for any letters"
            )
        frozen |= found
    trained = [key for key in keys if key not in frozen]
    if not trained:
        raise InputError("nothing is left to train" if keys else "the network has no weights")
    return trained, frozen
