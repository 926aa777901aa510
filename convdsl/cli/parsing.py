"""argparse with our manners: suggestions, plain errors, colour in help on terminals only."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import itertools
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from convdsl.cli.console import use_colour
from convdsl.spelling import nearest, those

_OPTION = re.compile(r"--?[A-Za-z]")

_FEW = 6  # names that a suggestion lists
_PIECE = 3  # letters of a piece of a name

_OF_ALL = ("--version", "--print-completion")
"""Options that stand before any command."""

_ELSEWHERE = {
    "learning-rate": "--lr",
    "jobs": "--threads",
    "num-workers": "--workers",
    "gpu": "--device cuda",
    "cuda": "--device cuda",
    "cpu-threads": "--threads",
    "dataset": "--data",
    "image": "--data",
    "images": "--data",
    "ckpt": "--weights",
    "model-path": "--weights",
    "json": "--format json",
    "batchsize": "--batch",
    "out": "--output",
    "shape": "--input",
    "input-shape": "--input",
    "imgsz": "--input",
    "opt": "--optimizer",
}
"""What other tools call options that a command may have."""


class Parser(argparse.ArgumentParser):
    """A parser that abbreviates nothing, exits with 2 and suggests what was meant."""

    def __init__(self, *, read: bool = True, **settings: Any) -> None:
        """`read`: whether it will parse anything. One that will not is a name in a list of commands
        and nothing else: twenty whole ones take longer than all options of the one that is read."""
        if not read:
            return
        super().__init__(
            **settings, allow_abbrev=False, formatter_class=_formatter(), exit_on_error=True
        )

    def finish(self, doc: str, run: Callable[[argparse.Namespace], int]) -> None:
        """Complete a subcommand: description from its module's docstring, common options."""
        summary, _, rest = inspect.cleandoc(doc).partition("\n")
        self.description = _filled(summary)
        self.epilog = "\n\n".join(map(_filled, rest.strip().split("\n\n"))) or None
        common = self.add_argument_group("common options")
        common.add_argument("-h", "--help", action="help", help="show this and exit")
        common.add_argument("-q", "--quiet", action="store_true", help="no notes, results only")
        common.add_argument("-v", "--verbose", action="store_true", help="say more")
        common.add_argument(
            "--color",
            choices=("auto", "always", "never"),
            default="auto",
            help="colour: on terminals (auto; NO_COLOR and FORCE_COLOR are heeded), always, never",
        )
        self.set_defaults(run=run, parser=self)

    def option_strings(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._given = list(args if args is not None else sys.argv[1:])
        return super().parse_known_args(args, namespace)

    def unknown_option(self, words: Sequence[str]) -> str | None:
        """What is said of the first word that looks like an option, and is none."""
        known = self.option_strings()
        for place, word in enumerate(words):
            if word == "--":
                return None
            name, _, value = word.partition("=")
            if _OPTION.match(name) and name not in known and not self._is_short(word):
                following = value or next(iter(words[place + 1 :]), "")
                return f"no option {word}{self._meant(name, following)}"
        return None

    def _meant(self, name: str, value: str) -> str:
        """What an option that is none was meant to be: of a letter, the only one that begins
        with it; where nothing is near, a parameter of the model."""
        known = self.option_strings()
        if len(name) == 2:
            begun = [option for option in known if option.startswith(f"-{name}")]
            return f"; did you mean {begun[0]}?" if len(begun) == 1 else ""
        other = _ELSEWHERE.get(name.lstrip("-").replace("_", "-"))
        if other is not None and other.split()[0] in known:
            return f"; did you mean {other}?"
        if (near := suggestion(name, known)) or self._subparsers is not None:
            return near
        if (of_all := nearest(name, _OF_ALL)) is not None:
            return f"; did you mean `convdsl {of_all}`?"
        if "--set" in known and name[:2] == "--" and value and value[0] != "-":
            word = name[2:].replace("-", "_")
            if "--data" in known and "--part" in known and word in _training_settings():
                return f"; a setting of the training is set by --set train.{word}={value}"
            if "--epochs" in known and word in _training_settings():
                return f"; a setting of the training is set by --set train.{word}={value}"
            return f"; a parameter of the model is set by --set {word}={value}"
        return ""

    def error(self, message: str) -> NoReturn:
        from convdsl.cli import console

        # What is no option comes first: what is missing beside it may be its value.
        given: list[str] = getattr(self, "_given", [])
        if message.startswith("argument COMMAND"):
            early = given[0] if given[0].startswith("-") else None
            slip = (
                early and f"{early} is none of `convdsl` itself: options stand behind the command"
            )
        else:
            slip = self.unknown_option(given)
        valued = self._valued(message)
        if valued is not None and slip is not None and "did you mean" not in slip:
            slip = None  # the value that is missing may begin with a dash
        console.error(slip or valued or f"{_kinder(message)}{self._misplaced(message)}")
        needed = [action for action in self._actions if action.required or self._is_plain(action)]
        formatter = self._get_formatter()
        formatter.add_usage(None, needed, [], "")
        usage = " ".join(formatter.format_help().split())
        self.exit(2, f"usage: {usage}; `{self.prog} --help` lists the options\n")

    def _misplaced(self, message: str) -> str:
        """Of an option that has to be given and is not, that a word stands where it is not read."""
        option = message.removeprefix("the following arguments are required: ")
        words = [word for word, value in self._pairs() if not value and word[:1] != "-"]
        if option == "IMAGE" and words and words[0].lower().endswith(_PICTURES):
            return f"; the model stands first: {self.prog} MODEL {shlex.quote(words[0])}"
        if option == message or not option.startswith("--") or ", " in option:
            return ""
        taken = sum(1 for action in self._actions if self._is_plain(action))
        plain = [word for word, before in self._pairs() if not word.startswith("-") and not before]
        more = plain[taken:]
        return f"; did you mean {option} {shlex.quote(more[0])}?" if more else ""

    def _pairs(self) -> list[tuple[str, bool]]:
        """The words given, and whether each is the value of the option before it."""
        takes = {o for a in self._actions if a.nargs != 0 for o in a.option_strings}
        given: list[str] = self._given
        return [(word, at > 0 and given[at - 1] in takes) for at, word in enumerate(given)]

    def too_many(self, unknown: Sequence[str]) -> str:
        """What is said of words that nothing takes: a name with spaces is in quotes."""
        words = [word for word, value in self._pairs() if not value and not word.startswith("-")]
        for start, end in itertools.combinations(range(len(words) + 1), 2):
            name = " ".join(words[start:end])
            if end - start > 1 and _is_file(name):
                return f"a name with spaces stands in quotes: {shlex.quote(name)}"
        return f"{unknown[0]} is one argument too many"

    def _valued(self, message: str) -> str | None:
        """Of an option without its value, what would stand there; of one with too much, which."""
        if ": ignored explicit argument" in message:
            options, _, word = message.removeprefix("argument ").partition(": ignored explicit ")
            return f"{options} takes no value: {word.removeprefix('argument ')}"
        if ": expected " not in message or "argument" not in message:
            return None
        names = message.removeprefix("argument ").partition(": ")[0]
        action = next((a for a in self._actions if "/".join(a.option_strings) == names), None)
        if action is None:
            return None
        words = action.metavar or action.dest.upper()
        text = words if isinstance(words, str) else " ".join(words)
        return f"{names}: a value is missing: {action.option_strings[0]} {text}"

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own passes over what cannot be written."""
        from convdsl.cli import console

        if message and file is sys.stdout:
            console.put(message)
        else:
            super()._print_message(message, file)

    def _is_short(self, word: str) -> bool:
        """Whether it is a short option with what follows it, as -qv is."""
        return word[1:2] != "-" and word[:2] in self.option_strings()

    @staticmethod
    def _is_plain(action: argparse.Action) -> bool:
        """Whether it is found by its place."""
        return not action.option_strings


def _filled(paragraph: str) -> str:
    """A paragraph as wide as the rest of the help; one with indented lines stays as it is."""
    import textwrap

    if re.search(r"^\s", paragraph, re.MULTILINE):
        return paragraph
    width = shutil.get_terminal_size().columns - 2  # as argparse has it
    return textwrap.fill(paragraph, width, break_long_words=False, break_on_hyphens=False)


def _training_settings() -> Sequence[str]:
    from convdsl.ir.training import Training

    return [field.name for field in dataclasses.fields(Training)]


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """`; did you mean X?` where one of the candidates begins with the word or is near, `; there are
    X, Y` where several begin with it, or have it as a part; else nothing."""
    names = list(candidates)
    begun = _with(word, names, lambda name: name.startswith(word))
    near = begun[0] if len(begun) == 1 else None if begun else nearest(word, names)
    if near is not None:
        return f"; did you mean {near}?"
    found = begun or _with(word, names, lambda name: word in re.split(r"[-_.]", name))
    return f"; {those([*found[:_FEW], *(['...'] if found[_FEW:] else [])])}" if found else ""


def _with(word: str, names: Iterable[str], holds: Callable[[str], bool]) -> list[str]:
    """Names that a word of some letters, and no option, is a piece of."""
    plain = len(word) >= _PIECE and not word.startswith("-")
    return [name for name in names if plain and name != word and holds(name)]


_CHOICES = {
    "gpu": "cuda",
    "nvidia": "cuda",
    "x86": "cpu",
    "torch": "pytorch",
    "fp16": "float16",
    "half": "float16",
    "f16": "float16",
    "bf16": "bfloat16",
    "tf32": "high",
    "fp32": "highest",
    "float32": "highest",
}
"""What choices are called elsewhere."""

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def _kinder(message: str) -> str:
    """argparse's `invalid choice` and such, in our words."""
    subject, separator, detail = message.partition(": invalid choice: ")
    if separator:
        word, _, choices = detail.partition(" (choose from ")
        names = [name.strip(" '\"") for name in choices.rstrip(")").split(",")]
        word = word.strip("'\"")
        other = _CHOICES.get(word.lower())
        near = f"; did you mean {other}?" if other in names else suggestion(word, names)
        what = subject.removeprefix("argument ")
        if what == "COMMAND" and word.lower().startswith("help"):
            return f"no command {word}: write `convdsl --help`, or `convdsl COMMAND --help`"
        if what == "COMMAND":
            return f"no command {word}" + (near or f"; there are {', '.join(names)}")
        return f"{what}: no choice {word}" + (near or f"; there are {', '.join(names)}")
    return message.removeprefix("argument ")


def _formatter() -> Any:
    """rich-argparse only where help goes to a terminal: loading it costs time."""
    asked = any(word in ("-h", "--help") for word in sys.argv[1:]) or len(sys.argv) == 1
    if asked and use_colour(sys.stdout):
        from rich_argparse import RawDescriptionRichHelpFormatter

        class Formatter(RawDescriptionRichHelpFormatter):
            group_name_formatter = str  # no Capitals For Every Word

        return Formatter
    return argparse.RawDescriptionHelpFormatter
