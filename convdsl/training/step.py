"""The graph of one training step: network, losses, gradients, and what replaces the states.

states        the network's, `optimizer.<slot>.<key>` for each slot of each trained weight,
              and `optimizer.step`, how many updates were made
inputs        the network's, the targets as the losses name them, and `optimizer.rate`,
              f64 []
outputs       `loss`, and those of the network that are asked for
updates       trained weights, slots, running statistics, the counter

With loss scaling (`scaling`) its states, too. Of one of several ranks (`together`) two inputs more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.autodiff import gradients, remove_unused
from convdsl.diagnostics import InputError
from convdsl.ir.build import Build, Names
from convdsl.ir.graph import Graph, Node, Value
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role
from convdsl.ir.training import Training, names
from convdsl.ops import BY_NAME
from convdsl.spelling import nearest
from convdsl.tensor import DType, TensorType
from convdsl.training.judging import LOSS, add_input, mixes, total_loss
from convdsl.training.losses.record import SharedBuild
from convdsl.training.mode import training_mode
from convdsl.training.scaling import STATES, Scaling
from convdsl.training.together import FIRST, SHARE, Together
from convdsl.training.updates import COUNTER, PREFIX, replace_weights

Array = npt.NDArray[Any]

RATE = f"{PREFIX}.rate"


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
            made[key] = np.broadcast_to(np.asarray(whole, types[key].dtype.numpy), types[key].sizes)
        return made


def training_step(
    model: Model,
    training: Training,
    outputs: Iterable[str] = (),
    *,
    scaled: bool = False,
    shared: bool = False,
) -> Step:
    """The step that complete settings say, with the `outputs` of the network that are wanted;
    `scaled`: with loss scaling. `shared`: of one of several ranks, each with a part of the batch.

    Raises Misfit as `total_loss` does, InputError where nothing matches a pattern, or nothing
    is trained.
    """
    graph, build = _copy(model)
    counter = build.state(COUNTER, TensorType(DType.I64, ()), Role.BUFFER)
    trained, frozen = _trained(graph, training)
    together = _together(build) if shared else None
    synchronised = bool(training.setting("sync_batch_norm"))
    training_mode(
        build,
        step=counter,
        seed=training.seed or 0,
        frozen=frozen,
        together=together,
        synchronised=synchronised,
    )
    targets: dict[str, TensorType] = {}
    measuring = build
    if together is not None:
        measuring = SharedBuild(graph, build.operators, build.names, None, together.share)
    loss = total_loss(measuring, training.loss, targets, mixes=mixes(training))
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
    if together is not None:
        flowing = together.sums(flowing)
        own = {} if synchronised else graph.updates
        loss = _of_all(graph, together, loss, own, backward)
    initial = replace_weights(build, training, flowing, counter, rate, scaling)
    graph.outputs = {LOSS: loss} | {name: graph.outputs[name] for name in outputs}
    remove_unused(graph)
    made = replace(model, graph=graph, reread=None, declares={}, training=None)
    initial |= {COUNTER: 0, **(STATES if scaled else {})}
    return Step(made, targets, tuple(flowing), initial, (forward, backward))


def _together(build: Build) -> Together:
    share = add_input(build, SHARE, TensorType(DType.F64, ()))
    return Together(build, share, add_input(build, FIRST, TensorType(DType.I64, ())))


def _of_all(
    graph: Graph, together: Together, loss: Value, own: Mapping[str, Value], backward: int
) -> Value:
    """The loss of the batch; and running statistics that each rank has by itself become the mean of
    all ranks' statistics, so that their states stay equal. Nobody waits for either before the end:
    they travel behind the gradients."""
    parts = {key: together.weighed(value) for key, value in own.items()}
    sums = together.sums({**parts, LOSS: loss}, backward)
    graph.updates |= {key: sums[key] for key in parts}
    return sums[LOSS]


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
            near = nearest(pattern, {*keys, *(key.rpartition(".")[0] for key in keys)})
            meant = f"did you mean {near}? " if near is not None else ""
            raise InputError(
                f"freeze: no weight is called {pattern}\n"
                f"help: {meant}there are {', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''}; "
                "a layer's name stands for all of its weights, * for any letters"
            )
        frozen |= found
    trained = [key for key in keys if key not in frozen]
    if not trained:
        if not keys:
            raise InputError("the network has no weights: there is nothing to train")
        all = ", ".join(training.freeze)
        raise InputError(
            f"nothing is left to train: freeze ({all}) names all {len(keys)} weights\n"
            "help: leave out the layers that are to learn, most often the last"
        )
    return trained, frozen
