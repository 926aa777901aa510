"""Train a model on a data set.

Settings are those of the file's `train` block; --set train.NAME=VALUE and its short forms stand
over it, and what nobody says has a default (docs/language.md lists them). Data are a folder with a
folder of images for each class, IDX files (--data images.idx --labels labels.idx), an .npz with `x`
and `y`, or a CSV of paths and labels. The folder --out gets weights.safetensors (the best by
validation), checkpoint/ (the last state, for --resume), log.jsonl (an object an epoch) and
curves.svg, with matplotlib curves.png too. Ctrl-C finishes the step at work and leaves a
checkpoint.

--nproc P trains with P processes of this machine, which share each batch; across machines,
`mpiexec -n P convdsl train ...` does (docs/distributed.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convdsl.cli import console
from convdsl.cli.files import plain_path
from convdsl.cli.options import add_model, add_processor, add_winograd, completes, positive
from convdsl.cli.settings import add_settings, model_to_train, split_settings
from convdsl.diagnostics import InputError
from convdsl.kernel.cuda_target import MIXED

if TYPE_CHECKING:
    from collections.abc import Callable

    from convdsl.ir.model import Model
    from convdsl.ranks import Ranks
    from convdsl.training.fit import Job, Trained

CURVES, RATES, EVENTS = "curves", "rates", "tensorboard"
FINDINGS = 1


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser)
    group = parser.add_argument_group("run")
    completes(
        group.add_argument("--out", metavar="DIR", help="where to write (default MODEL-trained)")
    )
    group.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in --out, bit for bit"
    )
    group.add_argument(
        "--overwrite", action="store_true", help="begin anew in a folder that holds a run"
    )
    completes(
        group.add_argument(
            "--weights",
            metavar="FILE",
            help="begin with these (default: an ONNX file's own, else random ones)",
        )
    )
    group.add_argument(
        "--partial",
        action="store_true",
        help="take from --weights what fits, and begin the rest anew (fine-tuning)",
    )
    add_processor(group)
    group.add_argument(
        "--nproc",
        type=positive,
        metavar="P",
        help="processes that share each batch (default 1; needs convdsl[mpi])",
    )
    group.add_argument(
        "--amp",
        choices=tuple(MIXED),
        help="mixed precision on a card: products in float16 with loss scaling, or in bfloat16",
    )
    group.add_argument("--workers", type=positive, metavar="W", help="that read data ahead")
    add_winograd(group)
    group.add_argument(
        "--checkpoint-activations",
        action="store_true",
        help="compute some maps of the forward pass again instead of keeping them",
    )
    group.add_argument(
        "--tensorboard", action="store_true", help="write events for TensorBoard, too"
    )
    first = parser.add_argument_group("before a long run")
    first.add_argument(
        "--find-lr", action="store_true", help="try rates from small to large, and suggest one"
    )
    first.add_argument(
        "--overfit", type=positive, metavar="N", help="see whether N samples can be learnt by heart"
    )
    add_settings(parser)


def add_data(parser: argparse.ArgumentParser, *, validation: bool = True) -> None:
    """Where the data come from."""
    group = parser.add_argument_group("data")
    named = [
        ("--data", "a folder, .npz, .csv or IDX file"),
        ("--labels", "the labels of an IDX or .npy file"),
    ]
    if validation:
        named.append(("--val", "data to validate on, instead of a share of --data"))
    for name, help in named:
        completes(group.add_argument(name, required=name == "--data", metavar="PATH", help=help))


def run(options: argparse.Namespace) -> int:
    from convdsl.ranks import ALONE
    from convdsl.ranks.started import started

    if started():
        from convdsl.cli.several import one_of_several

        return one_of_several(options, _run)
    if (options.nproc or 1) > 1:
        from convdsl.cli.several import start_several

        _check_batch(options.nproc, split_settings(options), options)
        return start_several(options, _folder(options, lambda: model_to_train(options)))
    return _run(options, ALONE)


def _check_batch(processes: int, said: Any, options: argparse.Namespace) -> None:
    """A batch has a sample for each process: told before there are so many. Begun runs say theirs
    themselves."""
    if options.resume:
        return
    from convdsl.training.data.parts import check_parts
    from convdsl.training.settings import complete

    batch = complete(model_to_train(options), said).batch
    assert batch is not None
    check_parts(batch, processes)


def _folder(options: argparse.Namespace, model: Callable[[], Model]) -> Path:
    """Where the run is kept: as `--out` says, else called as the model is."""
    return plain_path(options.out or f"{model().name}-trained")


def _model(options: argparse.Namespace, ranks: Ranks) -> Model:
    """The model that is trained; of a run that goes on, with the parameters it was begun with."""
    from convdsl.training.fit import begun_with

    if options.resume:
        out = _folder(options, lambda: model_to_train(options))
        options.begun = begun_with(out, options.resume, ranks).model
    return model_to_train(options)


def _run(options: argparse.Namespace, ranks: Ranks) -> int:
    from convdsl.cli.progress import watch
    from convdsl.training.fit import prepare
    from convdsl.training.loop import Watch

    said = split_settings(options)
    model = _model(options, ranks)
    looks = options.find_lr or options.overfit is not None
    if options.find_lr and options.overfit is not None:
        raise InputError("--find-lr and --overfit are two looks before a run: one at a time")
    folder = _folder(options, lambda: model)
    first = ranks.rank == 0
    job = prepare(
        model,
        options.data,
        options.labels,
        validation=options.val,
        out=None if looks else folder,
        weights=options.weights,
        partial=options.partial,
        resume=options.resume,
        overwrite=options.overwrite,
        threads=options.threads,
        workers=options.workers,
        cpu=options.cpu,
        winograd=options.winograd,
        device=options.device,
        precision=options.precision,
        amp=options.amp,
        checkpoint_activations=options.checkpoint_activations,
        watch=_watch(options, folder, watch()) if first else Watch(),
        said=said,
        ranks=ranks,
    )
    if not first:
        job.go(resume=options.resume)
        return 0
    for text in job.notes:
        console.note(text)
    if options.find_lr:
        return _find_rate(job, folder)
    if options.overfit is not None:
        return _overfit(job, options.overfit)
    return _train(job, folder, options)


def _watch(options: argparse.Namespace, folder: Path, shown: Any) -> Any:
    """What shows the run, and with --tensorboard writes it down, too."""
    if not options.tensorboard:
        return shown
    from convdsl.training.events import Events

    return Events(folder / EVENTS, shown)


def _train(job: Job, folder: Path, options: argparse.Namespace) -> int:
    from convdsl.training.checkpoint import epochs_of
    from convdsl.training.loop import CHECKPOINT

    data = job.data
    held = 0 if data.validation is None else len(data.validation)
    have = console.counted(len(data.train), "sample")
    console.note(f"{have} to train on, {held:,} to validate; into {folder}")
    done = epochs_of(folder / CHECKPOINT) if options.resume else 0
    try:
        trained = job.go(resume=options.resume)
    except KeyboardInterrupt:
        text = f"stopped; `--resume` goes on from {folder}/checkpoint"
        raise KeyboardInterrupt(text) from None
    if done >= job.run.epochs:  # told now: a checkpoint of another run is refused first
        console.note(
            f"the run in {folder} has {console.counted(done, 'epoch')} behind it, and "
            f"{job.run.epochs} {'is' if job.run.epochs == 1 else 'are'} asked for: "
            "nothing is left to train (--epochs counts from the beginning)"
        )
    _draw(trained, folder)
    console.result(_verdict(job, trained, folder))
    return 0


def _verdict(job: Job, trained: Trained, folder: Path) -> str:
    """Which epoch was best, and where its weights are."""
    measure, path = job.run.measure, folder / "weights.safetensors"
    if measure is None or not trained.history:
        return f"weights of the last epoch in {path}"
    best = max(reversed(trained.history), key=measure.score)
    figures = [
        f"{name} {value:.4f}"
        for name, value in best.items()
        if name.startswith("val_") and isinstance(value, float)
    ]
    return f"best was epoch {best['epoch']}: {', '.join(figures)}\nits weights are in {path}"


def _draw(trained: Trained, folder: Path) -> None:
    """The curves as SVG, and as PNG, or once why there is none."""
    from convdsl.training.curves import draw_curves

    if trained.history:
        name = trained.model.name
        _draw_both(folder / CURVES, lambda path: draw_curves(trained.history, path, name))


def _draw_both(path: Path, draw: Callable[[Path], None]) -> None:
    draw(path.with_name(f"{path.name}.svg"))
    try:
        draw(path.with_name(f"{path.name}.png"))
    except InputError as error:
        console.note(str(error))


def _find_rate(job: Job, folder: Path) -> int:
    from convdsl.cli import listing
    from convdsl.training.curves import draw_rates
    from convdsl.training.first_looks import HIGHEST, LOWEST, find_rate

    test = find_rate(job.run.session, _again(job))
    every = max(1, len(test.rates) // 15)
    rows = [
        {"rate": f"{rate:.2e}", "loss": loss}
        for rate, loss in list(zip(test.rates, test.losses, strict=True))[::every]
    ]
    listing.show(rows, "table")
    if test.steepest is None:
        tried = f"rates from {LOWEST:g} to {HIGHEST:g}"
        raise InputError(f"the loss never falls, at {tried}: see whether --overfit 8 works")
    console.result(
        f"the loss falls fastest at {test.steepest:.2e}, and is least at {test.least:.2e}: "
        f"try --lr {test.steepest:.1e}"
    )
    picture = folder.with_name(f"{folder.name}.{RATES}")
    _draw_both(picture, lambda path: draw_rates(test.rates, test.losses, path))
    console.note(f"drawn in {picture}.svg")
    return 0


def _again(job: Job) -> Any:
    """Batches without end."""
    epoch = 0
    while True:
        yield from job.run.batches.epoch(epoch)
        epoch += 1


def _overfit(job: Job, samples: int) -> int:
    from convdsl.training.first_looks import overfit

    batch = {name: array[:samples] for name, array in next(_again(job)).items()}
    have = len(next(iter(batch.values())))
    if have < samples:
        more = (
            f": --batch {samples} gives more" if have < len(job.data.train) else ", all there are"
        )
        console.note(f"a batch has {console.counted(have, 'sample')}{more}")
    assert job.training.optimizer is not None
    rate = float(job.training.optimizer.arguments["lr"])  # the schedule may begin with next to none
    found = overfit(job.run.session, batch, rate)
    went = f"the loss went from {found.first:.4g} to {found.last:.4g} in {found.steps} steps"
    if found.learnt:
        console.result(f"{have} samples can be learnt by heart: {went}")
        return 0
    console.result(
        f"{have} samples were not learnt by heart: {went}. Look for a mistake in layers, loss or "
        "data, or try another rate (--find-lr)"
    )
    return FINDINGS
