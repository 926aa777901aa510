"""Parse the command line, run one subcommand, and answer mistakes without a traceback.

Exit codes: 0 fine, 1 findings, 2 misuse or failure, 130 interrupted, 141 reader gone.
"""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
import sys
from collections.abc import Iterable, Sequence

from convdsl.cli import console
from convdsl.cli.answering import FAILURE, READER_GONE, answered
from convdsl.cli.interruption import INTERRUPTED, SAID
from convdsl.cli.parsing import Parser
from convdsl.diagnostics import InputError

# In the order of the help, with the line it shows; each is a module of this package.
COMMANDS = {
    "init": "begin a project: a network, a budget, data, a test, CI",
    "check": "say what is wrong in .cnn files",
    "explain": "say what a code such as E0501 means",
    "fmt": "bring .cnn files into the one layout",
    "lsp": "serve an editor by the Language Server Protocol",
    "report": "parameters, multiply-accumulates, memory, receptive fields of a model",
    "draw": "draw a network, its receptive fields, filters, maps or classes",
    "diff": "compare two models, layer by layer",
    "compile": "turn a model into an artifact, or print a stage of its compilation",
    "import": "turn an ONNX model into .cnn text and a weight file",
    "export": "write a model as ONNX, or as PyTorch source",
    "run": "run a model on arrays",
    "classify": "name what photos show",
    "train": "train a model on a data set",
    "eval": "measure how good a model is on a data set",
    "serve": "answer requests over HTTP",
    "bench": "measure how fast a model runs",
    "info": "say what is inside an artifact",
    "zoo": "list the models that come along, or print one",
    "ops": "list the operators, or describe one",
    "passes": "list the graph passes, or show what they do to a model",
    "completion": "print a script that completes convdsl in a shell",
    "doctor": "look at the processor, the caches and the optional packages",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    _open_what_is_closed()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(given)
        console.flush()
    except KeyboardInterrupt as stop:  # at whatever moment
        console.remark(str(stop) or SAID)
        return INTERRUPTED
    except InputError as error:  # stdout, once the command has returned
        console.error(str(error))
        return FAILURE
    except BrokenPipeError:
        console.drop_output()
        return READER_GONE
    return code


def _open_what_is_closed() -> None:
    """Streams that a shell has closed (`>&-`) are of nobody; and no file that is opened later may
    take their numbers, lest what is said be written into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(handle, "w" if number else "r", encoding="utf-8"))


def _dispatch(given: list[str]) -> int:
    console.begin()
    try:
        everything = any(word.startswith("--print-completion") for word in given)
        parser = parser_of(COMMANDS if everything else given)
        options, unknown = parser.parse_known_args(given)
        if unknown:
            command: Parser = getattr(options, "parser", parser)
            command.error(_unknown_arguments(command, unknown))
    except SystemExit as stop:  # argparse has said what there is to say
        return stop.code if isinstance(stop.code, int) else FAILURE
    if not hasattr(options, "run"):
        parser.print_help()
        return FAILURE
    options.words = given  # for commands that start themselves again
    console.configure(options)
    return answered(lambda: options.run(options), verbose=options.verbose)


def parser_of(named: Iterable[str]) -> Parser:
    """The parser of everything, but for help's sake the options of the commands named only."""
    wanted = set(named)
    parser = Parser(
        prog="convdsl",
        description="A language and compiler for convolutional networks.",
        epilog="`convdsl COMMAND --help` says more; docs/language.md describes the language.",
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        metavar="SHELL",
        help="the same as the command `completion`",
    )
    parser.set_defaults(whole=lambda: parser_of(COMMANDS))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for name, summary in COMMANDS.items():
        read = name in wanted
        command: Parser = commands.add_parser(name, help=summary, add_help=False, read=read)
        if read:
            word = f"{name}_" if keyword.iskeyword(name) else name
            module = importlib.import_module(f"convdsl.cli.{word}")
            module.configure(command)
            command.finish(module.__doc__ or "", module.run)
    return parser


class _Version(argparse.Action):
    """`--version`, read only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from convdsl import __version__

        console.result(f"convdsl {__version__}")
        parser.exit()


class _Completion(argparse.Action):
    """`--print-completion SHELL`."""

    def __call__(
        self, parser: argparse.ArgumentParser, _: object, shell: object, *rest: object
    ) -> None:
        from convdsl.cli.completion import SHELLS, script

        if shell not in SHELLS:
            parser.error(f"no completion for {shell}: {', '.join(SHELLS)}")
        console.result(script(parser, str(shell)))
        parser.exit()


def _unknown_arguments(parser: Parser, unknown: Sequence[str]) -> str:
    if (said := parser.unknown_option(unknown)) is not None:
        return said
    if unknown[0] in parser.option_strings():
        return f"{unknown[0]} stands behind the command: {parser.prog} {unknown[0]}"
    return parser.too_many(unknown)
