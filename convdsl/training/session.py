"""A network in training: its states, and the compiled step that changes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.bound import bind_weights_of
from convdsl.calling import suggests
from convdsl.diagnostics import InputError, expect
from convdsl.driver import compile
from convdsl.ir.model import Model, expect_model
from convdsl.ir.training import Training
from convdsl.kernel.cuda_target import MIXED, PRECISIONS
from convdsl.passes import select
from convdsl.places import check_name
from convdsl.ranks import ALONE, Ranks
from convdsl.runtime.executable import Executable
from convdsl.training.checkpoint import write_arrays
from convdsl.training.data.parts import Part
from convdsl.training.judging import compares, loss_model
from convdsl.training.losses import LOSSES
from convdsl.training.scaling import STATES
from convdsl.training.step import RATE, Step, training_step
from convdsl.training.together import FIRST, SHARE
from convdsl.training.updates import AVERAGE, COUNTER
from convdsl.weights.safetensors_file import LABELS
from convdsl.weights.trained import TRAINED, Trained

Array = npt.NDArray[Any]

_AGAIN = 1 / 3
"""FLOPs that making maps again may cost, as a share of those of the step: one more forward pass."""


class Session:
    """One network being trained, step by step.

        session = Session(model, settings(model, epochs=5), "random:0")
        loss = session.step({"image": x, "label": y}, rate=0.1)["loss"]
        logits = session.network()(x)
        session.save("weights.safetensors")

    The first step with new shapes compiles. On a card (`device`) the states stay there, and of a
    step only the loss comes back, and the outputs that were asked for. `amp`: products in `float16`
    with loss scaling, or in `bfloat16`. One of several `ranks` of a job has a part of each batch,
    and all take the same steps. Not for several threads at once.
    """

    @suggests
    def __init__(
        self,
        model: Model,
        training: Training,
        weights: Any,
        *,
        outputs: Iterable[str] = (),
        target: str | None = None,
        threads: int | None = None,
        cpu: str = "native",
        winograd: bool = True,
        device: str | None = None,
        precision: str = "highest",
        amp: str | None = None,
        cache: bool = True,
        checkpoint_activations: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        expect_model(model)
        expect("the training", training, Training)
        self.model, self.training = model, training
        precision, scaled = mixed(amp, precision)
        self.ranks = ranks
        shared = ranks.size > 1
        self.plan: Step = training_step(model, training, outputs, scaled=scaled, shared=shared)
        self._how: dict[str, Any] = {"target": target, "threads": threads, "cpu": cpu}
        self._how |= {"winograd": winograd, "cache": cache}
        self._how |= {"device": device, "precision": precision}
        bound: dict[str, Array] = dict(bind_weights_of(model, weights))
        arrays = self.plan.arrays(bound)
        passes = select(options={"recompute": {"share": _AGAIN if checkpoint_activations else 0}})
        self._step = compile(self.plan.model, arrays, passes=passes, ranks=ranks, **self._how)
        # What steps change is the state's alone.
        self._fixed = {k: None if k in self._step.state else a for k, a in bound.items()}
        measure, _ = loss_model(model, training)
        self._measure = compile(measure, {}, **self._how)
        self._network: Executable | None = None

    @suggests
    def step(
        self, batch: Mapping[str, Any], rate: float, whole: int | None = None
    ) -> dict[str, Array]:
        """One update from inputs and targets by name, at a rate of learning: the loss, as it was
        before the update, and the outputs that were asked for.

        Of several ranks each has a part of a batch of `whole` samples, by default as many as all
        others; the loss is that of the whole batch.

        On a card the arrays may lie there (`resident`), as those of a network's calls may: the step
        returns at once then, results stay on the card, and targets are not looked at first."""
        expect("the batch", batch, Mapping)
        expect("the rate", rate, int, float, np.number)
        if not np.isfinite(rate):
            raise InputError(f"a rate of {rate} would make every weight no number")
        wanted = [name for name in self._step.inputs if name not in (RATE, SHARE, FIRST)]
        missing = [name for name in wanted if name not in batch]
        if missing:
            raise InputError(self._missing(missing[0], batch))
        given = {name: self._step.accept(name, batch[name]) for name in wanted}
        self._check(given)
        self._network = None
        numbers = {RATE: np.asarray(rate, np.float64)} | self._part(given, whole)
        return self._step.by_name(**given, **numbers)

    def _part(self, batch: Mapping[str, Any], whole: int | None) -> dict[str, Array]:
        """Which part of the batch this rank has."""
        if self.ranks.size == 1:
            return {}
        count = len(next(iter(batch.values())))
        whole = count * self.ranks.size if whole is None else whole
        part = Part.of(whole, self.ranks.rank, self.ranks.size)
        if part.count != count:
            here = f"rank {self.ranks.rank} of {self.ranks.size}"
            raise InputError(f"{here} has {part.count} samples of a batch of {whole}, not {count}")
        return {SHARE: np.asarray(count / whole), FIRST: np.asarray(part.first, np.int64)}

    def _check(self, batch: Mapping[str, Any]) -> None:
        """Targets that a loss makes no sense of, labels that are no class, are InputErrors."""
        for term in self.training.loss:
            output, target = compares(self.model.graph, term)
            if target != output and isinstance(batch[target], np.ndarray):
                type, arguments = self.model.graph.outputs[output].type, term.measure.arguments
                LOSSES[term.measure.name].check(batch[target], type, arguments)

    def resident(self, batch: Mapping[str, Array]) -> dict[str, Any]:
        """Inputs and targets by name where the steps run: what `step` takes without copying."""
        return self._step.resident(batch)

    def _missing(self, name: str, batch: Mapping[str, Array]) -> str:
        given = ", ".join(batch) or "nothing"
        kind = "the loss compares with" if name in self.plan.targets else "the network takes"
        return f"{kind} `{name}`, which the data do not have: they have {given}"

    def network(self) -> Executable:
        """The network as it is now, for inference."""
        if self._network is None:
            self._network = compile(self.model, self.weights(), **self._how)
        return self._network

    def loss(self, outputs: Mapping[str, Array], targets: Mapping[str, Array]) -> float:
        """The loss of outputs, without penalties on weights."""
        return loss_of(self._measure, outputs, targets)

    @property
    def targets(self) -> tuple[str, ...]:
        """What the losses compare with."""
        return tuple(self.plan.targets)

    @property
    def steps(self) -> int:
        """How many updates were made."""
        return int(self._step.state[COUNTER])

    def weights(self) -> dict[str, Array]:
        """Weights and running statistics by key; the averaged ones where averages are kept."""
        states = self._step.state.copy()
        now = {key: states[key] if a is None else a for key, a in self._fixed.items()}
        averages = {key: states[f"{AVERAGE}.{key}"] for key in now if f"{AVERAGE}.{key}" in states}
        return now | averages

    @suggests
    def save(self, path: str | Path, classes: Sequence[str] | None = None) -> None:
        """Write the weights as a safetensors file, whole or not at all; with the names of the
        classes, which `classify` then knows, and what else who uses them should know."""
        expect("the path", path, str, Path)
        expect("the classes", classes, list, tuple, NoneType)
        check_name("weights", Path(path), ".safetensors", is_said=True)
        images = replace(self.model, training=self.training).image_preprocessing
        undeclared = None if self.model.preprocessing is not None else images
        said = None if undeclared is None else undeclared.to_json()
        trained = Trained(self.model.name, self.model.parameters, said)
        facts = {TRAINED: trained.to_text()}
        if classes is not None:
            facts[LABELS] = json.dumps(list(classes))
        write_arrays(Path(path), self._trainable(self.weights()), facts)

    def states(self) -> dict[str, Array]:
        """Everything that steps change, for a checkpoint."""
        return self._step.state.copy()

    def restore(self, states: Mapping[str, Array]) -> None:
        """Go back to states of before. InputError, and no change, where they do not fit."""
        expect("the states", states, Mapping)
        known = set(self._step.state)
        # Runs go on with loss scaling or without it.
        scaling = {k: self._step.state[k] if k in known else None for k in STATES}
        states = {k: a for k, a in states.items() if k in known or k not in scaling}
        states |= {k: a for k, a in scaling.items() if a is not None and k not in states}
        if known != set(states):
            raise InputError(f"the states are of another run: {_difference(known, set(states))}")
        self._step.state.replace(states)
        self._network = None

    def _trainable(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Without the constants of the text."""
        states = self.model.graph.states
        return {key: a for key, a in arrays.items() if states[key].data is None}


def _difference(known: set[str], given: set[str]) -> str:
    """What states lack, and what of them this run does not have."""
    lacking, odd = sorted(known - given), sorted(map(str, given - known))
    parts = [
        f"{what} {', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}"
        for what, names in (("they lack", lacking), ("it has no", odd))
        if names
    ]
    return "; ".join(parts)


_NAMED = 5


def mixed(amp: str | None, precision: str) -> tuple[str, bool]:
    """The precision of products that mixed precision means, and whether the loss is scaled. bf16
    reaches as far as f32, and needs no scaling. InputError for what there is not."""
    expect("amp", amp, str, NoneType)
    if amp is None:
        return precision, False
    if amp not in MIXED:
        raise InputError(f"unknown type `{amp}` of mixed precision; there are {', '.join(MIXED)}")
    if precision not in (PRECISIONS[0], MIXED[amp]):
        raise InputError(f"precision {precision} and amp {amp} both say what products are of")
    return MIXED[amp], amp == "float16"


def loss_of(
    measure: Executable, outputs: Mapping[str, Array], targets: Mapping[str, Array]
) -> float:
    """What a compiled `loss_model` says of outputs."""
    values = {**targets, **outputs}
    return float(measure(**{name: values[name] for name in measure.inputs}))
