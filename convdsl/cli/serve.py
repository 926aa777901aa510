"""Answer requests over HTTP, by the Open Inference Protocol.

Each MODEL is an artifact, a .cnn or ONNX file or a name of the zoo; NAME=MODEL calls it NAME. Of
several, weights are given as --weights NAME=FILE:

    convdsl serve lenet5.cdsl
    convdsl serve digits=lenet5.cnn --weights lenet5.safetensors --port 0

Code is made before the first request is taken, and then the address is printed. SIGTERM and Ctrl-C
end the server when what is at work is answered.

Clients are not asked who they are: by default only this machine is listened to. docs/serving.md
says what is understood, and what is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convdsl.cli import console
from convdsl.cli.options import (
    add_inputs,
    add_passes,
    add_processor,
    add_set,
    add_winograd,
    completes,
    each_size,
    input_shapes,
    positive,
    whole,
)
from convdsl.diagnostics import InputError
from convdsl.spelling import those

if TYPE_CHECKING:
    from convdsl.cli.building import Network
    from convdsl.runtime.executable import Array, Executable
    from convdsl.serving.hosting import Hosted
    from convdsl.serving.limits import Limits


def configure(parser: argparse.ArgumentParser) -> None:
    models = parser.add_argument("models", nargs="+", metavar="MODEL", help="MODEL or NAME=MODEL")
    completes(models, "network")
    add_set(parser)
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", help="address (default 127.0.0.1)")
    where.add_argument(
        "--port", type=_port, default=8000, metavar="P", help="default 8000; 0 is any that is free"
    )
    _add_limits(parser)
    add_inputs(parser.add_argument_group("shapes"), several=True)
    code = parser.add_argument_group("code")
    weights = code.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="safetensors, .npz or PyTorch checkpoint; random:SEED draws them",
    )
    completes(weights)
    code.add_argument("--key", metavar="KEY", help="where in a checkpoint they are, e.g. model_ema")
    add_processor(code)
    add_winograd(code)
    add_passes(parser)
    parser.set_defaults(batch=None, usual_batch=None)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("requests")
    group.add_argument(
        "--max-batch", type=positive, default=8, metavar="N", help="samples at once (default 8)"
    )
    group.add_argument(
        "--max-delay",
        type=_milliseconds,
        default=0.0,
        metavar="MS",
        help="milliseconds that a request waits for others (default 0: none but those that came "
        "while the last batch ran)",
    )
    group.add_argument(
        "--max-queue",
        type=positive,
        default=1024,
        metavar="N",
        help="requests that wait (default 1024)",
    )
    group.add_argument(
        "--max-body", type=positive, default=32, metavar="MIB", help="of a request (default 32)"
    )
    group.add_argument(
        "--max-connections", type=positive, default=4096, metavar="N", help="(default 4096)"
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="for a body to come, and for an answer (default 30)",
    )
    group.add_argument("--log", action="store_true", help="a line on stderr for each request")


def run(options: argparse.Namespace) -> int:
    for package in ("starlette", "uvicorn", "prometheus_client"):
        if find_spec(package) is None:
            raise InputError("serving needs more packages: pip install 'convdsl[serve]'")
    from convdsl.serving import server
    from convdsl.serving.app import Service

    limits = _limits(options)
    listening = server.listen(options.host, options.port)
    with listening:
        hosted = list(_hosted(options, limits))
        service = Service(hosted, limits, _report, console.remark if options.log else None)
        names = ", ".join(one.name for one in hosted)
        address = server.address_of(listening)

        def started() -> None:
            console.result(f"serving {names} at {address}")
            console.flush()

        server.run(service, listening, started)
    return 0


def _limits(options: argparse.Namespace) -> Limits:
    from convdsl.serving.limits import Limits

    body = options.max_body << 20
    return Limits(
        batch=options.max_batch,
        delay=options.max_delay,
        body=body,
        bodies=4 * body,
        queue=options.max_queue,
        timeout=options.timeout,
        connections=min(options.max_connections, _most_files() - 64),
    )


def _most_files() -> int:
    """Files that this process may have open, once it has asked for all it can get."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return 1 << 20 if soft == resource.RLIM_INFINITY else max(soft, 128)


