"""docs/language.md: every example runs; limits, operators and settings are the code's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from convdsl import zoo
from convdsl.elaborate import limits, load_file
from convdsl.ir.opdef import Required
from convdsl.ir.techniques import LOSSES, ONE_OF, SETTINGS, SOME_OF, Argument, Needed, Table
from convdsl.ops.joining import MOST_PARTS
from convdsl.syntax import limits as syntax_limits
from convdsl.syntax.format import format_source
from convdsl.syntax.words import KEYWORDS

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "language.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
TRAINING = "<!-- training: written by tests/docs, run `make golden` -->", "<!-- end of training -->"


@dataclass(frozen=True)
class Example:
    line: int
    flags: frozenset[str]
    text: str


def examples() -> list[Example]:
    pattern = re.compile(r"^```cnn([ a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        Example(TEXT.count("\n", 0, match.start()) + 1, frozenset(match[1].split()), match[2])
        for match in pattern.finditer(TEXT)
    ]


EXAMPLES = examples()


def source(example: Example) -> str:
    """The example as a whole file, in the one layout where it is itself."""
    if "body" in example.flags:
        inside = re.sub(r"^(?=.)", "    ", example.text, flags=re.MULTILINE)
        return f"model example {{\n    input x: f32[N, 64, 56, 56]\n{inside}}}\n"
    return example.text


def name(example: Example) -> str:
    return f"line-{example.line}"


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_example(example: Example, tmp_path: Path) -> None:
    (tmp_path / "blocks.cnn").write_text("block bottleneck(width) { conv(width, 1x1) }\n")
    (tmp_path / "example.cnn").write_text(source(example))
    model = load_file(tmp_path / "example.cnn", zoo=zoo.folder())
    assert model.outputs
    found = model.warnings
    assert not found, "\n\n".join(diagnostic.render() for diagnostic in found)


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_example_is_formatted(example: Example) -> None:
    assert format_source(source(example)) == source(example)


def test_tutorial_has_ten_steps() -> None:
    tutorial = TEXT[TEXT.index("## Tutorial") : TEXT.index("## Reference")]
    assert re.findall(r"^### (\d+)\.", tutorial, re.MULTILINE) == [str(i) for i in range(1, 11)]


def test_words_of_the_language() -> None:
    listed = re.search(r"These words are taken: `([^`]*)`", TEXT)
    assert listed is not None
    assert set(listed.group(1).split()) == KEYWORDS


def test_limits() -> None:
    table = TEXT[TEXT.index("## Limits") : TEXT.index("## Errors")]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE))
    assert rows["size of a source"] == f"{syntax_limits.SOURCE_BYTES:,} bytes"
    (words,) = (value for key, value in rows.items() if key.startswith("words of a source"))
    assert words == f"{syntax_limits.WORDS:,}"
    assert rows["open brackets at any place"] == str(syntax_limits.NESTING)
    assert rows["expressions and block instances within one another"] == f"{limits.DEPTH:,}"
    assert rows["operators in the graph"] == f"{limits.NODES:,}"
    assert rows["parts of a split, operands of a concat"] == str(MOST_PARTS)
    assert rows["steps of evaluation"] == f"{limits.STEPS:,}"
    assert rows["rounds of a loop, elements of a list"] == f"{limits.ITEMS:,}"
    assert limits.ITEMS == limits.ITERATIONS
    assert rows["elements of fixed kernels, all together"] == f"{limits.CONSTANTS:,}"
    assert rows["channels of an image to prepare"] == f"{limits.IMAGE_CHANNELS:,}"
    assert rows["characters of a computed text"] == f"{limits.TEXT:,}"
    assert rows["characters of a symbolic size, written out"] == f"{limits.DIM_TEXT:,}"
    assert rows["integers"] == f"{syntax_limits.INTEGER_BITS} bits and sign"
    files = f"{limits.IMPORT_DEPTH}, {limits.IMPORTED_FILES}"
    assert rows["imports within one another, files"] == files
    assert rows["diagnostics reported"] == str(syntax_limits.DIAGNOSTICS)


def shown(default: Any) -> str:
    if isinstance(default, Required | Needed):
        return "required"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if default is None or default == ():
        return "none"
    return f"`{default}`"


def techniques(table: Table) -> list[str]:
    """A row a technique, and a row for each argument of those that have it alike."""
    lines = ["| name | | arguments |", "|---|---|---|"]
    of: dict[tuple[str, str], list[str]] = {}
    known: dict[tuple[str, str], Argument] = {}
    for technique in table.values():
        named = " ".join(f"{a.name} = {plain(a.default)}," for a in technique.arguments)
        arguments = f"`{named.rstrip(',')}`" if named else ""
        doc = technique.doc.replace("|", "\\|")
        lines.append(f"| `{technique.name}` | {doc} | {arguments} |")
        for argument in technique.arguments:
            key = (argument.name, argument.doc)
            known[key] = argument
            of.setdefault(key, []).append(technique.name)
    lines += ["", "| argument | of | takes | |", "|---|---|---|---|"]
    for key, argument in known.items():
        names = "all" if len(of[key]) == len(table) > 1 else ", ".join(of[key])
        lines.append(f"| `{argument.name}` | {names} | {argument.takes.words} | {argument.doc} |")
    return lines


def plain(default: Any) -> str:
    """A default as the language writes it; `...` has to be said."""
    if isinstance(default, Needed):
        return "..."
    if isinstance(default, list):
        return f"[{', '.join(f'{item:.4g}' for item in default)}]"
    if isinstance(default, str):
        return f'"{default}"'
    return shown(default).strip("`")


def training() -> str:
    """The reference of `train` blocks, from the tables that read them."""
    lines = ["| setting | default | takes | |", "|---|---|---|---|"]
    for setting in SETTINGS.values():
        default = "none" if setting.default in (None, ()) else f"`{plain(setting.default)}`"
        lines.append(f"| `{setting.name}` | {default} | {setting.takes.words} | {setting.doc} |")
    for name, table in {"loss": LOSSES, **ONE_OF, **SOME_OF}.items():
        lines += ["", f"#### `{name}`", "", *techniques(table)]
    return "\n".join(lines)


def test_training_settings(request: pytest.FixtureRequest) -> None:
    check_section(request, *TRAINING, f"\n{training()}\n")


def check_section(request: pytest.FixtureRequest, begin: str, end: str, wanted: str) -> None:
    """What stands between two marks is this; it is written where golden files are."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    section, after = rest.split(end)
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(f"{before}{begin}{wanted}{end}{after}", encoding="utf-8")
        return
    assert section == wanted, "run `make golden`"
