"""`convdsl.train`: a model, data and settings make a run."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial as applied
from pathlib import Path
from tempfile import TemporaryFile
from types import NoneType
from typing import Any, cast

import numpy.typing as npt

from convdsl.analysis.samples import samples_are_apart
from convdsl.bound import bind_weights_of, images_of
from convdsl.calling import suggests
from convdsl.diagnostics import InputError, MismatchError, expect
from convdsl.driver import compile
from convdsl.ir.canonical import canonical_text
from convdsl.ir.model import Model
from convdsl.ir.training import Choice, Loss, Training
from convdsl.loading import load
from convdsl.ranks import ALONE, Ranks
from convdsl.runtime.cpu.team import available_threads
from convdsl.runtime.executable import Executable
from convdsl.training import watching
from convdsl.training.checkpoint import Begun, Progress, read_begun
from convdsl.training.data import Parts, Wanted, open_parts, preparation
from convdsl.training.evaluation import Evaluation, evaluate, names_of
from convdsl.training.feeding import (
    Data,
    data_doubts,
    loader_of,
    open_training_data,
    reading_ahead,
    settled,
)
from convdsl.training.judging import agree, doubts, judged, loss_model
from convdsl.training.loop import CHECKPOINT, WEIGHTS, Run, Watch
from convdsl.training.rates import Rates
from convdsl.training.session import Session, loss_of
from convdsl.training.settings import complete, gone_on
from convdsl.weights import RandomWeights
from convdsl.weights import load as load_weights
from convdsl.weights import trained as remembered
from convdsl.weights.partial import bind_partially

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run has left: a record for every epoch, the weights that were best by validation, and
    the folder where they are kept."""

    model: Model
    history: tuple[Mapping[str, Any], ...]
    weights: Mapping[str, Array]
    folder: Path | None

    @property
    def network(self) -> Executable:
        """The network with these weights, ready to run."""
        return compile(self.model, self.weights)


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is ready to go."""

    run: Run
    data: Data
    training: Training
    notes: tuple[str, ...]

    def go(self, *, resume: bool = False) -> Trained:
        """Train to the end. Raises InputError, and KeyboardInterrupt once a checkpoint is kept."""
        session, folder = self.run.session, self.run.folder
        _make(folder)
        resumes = resume and session.ranks.rank == 0  # the others get what it finds
        progress = self.run.fit(self.run.resume() if resumes else Progress())
        best = folder / WEIGHTS if folder is not None else None
        weights = session.weights()
        if best is not None and best.exists():
            weights = dict(bind_weights_of(session.model, best))
        return Trained(session.model, progress.history, weights, folder)


@suggests
def train(
    model: Model | str | Path,
    data: Any,
    labels: Any = None,
    *,
    validation: Any = None,
    out: str | Path | None = None,
    weights: Any = None,
    partial: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    workers: int | None = None,
    cpu: str = "native",
    winograd: bool = True,
    device: str | None = None,
    precision: str = "highest",
    amp: str | None = None,
    checkpoint_activations: bool = False,
    watch: Watch | None = None,
    ranks: Ranks = ALONE,
    **settings: Any,
) -> Trained:
    """Train a model on data: a path, arrays `(x, y)` or by name, an iterator of samples.

        trained = convdsl.train("lenet5", "mnist.npz", out="lenet", epochs=5, lr=0.05)
        trained.network(x)

    settings: over those of the model's `train` block, by name. out: the folder of the run; without
    one nothing is written. device: `cpu`, `cuda`, `cuda:1`; a run may be resumed on another one.
    precision: of products on a card, as for `convdsl.compile`. amp: mixed precision, products in
    `float16` with loss scaling, or in `bfloat16`. watch: what is told of it; by default notebooks
    show a bar, and nothing is said elsewhere. ranks: the processes that train together
    (`convdsl.ranks.mpi.open_ranks()` under mpiexec), of which only rank 0 uses the folder. Raises
    convdsl.Error.
    """
    if not isinstance(model, Model):
        model = load(model, **begun_with(out, resume, ranks).model.parameters)
    job = prepare(
        model,
        data,
        labels,
        validation=validation,
        out=out,
        weights=weights,
        partial=partial,
        resume=resume,
        overwrite=overwrite,
        threads=threads,
        workers=workers,
        cpu=cpu,
        winograd=winograd,
        device=device,
        precision=precision,
        amp=amp,
        checkpoint_activations=checkpoint_activations,
        watch=watching.usual() if watch is None else watch,
        said=settings,
        ranks=ranks,
    )
    return job.go(resume=resume)


def prepare(
    model: Model,
    data: Any,
    labels: Any = None,
    *,
    validation: Any = None,
    out: str | Path | None = None,
    weights: Any = None,
    partial: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    workers: int | None = None,
    cpu: str = "native",
    winograd: bool = True,
    device: str | None = None,
    precision: str = "highest",
    amp: str | None = None,
    checkpoint_activations: bool = False,
    watch: Watch | None = None,
    said: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> Job:
    """Everything but the training itself: settings, data and network held against each other."""
    expect("the model", model, Model)
    expect("what watches", watch, Watch, NoneType)
    folder = _folder(out, data, resume, overwrite, ranks)
    said = gone_on(begun_with(out, resume, ranks).said, said)
    training = complete(model, said)
    agree(model, training)
    found = open_training_data(model, data, labels, validation, training)
    if threads is None and ranks.sharing > 1:
        threads = max(1, available_threads() // ranks.sharing)
    training = settled(model, training, found.train, ranks.size)
    started, notes = _weights(model, weights, training, partial)
    notes += _of_ranks(model, ranks)
    notes += tuple("; ".join((d.message, *d.help)) for d in doubts(model, training))
    with _partial_would_do():
        session = Session(
            model,
            training,
            started,
            threads=threads,
            cpu=cpu,
            winograd=winograd,
            device=device,
            precision=precision,
            amp=amp,
            checkpoint_activations=checkpoint_activations,
            ranks=ranks,
        )
    reading = reading_ahead(workers, threads)
    targets = session.plan.targets
    loader = loader_of(model, targets, found.train, training, reading, ranks=ranks)
    notes += data_doubts(model, targets, found.train, training)
    assert training.epochs is not None
    run = Run(
        session,
        loader,
        training.epochs,
        Rates(training, len(loader)),
        _measure(model, found, training, reading),
        training.patience,
        folder,
        _identity(model, found, training),
        Begun(said, remembered.Trained(model.name, model.parameters)),
        watch or Watch(),
        found.train.classes,
        training.batch if ranks.size > 1 else None,
    )
    return Job(run, found, training, notes)


def _folder(out: Any, data: Any, resume: bool, overwrite: bool, ranks: Ranks) -> Path | None:
    """The folder of the run, which rank 0 alone uses. InputError where it cannot be."""
    expect("the folder of the run", out, str, Path, NoneType)
    if "\0" in str(out):
        raise InputError("a path cannot hold a NUL byte")
    if ranks.rank > 0:
        return None
    folder = None if out is None else Path(out)
    _check_folder(folder, resume, overwrite)
    if folder is not None and isinstance(data, str | Path) and _is_within(folder, Path(data)):
        raise InputError(
            f"{folder} is where the data are, which a run would add to\n"
            "help: --out names another folder for it"
        )
    return folder


def _is_within(folder: Path, data: Path) -> bool:
    """Whether a folder is one of data, or in it."""
    with suppress(OSError, ValueError):
        place = data.resolve()
        return (
            place.is_dir()
            and place in (folder.resolve(), *folder.resolve().parents)
            and (place != Path.cwd().resolve())
        )
    return False


@contextmanager
def _partial_would_do() -> Generator[None]:
    """Weights that do not fit are told with what takes those that do."""
    try:
        yield
    except MismatchError as error:
        raise MismatchError(
            f"{error}\nhelp: --partial takes what fits, and begins the rest anew (fine-tuning)"
        ) from None


def _measure(model: Model, data: Data, training: Training, reading: int) -> Evaluation | None:
    """What judges the run, where there is something to judge it on."""
    if data.validation is None:
        return None
    _, hard = loss_model(model, training)
    plain = loader_of(model, hard, data.validation, training, reading, trains=False)
    return Evaluation(plain, training, judged(model.graph, training))


def evaluate_model(
    model: Model | str | Path,
    data: Any,
    weights: Any,
    labels: Any = None,
    training: Training | None = None,
    *,
    part: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    cpu: str = "native",
    winograd: bool = True,
    device: str | None = None,
    precision: str = "highest",
) -> dict[str, Any]:
    """The loss and the metrics of a network on data, by name, and how many samples those were.

    part: `train`, `validation` or `test` of data in parts; by default the last of these that there
    is. Raises convdsl.Error.
    """
    model = model if isinstance(model, Model) else load(model)
    training = training or complete(model)
    agree(model, training)
    name = preparation(model).name
    parts = opened(model, weights, data, labels, Wanted(model.inputs[name], name=name))
    chosen = parts.test or parts.validation or parts.train
    if part is not None:
        chosen = getattr(parts, part)
    if chosen is None:
        there = names_of([f.name for f in fields(parts) if getattr(parts, f.name) is not None])
        raise InputError(f"{data} has no part called {part}; it has {there}")
    training = settled(model, training, chosen)
    measure, targets = loss_model(model, training)
    how: dict[str, Any] = {"threads": threads, "cpu": cpu, "winograd": winograd, "device": device}
    network = compile(model, weights, precision=precision, **how)
    loss = compile(measure, {}, **how)
    loader = loader_of(model, targets, chosen, training, reading_ahead(workers), trains=False)
    compared = judged(model.graph, training)
    figures = evaluate(network, applied(loss_of, loss), loader, training, compared)
    return {"samples": len(chosen), **figures}


def opened(model: Model, weights: Any, data: Any, labels: Any, wanted: Wanted) -> Parts:
    """Data whose classes have the numbers that they had in training: a part that lacks some would
    number the others by itself. Raises InputError for a class that was none of the training data;
    names that the text has need not be those of the data."""
    parts = open_parts(data, labels, wanted)
    own, said = parts.train.classes, images_of(model, weights)[1]
    if own is None or said is None or tuple(own) == said:
        return parts
    if model.labels is not None and not {*own} <= {*said}:
        return parts
    return open_parts(data, labels, replace(wanted, classes=said))


def begun_with(out: str | Path | None, resume: bool, ranks: Ranks = ALONE) -> Begun:
    """How a run that is to go on was begun, on all ranks as rank 0 finds it. Nothing of a new one,
    and of a folder that holds none, which is told later."""
    found = Begun()
    if resume and out is not None and ranks.rank == 0 and (Path(out) / CHECKPOINT).is_dir():
        found = read_begun(Path(out) / CHECKPOINT)
    return ranks.broadcast(found) if resume else found


def _of_ranks(model: Model, ranks: Ranks) -> tuple[str, ...]:
    """That a batch in parts may not be the batch, where nothing shows that it is."""
    if ranks.size == 1 or samples_are_apart(model):
        return ()
    seen = "each process sees its own part only"
    return (f"{model.name} may compare the samples of a batch with each other: {seen}",)


def _check_folder(folder: Path | None, resume: bool, overwrite: bool) -> None:
    """InputError where a run would be lost, or there is none to go on with."""
    if folder is None:
        if resume:
            raise InputError(
                "there is nothing to resume from without a folder\n"
                "help: name the run's (`out` in Python); --find-lr and --overfit keep none"
            )
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a run is kept in a folder")
    held = [name for name in (CHECKPOINT, WEIGHTS) if (folder / name).exists()]
    if held and not resume and not overwrite:
        raise InputError(
            f"{folder} holds a run already ({', '.join(held)})\n"
            "help: --resume goes on with it, --overwrite begins anew, --out names another folder"
        )


def _make(folder: Path | None) -> None:
    """Make the run's folder. InputError where nothing can be written into it: that is to be known
    before an hour of training."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into {folder}: {error.strerror or error}\n"
            "help: --out names another folder for the run"
        ) from None


