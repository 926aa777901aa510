"""Print a script that completes commands, options, models and files in a shell.

Where it goes:

    source <(convdsl completion bash)      # ~/.bashrc
    source <(convdsl completion zsh)       # ~/.zshrc, after compinit
    convdsl completion fish > ~/.config/fish/completions/convdsl.fish

Without SHELL it is the one that $SHELL names. Models of the zoo, operators and passes are those of
this version: print the script anew after an update.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from convdsl.cli import console
from convdsl.cli.options import COMPLETES, completes
from convdsl.cli.parsing import suggestion
from convdsl.diagnostics import InputError

SHELLS = ("bash", "zsh", "tcsh", "fish", "powershell")


def configure(parser: argparse.ArgumentParser) -> None:
    completes(
        parser.add_argument(
            "shell", nargs="?", metavar="SHELL", help=f"one of {', '.join(SHELLS)}"
        ),
        "shell",
    )


def run(options: argparse.Namespace) -> int:
    shell = options.shell or os.path.basename(os.environ.get("SHELL", ""))  # noqa: PTH119  a name
    if shell not in SHELLS:
        near = suggestion(shell, SHELLS) or f": {', '.join(SHELLS)}"
        what = f"no completion for {shell}" if shell else "name a shell"
        raise InputError(f"{what}{near}")
    console.result(script(options.whole(), shell))
    return 0


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of a parser with all its commands; shtab is loaded only here."""
    import shtab

    made: dict[str, dict[str, Any]] = {}
    for action in _actions(parser):
        name: str | None = getattr(action, COMPLETES, None)
        if name is None:
            continue
        if name not in made:
            made[name] = KINDS[name].complete(name) if name in KINDS else shtab.FILE
        action.complete = made[name]  # pyright: ignore[reportAttributeAccessIssue]
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its commands."""
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        yield action
        choices: object = action.choices
        commands = cast("dict[str, object]", choices) if isinstance(choices, dict) else {}
        for command in commands.values():
            if isinstance(command, argparse.ArgumentParser):
                yield from _actions(command)


def _models() -> Iterable[str]:
    from convdsl import zoo

    return zoo.names()


def _operators() -> Iterable[str]:
    from convdsl.ops import OPERATORS

    return (op.name for op in OPERATORS)


def _passes() -> Iterable[str]:
    from convdsl.passes import PASSES

    return (one.name for one in PASSES)


def _codes() -> Iterable[str]:
    from convdsl.explanations import every

    return every()


def _machines() -> Iterable[str]:
    from convdsl.analysis.machine import MACHINES, MEASURED

    return (*MACHINES, MEASURED)


def _none() -> Iterable[str]:
    return ()


def _shells() -> Iterable[str]:
    return SHELLS


@dataclass(frozen=True, slots=True)
class Kind:
    """What an argument may be: words, and files whose names end so."""

    words: Callable[[], Iterable[str]] = _none
    ends: tuple[str, ...] = ()

    def complete(self, name: str) -> dict[str, Any]:
        """What shtab takes: in each shell a function, and the script that defines it."""
        called, words = f"_convdsl_{name}", sorted(self.words())
        patterns = [f"*.{end}" for end in self.ends]
        files = f"f:{{{','.join(patterns)}}}" if patterns else f"({' '.join(words)})"
        preamble = {
            "bash": _bash(called, words, patterns),
            "zsh": _zsh(called, words, patterns),
            "fish": _fish(called, words, self.ends),
            "powershell": _powershell(called, words, patterns),
        }
        return {
            "bash": called,
            "zsh": called,
            "tcsh": files,
            "fish": f"({called})",
            "powershell": called,
            "preamble": preamble,
        }


KINDS = {
    "model": Kind(_models, ("cnn", "onnx")),
    "network": Kind(_models, ("cnn", "onnx", "cdsl")),
    "source": Kind(ends=("cnn",)),
    "checked": Kind(_models, ("cnn", "cdsl", "toml")),
    "artifact": Kind(ends=("cdsl",)),
    "onnx": Kind(ends=("onnx",)),
    "name": Kind(_models),
    "operator": Kind(_operators),
    "pass": Kind(_passes),
    "code": Kind(_codes),
    "machine": Kind(_machines),
    "shell": Kind(_shells),
}
"""What arguments are completed with; any file where a kind is not named here."""


def _bash(called: str, words: list[str], patterns: list[str]) -> str:
    lines = [f"{called}() {{"]
    if words:
        lines.append(f'  compgen -W "{" ".join(words)}" -- "$1"')
    lines += [f"  compgen -f -X '!{pattern}' -- \"$1\"" for pattern in patterns]
    if patterns:
        lines.append('  compgen -d -- "$1"')
    return "\n".join([*lines, "}"])


def _zsh(called: str, words: list[str], patterns: list[str]) -> str:
    parts = [f"'words:name:({' '.join(words)})'"] if words else []
    if patterns:
        parts.append(f"'files:file:_files -g \"({'|'.join(patterns)})\"'")
    return f"{called}() {{\n  _alternative {' '.join(parts)}\n}}"


def _fish(called: str, words: list[str], ends: tuple[str, ...]) -> str:
    lines = [f"function {called}"]
    if words:
        lines.append(f"  printf '%s\\n' {' '.join(words)}")
    if ends:
        lines.append("  for found in (__fish_complete_path (commandline -ct))")
        matched = (
            f"string match -qr '(/|\\.({'|'.join(ends)}))$' -- (string split \\t -- $found)[1]"
        )
        lines.append(f"    {matched}; and printf '%s\\n' $found")
        lines.append("  end")
    return "\n".join([*lines, "end"])


def _powershell(called: str, words: list[str], patterns: list[str]) -> str:
    lines = [f"function {called} {{", "  param([string]$WordToComplete)"]
    if words:
        listed = ", ".join(f"'{word}'" for word in words)
        lines.append(f'  @({listed}) | Where-Object {{ $_ -like "$WordToComplete*" }}')
    if patterns:
        listed = ", ".join(f"'{pattern}'" for pattern in patterns)
        lines.append(
            f'  Get-ChildItem -Path "$WordToComplete*" -Include {listed} | ForEach-Object Name'
        )
    return "\n".join([*lines, "}"])
