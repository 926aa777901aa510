"""What the subcommands that run a network share: from the model named to an Executable."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from convdsl.cli import console
from convdsl.cli.options import (
    PRECISIONS,
    batch_of,
    input_shapes,
    parameters,
    processor_of,
    selected_passes,
    weights_of,
)
from convdsl.cli.tuning import tuner
from convdsl.diagnostics import CompileError, InputError, WeightError
from convdsl.tensor import evaluate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convdsl.ir.model import Model
    from convdsl.passes import Step
    from convdsl.runtime.executable import Executable
    from convdsl.sizes import Shapes
    from convdsl.weights.trained import Trained


class Network(NamedTuple):
    """A network ready to run, and what the command line says of its sizes."""

    executable: Executable
    binding: dict[str, int]
    model: Model | None = None  # None where it comes from an artifact

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Input shapes; a batch that nothing is said of is 1. Raises InputError for others."""
        binding = self.executable.complete(self.binding)
        return {
            name: tuple(int(evaluate(extent, binding)) for extent in type.shape)
            for name, type in self.executable.inputs.items()
        }

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name, also where there is only one."""
        return self.executable.by_name(**arrays)

    @property
    def output(self) -> str:
        """The name of the first output."""
        return next(iter(self.executable.outputs))


def load_model(options: argparse.Namespace) -> Model:
    """The model named on the command line, with its parameters set; of those that nothing is said
    of, with what they were when the weights named beside it were trained."""
    from convdsl.cli import sizing

    given, shapes = parameters(options), _one_size(options)
    trained, of = _trained(options)
    kept = {name: value for name, value in trained.parameters.items() if name not in given}
    if not kept:
        return sizing.load_for(options.model, shapes, **given)
    try:
        model = sizing.load_for(options.model, shapes, **kept, **given)
    except (CompileError, InputError):  # of another model, or one changed since, or in ONNX
        return sizing.load_for(options.model, shapes, **given)
    if model.name != trained.model:
        return sizing.load_for(options.model, shapes, **given)
    for text in _changed(options, given, kept):
        console.note(f"{text}, as when {of}")
    return model


def _one_size(options: argparse.Namespace) -> Shapes:
    """What `--input` says, of a command that has it, where it lists no sizes besides one."""
    given: list[Any] = getattr(options, "input", [])
    several = not given or any(isinstance(one, list) for one in given)
    return None if several else input_shapes(options)


def _changed(
    options: argparse.Namespace, given: Mapping[str, Any], kept: Mapping[str, Any]
) -> list[str]:
    """The parameters that would otherwise be others."""
    from convdsl import loading

    usual: Mapping[str, Any] = {}
    with suppress(CompileError):  # parameters without defaults
        usual = loading.load(options.model, **given).parameters
    return [f"{name} = {value}" for name, value in kept.items() if usual.get(name) != value]


def _trained(options: argparse.Namespace) -> tuple[Trained, str]:
    """What the weights remember, where they are used as they are, or the run that goes on; and
    what is said of it."""
    from convdsl.weights import WeightStore, load
    from convdsl.weights.trained import Trained

    if (begun := getattr(options, "begun", None)) is not None:
        return begun, "the run was begun"
    source = getattr(options, "weights", None)
    if source is None or source.startswith("random:") or hasattr(options, "partial"):
        return Trained(), ""
    try:
        store = load(source)
    except WeightError:
        return Trained(), ""  # said where they are used
    found = store.trained if isinstance(store, WeightStore) else Trained()
    return found, f"{source} was trained"


def network(options: argparse.Namespace, *, default_weights: str | None = None) -> Network:
    """The network named on the command line, compiled or, from an artifact, loaded."""
    from convdsl.runtime.saved import is_artifact, load_executable

    if is_artifact(options.model):
        loaded = load_executable(options.model, options.threads, options.device)
        _refuse_building(options, several=bool(loaded.sizes))
        made = Network(loaded, _size_of(loaded, options))
        for text in made.executable.notes:  # who compiled it was told; but it may be someone else
            console.detail(f"{options.model}: {text}")
        return made
    return compiled(load_model(options), options, default_weights=default_weights)


def _size_of(loaded: Executable, options: argparse.Namespace) -> dict[str, int]:
    """Of an artifact's sizes the one that has the batch of `--batch`, else the first."""
    from convdsl.kernel.signature import samples_of

    fitting = [size for size in loaded.sizes if options.batch in (None, samples_of(size))]
    if loaded.sizes and not fitting:
        raise InputError(f"there is no code for --batch {options.batch}\n{loaded.remedy}")
    return dict(fitting[0]) if fitting else {}


def compiled(
    model: Model,
    options: argparse.Namespace,
    *,
    default_weights: str | None = None,
    sized: bool = True,
) -> Network:
    """The model compiled as the options say: at once where they fix all sizes, else, or where
    those that they say are not asked for, when run."""
    from convdsl import driver
    from convdsl.sizes import bind

    shapes, batch = (input_shapes(options), batch_of(model, options)) if sized else (None, None)
    binding = bind(model, shapes, batch)
    made = driver.compile(
        model,
        weights=weights_of(options, default_weights),
        threads=options.threads,
        winograd=options.winograd,
        **processor_of(options),
        inputs=shapes,
        batch=batch,
        passes=selected_passes(options),
        verify=options.verify,
        observer=PassWatcher(options),
        tuner=tuner(options),
    )
    for text in made.notes:
        console.note(text)
    return Network(made, dict(binding), model)


class PassWatcher:
    """Tells, on stderr, what each pass took and prints graphs after the passes asked for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._print_after: list[str] = options.print_after
        self._time: bool = options.time_passes

    def __call__(self, step: Step) -> None:
        name = step.rewrite.name
        if self._time:
            console.remark(f"{name:<24}{step.changes:>6} changes{step.seconds * 1e3:>10.3f} ms")
        if name in self._print_after:
            from convdsl.ir.text import format_graph

            console.remark(f"# after {name}\n{format_graph(step.graph)}")


def _refuse_building(options: argparse.Namespace, *, several: bool) -> None:
    """An artifact is compiled already: options that would change its code are mistakes. One for
    several sizes leaves the choice."""
    given = {
        "--weights": options.weights is not None,
        "--key": options.key is not None,
        "--outputs": options.outputs is not None,
        "--set": bool(options.set),
        "--cpu": options.cpu != "native",
        "--no-winograd": not options.winograd,
        "--precision": options.precision != PRECISIONS[0],
        "--batch": options.batch is not None and not several,
        "--input": bool(options.input),
        "--disable": bool(options.disable),
        "--pass-option": bool(options.pass_option),
        "--print-after": bool(options.print_after),
        "--time-passes": options.time_passes,
        "--verify": options.verify,
        "--tune": getattr(options, "tune", None) is not None,
    }
    wrong = [name for name, is_given in given.items() if is_given]
    if wrong:
        raise InputError(
            f"{options.model} is compiled already; {', '.join(wrong)} would have to be given to"
            " `convdsl compile`"
        )
