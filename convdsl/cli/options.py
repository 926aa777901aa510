"""Options that several subcommands share, and what their values mean."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from convdsl.ir.model import Model
    from convdsl.passes import Pass

T = TypeVar("T")

TARGETS = ("cpu", "cuda")
PRECISIONS = ("highest", "high", "medium")
FORMATS = ("table", "json", "md", "csv")
_SHAPE = re.compile(r"(?:(?P<name>[^=]+)=)?(?P<sizes>\d+(?:x\d+)*)", re.ASCII)


def add_model(
    parser: argparse.ArgumentParser, *, artifacts: bool = False, optional: bool = False
) -> None:
    also = ", or an artifact that `convdsl compile` wrote" if artifacts else ""
    action = parser.add_argument(
        "model",
        nargs="?" if optional else None,
        metavar="MODEL",
        help=f"a .cnn file, FILE:NAME for one of several models in it, or a name of the zoo{also}",
    )
    completes(action, "network" if artifacts else "model")
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """`--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=assignment,
        metavar="NAME=VALUE",
        help="set a parameter of the model, e.g. --set classes=10; may be repeated",
    )
    parser.add_argument(
        "--outputs",
        metavar="NAME,..",
        help="of an ONNX file: only these outputs, or tensors inside it, and what they need",
    )


def add_shapes(
    parser: argparse.ArgumentParser, *, batch: int | None = 1, several: bool = False
) -> None:
    """`--batch` and `--input`; where a command takes `several` of each, `each_size` has them."""
    group = parser.add_argument_group("shapes")
    said = "" if batch is None else f" (default {batch})"
    more = "; several, as 1,8, in one artifact" if several else ""
    group.add_argument(
        "--batch",
        type=_listed(positive) if several else _one_batch,
        metavar="N,.." if several else "N",
        help=f"samples at once{said}{more}",
    )
    parser.set_defaults(usual_batch=batch)
    add_inputs(group, several=several)


def add_inputs(
    group: argparse._ActionsContainer,  # pyright: ignore[reportPrivateUsage]
    *,
    several: bool = False,
) -> None:
    """`--input`."""
    group.add_argument(
        "--input",
        action="append",
        default=[],
        type=_shapes if several else _shape,
        metavar="[NAME=]CxHxW",
        help="size of an input, without its batch, e.g. 3x224x224; may be repeated",
    )


def add_building(
    parser: argparse.ArgumentParser, *, batch: int | None = 1, runs: bool = True
) -> None:
    """Everything that decides which code is made, by a command that runs it or does not."""
    add_shapes(parser, batch=batch, several=not runs)
    group = parser.add_argument_group("code")
    add_weights(group)
    add_processor(group, runs=runs)
    add_winograd(group)
    add_passes(parser)


def add_processor(
    group: argparse._ActionsContainer,  # pyright: ignore[reportPrivateUsage]
    *,
    runs: bool = True,
) -> None:
    """What code is made for: where it runs, or, by a command that runs nothing, by name."""
    group.add_argument("--threads", type=positive, metavar="T", help="default: all processors")
    group.add_argument(
        "--cpu",
        default="native",
        metavar="NAME",
        help="native (default), x86-64-v2, x86-64-v3, x86-64-v4, or a name LLVM knows; "
        "TRIPLE:NAME for another architecture",
    )
    if runs:
        group.add_argument(
            "--device", metavar="D", help="where to run: cpu (default), cuda, or cuda:1, ..."
        )
    else:
        group.add_argument("--target", choices=TARGETS, help="what code is for (default cpu)")
        group.add_argument(
            "--arch",
            metavar="NAME",
            help="of the card that code is for: sm_90 (default), sm_80; sm_90a: Hopper alone",
        )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="of products on a card: float32 (highest, the default), TF32 (high), bf16 (medium)",
    )


def processor_of(options: argparse.Namespace) -> dict[str, Any]:
    """The same as the driver takes it."""
    names = ("cpu", "precision", "device", "target", "arch")
    said = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in said.items() if value is not None}


def add_winograd(group: argparse._ActionsContainer) -> None:  # pyright: ignore[reportPrivateUsage]
    """`--no-winograd`."""
    group.add_argument(
        "--no-winograd",
        dest="winograd",
        action="store_false",
        help="no convolutions with fewer products, whose rounding errors are larger",
    )


def add_weights(parser: argparse._ActionsContainer) -> None:  # pyright: ignore[reportPrivateUsage]
    """Where weights are."""
    weights = parser.add_argument(
        "--weights",
        metavar="FILE",
        help="safetensors, .npz or PyTorch checkpoint; random:SEED draws them",
    )
    completes(weights)
    parser.add_argument(
        "--key", metavar="KEY", help="where in a checkpoint they are, e.g. model_ema or ema.model"
    )


def weights_of(options: argparse.Namespace, default: str | None = None) -> Any:
    """`--weights` as the driver takes them, opened where `--key` says where to look."""
    if options.key is None:
        return options.weights or default
    from convdsl.weights import load

    if options.weights is None:
        raise InputError("--key chooses from the file that --weights names")
    return load(options.weights, options.key)


def add_passes(parser: argparse.ArgumentParser) -> None:
    """What the graph passes do, and what they tell."""
    passes = parser.add_argument_group("passes (`convdsl passes` lists them)")
    completes(
        passes.add_argument(
            "--disable", action="append", default=[], metavar="PASS", help="leave a pass out"
        ),
        "pass",
    )
    passes.add_argument(
        "--pass-option",
        action="append",
        default=[],
        type=_pass_option,
        metavar="PASS.OPTION=VALUE",
        help="set an option of a pass",
    )
    completes(
        passes.add_argument(
            "--print-after", action="append", default=[], metavar="PASS", help="print the graph"
        ),
        "pass",
    )
    passes.add_argument("--time-passes", action="store_true", help="print what each pass took")
    passes.add_argument("--verify", action="store_true", help="check the graph around each pass")


def add_format(
    parser: argparse._ActionsContainer,  # pyright: ignore[reportPrivateUsage]
    choices: Sequence[str] = FORMATS,
    default: str = "table",
) -> None:
    parser.add_argument(
        "--format",
        choices=choices,
        default=default,
        help=f"one of {', '.join(choices)} (default {default})",
    )
    if "table" in choices:
        parser.add_argument(
            "--wide", action="store_true", help="all columns of tables, wider than the terminal"
        )


def parameters(options: argparse.Namespace) -> dict[str, Any]:
    """`--set` as a mapping; later ones win. Values read as in the language. `--outputs` with it."""
    chosen: str | None = options.outputs
    found: dict[str, Any] = {} if chosen is None else {"outputs": chosen.split(",")}
    return settings_of(options.set) | found


def settings_of(assignments: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """NAME=VALUE pairs as a mapping of values of the language."""
    if not assignments:
        return {}
    from convdsl.elaborate import parameter_value

    return {name: parameter_value(text) for name, text in assignments}


def batch_of(model: Model, options: argparse.Namespace) -> int | None:
    """`--batch`, or what is usual for the command. InputError where the model fixes it."""
    from convdsl.kernel.signature import batch_symbol

    open = [symbol.name for symbol in model.symbols]
    if batch_symbol(open) is not None:
        return options.batch or options.usual_batch
    if options.batch is not None:
        if open:
            raise InputError(
                f"--batch: {model.name} has no N in its inputs, only {', '.join(open)}\n"
                f"help: --batch means N, or a size that is called batch; "
                f"--set {open[0]}={options.batch} sets another"
            )
        said = batch_symbol([name for name, _ in options.set])
        if said is not None:
            raise InputError(f"--batch and --set {said}=... say the same size: give one of them")
        raise InputError(f"--batch: {model.name} has no N in its inputs, their sizes are fixed")
    return None


def input_shapes(
    options: argparse.Namespace,
) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    """`--input` as the driver takes it: one shape, shapes by input, or None."""
    given: list[Shape] = options.input
    unnamed = [shape for name, shape in given if name is None]
    if not given:
        return None
    if unnamed and len(given) > 1:
        raise InputError("--input needs names where it is given more than once: NAME=3x224x224")
    return unnamed[0] if unnamed else {str(name): shape for name, shape in given}


def each_size(options: argparse.Namespace) -> list[argparse.Namespace]:
    """The options with one size each, in every combination of what `--batch` and `--input` list.
    InputError for a size that is listed twice."""
    shapes = [[shape._replace(name=given[0].name) for shape in given] for given in options.input]
    made = [
        argparse.Namespace(**{**vars(options), "input": list(each), "batch": batch})
        for each in itertools.product(*shapes)
        for batch in options.batch or (None,)
    ]
    if len({(*one.input, one.batch) for one in made}) < len(made):
        batches: list[object] = list(options.batch or ())
        shapes_said = [f"{'x'.join(map(str, s.sizes))}" for given in options.input for s in given]
        for option, given in (("--batch", batches), ("--input", shapes_said)):
            twice = [one for number, one in enumerate(given) if one in given[:number]]
            if twice:
                raise InputError(f"{option} names a size twice: {twice[0]}")
    return made


def selected_passes(options: argparse.Namespace) -> tuple[Pass, ...]:
    """The passes to run. Raises InputError for names and options that do not exist."""
    from convdsl.passes import select

    chosen: dict[str, dict[str, Any]] = {}
    for name, option, value in options.pass_option:
        chosen.setdefault(name, {})[option] = value
    select(options.print_after)  # complains of names that no pass has
    return select(options.disable, chosen)


def assignment(text: str) -> tuple[str, str]:
    """NAME=VALUE, of an option."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name.strip(), value


def _pass_option(text: str) -> tuple[str, str, Any]:
    name, value = assignment(text)
    target, dot, option = name.partition(".")
    if not dot:
        raise argparse.ArgumentTypeError(f"{text!r} is not PASS.OPTION=VALUE")
    literal = {"true": True, "false": False}.get(value, value)
    for convert in (int, float):
        if isinstance(literal, str):
            try:
                literal = convert(literal)
            except ValueError:
                continue
    return target, option, literal


def whole(text: str, least: int, most: int) -> int | None:
    """The whole number that a text says, None where it is none or lies outside. Python reads no
    number of thousands of digits."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < _DIGITS else None
    return number if number is not None and least <= number <= most else None


_DIGITS = 1000


def _one_batch(text: str) -> int:
    """A batch. Several are compared by `report --set`, and compiled by `compile --batch`."""
    if re.fullmatch(r"[0-9]+(?:,[0-9]+)+", text):
        raise argparse.ArgumentTypeError(
            f"{text} is several: give one; `report MODEL --set N={text}` has a column for each, "
            f"and `compile MODEL --batch {text}` code"
        )
    return positive(text)


def positive(text: str) -> int:
    """An option's value that counts something."""
    number = whole(text, 1, _MOST)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return number


def natural(text: str) -> int:
    """An option's value that counts something that may not be there."""
    number = whole(text, 0, _MOST)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return number


_MOST = (1 << 31) - 1


class Shape(NamedTuple):
    """The size of an input, and which, where that was said."""

    name: str | None
    sizes: tuple[int, ...]


def _shape(text: str) -> Shape:
    match = _SHAPE.fullmatch(text)
    sizes = [whole(size, 1, _MOST) for size in match["sizes"].split("x")] if match else []
    known = tuple(size for size in sizes if size is not None)
    if match is None or len(known) < len(sizes):
        listed = re.fullmatch(r"[\[(]? *(\d+(?: *, *\d+)+) *[\])]?", text)
        joined = f": write {re.sub(' *, *', 'x', listed[1])}" if listed else ""
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 3x224x224{joined}")
    return Shape(match["name"], known)


def _listed(one: Callable[[str], T]) -> Callable[[str], list[T]]:
    """The type of an option that takes several, with commas between."""
    return lambda text: [one(part) for part in text.split(",")]


def _shapes(text: str) -> list[Shape]:
    """Several shapes. Sizes with commas between, as tuples have them, are one."""
    if "," in text and "x" not in text.rpartition("=")[2]:
        _shape(text)  # which says so
    return _listed(_shape)(text)


COMPLETES = "completes"
"""The attribute that says with what shells complete an argument."""


def completes(action: argparse.Action, kind: str = "file") -> None:
    """Say with what shells complete an argument: a kind of `cli.completion`, or any file."""
    setattr(action, COMPLETES, kind)
