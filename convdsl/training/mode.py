"""A network as it is while training: statistics of the batch, dropout that drops, and no weight
turned before it is multiplied."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from convdsl.diagnostics import InputError
from convdsl.ir.build import Build
from convdsl.ir.graph import OpNode, Value
from convdsl.ir.opdef import OpDef, OpError
from convdsl.ops.identity import DROPOUT, SHARING
from convdsl.ops.linear import LINEAR, MATMUL
from convdsl.ops.normalisation import BATCH_NORM
from convdsl.ops.training import BATCH_NORM_TRAINING, DROPOUT_TRAINING
from convdsl.training.together import Together


def training_mode(
    build: Build,
    *,
    step: Value,
    seed: int,
    frozen: Collection[str],
    together: Together | None = None,
    synchronised: bool = False,
) -> None:
    """Rewrite the graph of `build` in place.

    batch_norm normalises by the statistics of the batch, and replaces the running ones
    (`Graph.updates`): one after the other where layers share them. A layer of which a weight or a
    statistic is in `frozen`, keys of states, stays as it is at inference.

    dropout drops: what, follows from `seed`, the layer's name, `step` (i64 [], modulo 2^32) and the
    place of an element in its sample. What shares its fate is multiplied by one number, 0 or
    1 / (1 - p).

    matmul(a, transpose(w)) of a matrix is linear(a, w): at inference w is turned once, when weights
    are bound; here it would be in every step, and its gradient back.

    Of a batch that ranks share (`together`) each normalises its own part, unless statistics are
    `synchronised`; dropout drops what it would of the whole.

    Raises InputError where a channel has one element, of which there is no variance.
    """
    mode = _Mode(build, step, seed, frozenset(frozen), together, synchronised)
    for node in build.graph.op_nodes():
        rule = _RULES.get(node.op)
        if rule is not None:
            rule(mode, node)


@dataclass
class _Mode:
    """The rewrite: what replaces running statistics so far, by their keys, is in `running`."""

    build: Build
    step: Value
    seed: int
    frozen: frozenset[str]
    together: Together | None
    synchronised: bool
    running: dict[str, Value] = field(default_factory=dict[str, Value])

    def batch_norm(self, node: OpNode) -> None:
        keys = {name: value.node.name for name, value in node.inputs.items() if name != "x"}
        if self.frozen.intersection(keys.values()):
            return
        inputs = dict(node.inputs)
        for name in ("running_mean", "running_var"):
            inputs[name] = self.running.get(keys[name], inputs[name])
        attributes = {name: node.attributes[name] for name in ("eps", "momentum")}
        if self.together is not None and self.synchronised:
            here = self.build.at(node)
            y, mean, var = self.together.batch_norm(here, inputs, **attributes)
            self._put(node, y)
        else:
            made = self._replace(node, BATCH_NORM_TRAINING, inputs, attributes)
            *_, mean, var = made.outputs
        self.running |= {keys["running_mean"]: mean, keys["running_var"]: var}
        self.build.graph.updates |= self.running

    def dropout(self, node: OpNode) -> None:
        x, p, own = node.inputs["x"], node.attributes["p"], SHARING[node.attributes["per"]]
        attributes = {"p": p, "stream": stream(self.seed, node.name)}
        if p == 1:
            self._put(node, self.build.at(node).filled(0.0, x.type))
        elif p > 0 and own is None:
            self._replace(node, DROPOUT_TRAINING, {"x": x, **self._counters()}, attributes)
        elif p > 0:
            build, shape = self.build.at(node), x.type.shape
            alike = replace(x.type, shape=(*shape[:own], *(1 for _ in shape[own:])))
            given = {"x": build.filled(1.0, alike)}
            given |= self._counters() if own else {"step": self.step}  # the whole batch alike
            kept = build.apply(DROPOUT_TRAINING, given, attributes, name="kept").output
            self._put(node, build("mul", x, kept))

    def matmul(self, node: OpNode) -> None:
        a, turned = node.inputs["a"], node.inputs["b"].node
        if not isinstance(turned, OpNode) or turned.op.name != "transpose":
            return
        w = turned.inputs["x"]
        known = w.type.rank == 2 and all(isinstance(size, int) for size in w.type.shape)
        if turned.attributes["axes"] == (1, 0) and known and w.type.dtype.is_float:
            attributes = {"channels": w.type.shape[0], "bias": False}
            self._replace(node, LINEAR, {"x": a, "weight": w}, attributes)

    def _counters(self) -> dict[str, Value]:
        """What draws depend on."""
        first = {} if self.together is None else {"first": self.together.first}
        return {"step": self.step, **first}

    def _replace(
        self, node: OpNode, op: OpDef, inputs: Mapping[str, Value], attributes: Mapping[str, object]
    ) -> OpNode:
        """The operator in place of a node, under its name."""
        try:
            made = self.build.graph.apply(
                op, inputs, attributes, name=node.name, span=node.span, frames=node.frames
            )
        except OpError as error:
            raise InputError("; ".join((f"{node.name}: {error.message}", *error.help))) from error
        self._put(node, made.outputs[0])
        return made

    def _put(self, node: OpNode, value: Value) -> None:
        self.build.graph.replace_uses(node.output, value)
        self.build.graph.remove(node)


def stream(seed: int, layer: str) -> tuple[int, int]:
    """Two words of 32 bits that a seed and the name of a layer have to themselves."""
    digest = hashlib.blake2b(f"{seed}/{layer}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


_RULES: Mapping[OpDef, Callable[[_Mode, OpNode], None]] = {
    BATCH_NORM: _Mode.batch_norm,
    DROPOUT: _Mode.dropout,
    MATMUL: _Mode.matmul,
}
"""What changes while training; all other operators compute what they always do."""
