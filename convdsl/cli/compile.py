"""Turn a model into an artifact, or print a stage of its compilation.

Without --emit: one file that `run`, `classify`, `bench` and convdsl.load_executable take; with
--batch 1,8 it has code for each, and once the weights that both lay out alike.
--explain tells why each step runs as it does, --measure how fast.
Stages: graph (after the passes), gradient (the backward graph, before them; --of says of which
output, --wrt by which inputs and weights), expr (tensor expressions), loops (loop IR); of a
processor llvm, asm, object; of a card cuda, ptx, cubin, sass. `library` is a shared library for C
with a header beside it, put together by a C compiler.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from convdsl.cli import console
from convdsl.cli.building import PassWatcher, compiled, load_model
from convdsl.cli.files import path_of, place_of
from convdsl.cli.options import (
    add_building,
    add_format,
    add_model,
    batch_of,
    completes,
    each_size,
    input_shapes,
    positive,
    processor_of,
    selected_passes,
    weights_of,
)
from convdsl.cli.tuning import add_tuning, tuner
from convdsl.diagnostics import InputError
from convdsl.runtime.whole_files import told_of, write_whole

LEVELS = (
    *("graph", "gradient", "expr", "loops"),
    *("llvm", "asm", "object"),
    *("cuda", "ptx", "cubin", "sass"),
    "library",
)
SUFFIX = ".cdsl"
_SMALL = 100_000  # bytes that are told one by one


def configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--emit", choices=LEVELS, metavar="STAGE", help="print this stage, of those below, instead"
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="with --emit loops: as they are before tiles, for people",
    )
    parser.add_argument("--of", metavar="OUTPUT", help="with --emit gradient: of this output")
    parser.add_argument(
        "--wrt",
        metavar="NAME",
        action="append",
        help="with --emit gradient: by these inputs and weights, as layer1.*; all parameters unless"
        " given, more than once if need be",
    )
    completes(
        parser.add_argument(
            "-o", "--output", metavar="FILE", help=f"where to write (default MODEL{SUFFIX})"
        )
    )
    parser.add_argument(
        "--explain", action="store_true", help="print each step's schedule and predicted cost"
    )
    parser.add_argument(
        "--measure", action="store_true", help="with --explain: time each step, share of the peak"
    )
    parser.add_argument(
        "--rows", type=_count, metavar="N", help="with --explain: so many of the slowest, or all"
    )
    parser.add_argument(
        "--columns", metavar="NAME,..", help="with --explain: these columns, or all"
    )
    add_format(parser)
    add_building(parser, runs=False)
    add_tuning(parser)


def _count(text: str) -> str:
    return text if text == "all" else str(positive(text))


def run(options: argparse.Namespace) -> int:
    options, *others = each_size(options)
    if others and (options.emit or options.explain):
        said = f"--emit {options.emit}" if options.emit else "--explain"
        raise InputError(f"{said} shows code for one size: one --batch, one --input")
    if options.measure and not options.explain:
        raise InputError("--measure goes with --explain")
    if (options.rows or options.columns) and not options.explain:
        raise InputError("--rows and --columns go with --explain")
    if options.emit != "gradient" and (options.of or options.wrt):
        raise InputError("--of and --wrt go with --emit gradient")
    if options.plain and options.emit != "loops":
        raise InputError("--plain goes with --emit loops")
    if options.tune and (options.emit not in (None, "library") or options.explain):
        raise InputError(
            "--tune goes with an artifact or a library: with no other --emit, nor --explain"
        )
    if options.explain:
        if options.emit or options.output:
            raise InputError("--explain prints a table: it takes neither --emit nor -o")
        _refuse_cards(options, "--explain", "`convdsl report --machine h100` predicts cards")
        from convdsl.cli.steps import explain

        return explain(options)
    if options.emit == "library":
        return _library(options)
    return _emit(options) if options.emit else _artifact(options, others)


def _refuse_cards(options: argparse.Namespace, what: str, instead: str) -> None:
    if options.target == "cuda" or options.arch is not None:
        raise InputError(f"{what} is of processors; {instead}")


def _artifact(options: argparse.Namespace, others: Sequence[argparse.Namespace]) -> int:
    """An artifact for the sizes of the options, and for those of the others."""
    from convdsl.sizes import bind

    started = time.perf_counter()
    if options.target == "cuda" and options.arch is None:
        console.note("code for sm_90 (H100) and later cards; --arch names an earlier one")
    if options.arch == "sm_90a":
        console.note("code for sm_90a runs on Hopper (H100, H200) alone, on no later card")
    _check_suffix(options.output)
    model = load_model(options)
    path = place_of("an artifact", options.output or f"{model.name}{SUFFIX}", SUFFIX)
    each = [options, *others]
    if others:
        bindings = [bind(model, input_shapes(one), batch_of(model, one)) for one in each]
        binding = {name: [one[name] for one in bindings] for name in bindings[0]}
        made = compiled(model, options, sized=False).executable
    else:
        made, binding, _ = compiled(model, options)
    made.save(path, **binding)
    seconds = time.perf_counter() - started
    console.note(f"{path}: {_size(path)} in {seconds:.2f} s")
    return 0


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:,.1f} MB" if size >= _SMALL else f"{size:,} bytes"


def _check_suffix(output: str | None) -> None:
    """Raise InputError where the name says that something else than an artifact was meant."""
    suffix = Path(output).suffix.lower() if output else ""
    meant = next((how for known, how in _ELSEWHERE.items() if suffix in known), None)
    if meant is not None:
        raise InputError(f"{output} would be an artifact ({SUFFIX}) by its content: for {meant}")


_ELSEWHERE = {
    (".so", ".dylib", ".dll", ".h"): "a shared library with a C header, add `--emit library`",
    (".o", ".obj"): "an object file, add `--emit object`",
    (".ll",): "LLVM's text, add `--emit llvm`",
    (".s", ".asm"): "assembly, add `--emit asm`",
    (".ptx",): "PTX, add `--emit ptx`",
    (".cu",): "CUDA C, add `--emit cuda`",
    (".cubin",): "machine code of a card, add `--emit cubin`",
}
"""What ends of names mean, and what makes it."""


def _library(options: argparse.Namespace) -> int:
    from convdsl.library import build_library

    _refuse_cards(options, "--emit library", "an artifact for a card runs without a compiler, too")
    started = time.perf_counter()
    model = load_model(options)
    path = place_of("a library", options.output or f"lib{model.name}.so", ".so")
    header = build_library(
        model,
        weights_of(options),
        path,
        cpu=options.cpu,
        inputs=input_shapes(options),
        batch=batch_of(model, options),
        passes=selected_passes(options),
        verify=options.verify,
        observer=PassWatcher(options),
        tuner=tuner(options),
    )
    seconds = time.perf_counter() - started
    console.note(f"{path}: {_size(path)}, and {header.name}, in {seconds:.2f} s")
    return 0


def _emit(options: argparse.Namespace) -> int:
    from convdsl import driver

    if options.weights:
        console.note(f"--weights plays no part in --emit {options.emit}")
    model = load_model(options)
    emitted = driver.emit(
        model,
        options.emit,
        winograd=options.winograd,
        **processor_of(options),
        inputs=input_shapes(options),
        batch=batch_of(model, options),
        passes=selected_passes(options),
        verify=options.verify,
        observer=PassWatcher(options),
        of=options.of,
        wrt=options.wrt,
        plain=options.plain,
    )
    _write(emitted, options.output)
    return 0


def _write(emitted: str | bytes, output: str | None) -> None:
    if output not in (None, "-"):
        data = emitted.encode() if isinstance(emitted, str) else emitted
        path = path_of("a stage of compilation", output)
        with told_of(path):
            if path.exists() and not path.is_file():  # a device, a pipe: /dev/stdout
                path.write_bytes(data)
            else:
                write_whole(path, [data], durable=False)
    elif isinstance(emitted, str):
        console.result(emitted)
    elif sys.stdout.isatty():
        raise InputError("machine code is not for terminals: give -o FILE")
    else:
        console.put(emitted)