def _report(error: BaseException) -> None:
    """A bug that a request has met."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    console.error(f"a bug in convdsl: {type(error).__name__}: {error}{where}")


# Models


def _hosted(options: argparse.Namespace, limits: Limits) -> Iterator[Hosted]:
    """The networks named, with code for what is known of their sizes."""
    models = [_named(text) for text in options.models]
    names = [name or _usual_name(model) for name, model in models]
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise InputError(f"two models are called {twice[0]}: NAME=MODEL calls them otherwise")
    if len(names) > 1 and options.input:
        raise InputError("--input is for one model: compile artifacts for the sizes of several")
    weights = _weights(options.weights, names)
    for name, (_, model) in zip(names, models, strict=True):
        given = {**vars(options), "model": model, "weights": weights.get(name)}
        yield _one(name, argparse.Namespace(**given), limits)


def _one(name: str, options: argparse.Namespace, limits: Limits) -> Hosted:
    from convdsl.cli.building import network
    from convdsl.serving.hosting import Hosted, ladder, warm

    made = network(argparse.Namespace(**{**vars(options), "input": []}))
    found = made.executable
    if found.state:
        raise InputError(f"{name} keeps state between calls: its answers would be of all callers")
    if made.model is None and options.input:
        raise InputError(f"{options.model} is compiled already: it is served for its sizes")
    hosted = Hosted(name, found, limits.batch, (), *_preparing(found))
    sizes = _sizes(made, options, hosted.batch) or _compiled_sizes(found, hosted.batch)
    hosted = replace(hosted, only=sizes)
    found.kept = max(found.kept, len(ladder(limits.batch)) * max(len(sizes), limits.sizes))
    if not found.samples_apart:
        console.note(f"{name}: samples are not known to be independent: one request runs at a time")
    warmed = sizes or _known_sizes(made, hosted.batch)
    for each in warmed:
        said = {hosted.batch: 1, **each}
        warm(hosted, {n: type.bind(said).sizes for n, type in found.inputs.items()})
    if not warmed:
        console.note(
            f"{name}: code for new sizes is made when they come; --input has it made before"
        )
    return hosted


def _sizes(made: Network, options: argparse.Namespace, batch: str) -> list[dict[str, int]]:
    """What `--input` says of the sizes but the batch."""
    from convdsl.sizes import bind

    if made.model is None or not options.input:
        return []
    found: list[dict[str, int]] = []
    for each in each_size(options):
        sizes = made.executable.complete(bind(made.model, input_shapes(each)))
        found.append({name: size for name, size in sizes.items() if name != batch})
    return found


def _compiled_sizes(network: Executable, batch: str) -> list[dict[str, int]]:
    """The sizes but the batch that an artifact for several has code for."""
    rows = [tuple((n, s) for n, s in size.items() if n != batch) for size in network.sizes]
    return [dict(row) for row in dict.fromkeys(rows)]


def _known_sizes(made: Network, batch: str) -> list[dict[str, int]]:
    """Sizes that the network itself leaves no others than."""
    if made.executable.deciding:
        return []
    symbols = {s.name for t in made.executable.inputs.values() for s in t.symbols()}
    return [{}] if symbols <= {batch} else []


def _preparing(
    network: Executable,
) -> tuple[str, Callable[[Sequence[bytes]], Array]] | tuple[None, None]:
    """The input that images become, and how, where that is declared and can be done here."""
    if network.preprocessing is None or len(network.inputs) != 1 or find_spec("PIL") is None:
        return None, None

    def prepare(images: Sequence[bytes]) -> Any:
        import numpy as np

        from convdsl.classification import prepared

        _, arrays = prepared(network, images)
        shapes = sorted({array.shape[2:] for array in arrays})
        if len(shapes) > 1:
            said = " and ".join("x".join(map(str, shape)) for shape in shapes)
            raise InputError(f"the images become inputs of {said}: send one size at a time")
        return np.concatenate(arrays)

    return network.preprocessing["input"], prepare


def _named(text: str) -> tuple[str | None, str]:
    """NAME=MODEL, where there is no file of that name."""
    name, equals, model = text.partition("=")
    if not equals or Path(text).exists():
        return None, text
    if not name or not model or "/" in name:
        raise InputError(f"{text}: NAME=MODEL has a name without / and a model")
    return name, model


def _usual_name(model: str) -> str:
    """Of resnet.cdsl, nets.cnn:resnet or resnet."""
    return Path(model).stem if Path(model).is_file() else model.rpartition(":")[2]


def _weights(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """`--weights` by model."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or Path(text).exists():
            if len(names) > 1:
                raise InputError("--weights of several models are given as NAME=FILE")
            name, file = names[0], text
        if name not in names:
            raise InputError(f"--weights {text}: no model {name}; {those(names)}")
        if name in found:
            raise InputError(f"--weights of {name} are given twice")
        found[name] = file
    return found


def _port(text: str) -> int:
    port = whole(text, 0, 65535)
    if port is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return port


def _seconds(text: str) -> float:
    return _time(text, 1e-3, 1.0)


def _milliseconds(text: str) -> float:
    return _time(text, 0.0, 1e-3)


def _time(text: str, least: float, unit: float) -> float:
    """In seconds, at most a day."""
    try:
        value = float(text) * unit
    except ValueError:
        value = -1.0
    if not least <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time")
    return value