def _weights(
    model: Model, weights: Any, training: Training, partial: bool
) -> tuple[Any, tuple[str, ...]]:
    """What training begins with, and what is to be said of it."""
    if weights is None:
        if partial:
            raise InputError("--partial takes what fits of --weights, which are not given")
        anew = f"random:{training.seed}"
        if model.weights is None:
            return anew, ()
        return model.weights, (f"begins with the weights of its own file (--weights {anew}: anew)",)
    if not partial:
        return weights, ()
    store = load_weights(weights)
    if isinstance(store, RandomWeights):
        raise InputError(f"{store.source}: --partial takes what fits of a file")
    taken = bind_partially(store, model.graph.states, training.seed or 0)
    return taken.arrays, taken.notes


def _text(value: Any) -> str:
    """A setting as one would write it, for a message that compares two."""
    if isinstance(value, Choice):
        return f"{value.name}({', '.join(f'{k} = {v}' for k, v in value.arguments.items())})"
    if isinstance(value, Loss):
        return f"{value.weight:g} * {_text(value.measure)} of {', '.join(value.compares)}"
    if isinstance(value, tuple):
        return ", ".join(map(_text, cast("tuple[Any, ...]", value))) or "none"
    return str(value)


def _identity(model: Model, data: Data, training: Training) -> dict[str, str]:
    """What has to be the same for a checkpoint to be gone on with; epochs may be more."""
    settings = {
        name: _text(getattr(training, name))
        for name in ("loss", "optimizer", "schedule", "augment", "batch", "seed", "accumulate")
    }
    more = ("clip", "clip_value", "ema", "l1", "l2", "freeze", "groups", "decay_all", "fit")
    settings |= {name: _text(getattr(training, name)) for name in more}
    if training.sync_batch_norm:
        settings["sync_batch_norm"] = _text(training.sync_batch_norm)
    digest = hashlib.sha256(canonical_text(model.graph).encode()).hexdigest()
    settings["network"] = f"{model.name} {digest[:16]}"
    validation = 0 if data.validation is None else len(data.validation)
    labels = b"" if data.train.labels is None else data.train.labels.tobytes()
    settings["data"] = (
        f"{len(data.train)} samples to train on, {validation} to validate, labels"
        f" {hashlib.sha256(labels).hexdigest()[:16]}"
    )
    return settings
