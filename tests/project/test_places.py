"""Places in TOML: what stands there is what `tomllib` reads."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.project.places import Path, places

AWKWARD = '''# a comment with [brackets] = "and quotes"
models = [ # one
    "a # b.cnn", 'c]d.cnn',   # two
    """e
"f" = 1 \\""" g""",
]
"quoted key" . inner = '\\'   # no escape
dotted.name.here = 0x1F
when = 1979-05-27 07:32:00
inline = { a = { b = [1, [2, {c = 3.5e+3}]] }, "d}" = "}" , e.f = -inf }
empty = []
none = {}
long = \'\'\'
'quoted' ''two''
\'\'\'\'\'

[ budget . "my.net" ]
params = "5M"
[[several]]
x = true
[several.part]
y = 1
[[several]]
x = false
[[several.deep]]
z = 1
[[several.deep]]
z = 2
[after]
last = 9'''


def ways(value: Any, way: Path = ()) -> dict[Path, Any]:
    """Every value by the way that leads there."""
    found = {way: value} if way else {}
    parts = value.items() if isinstance(value, dict) else ()
    parts = enumerate(value) if isinstance(value, list) else parts
    for name, part in parts:
        found |= ways(part, (*way, name))
    return found


def check(text: str) -> None:
    found = places(text)
    known = ways(tomllib.loads(text))
    assert set(known) == set(found.values)
    for way, value in known.items():
        start, end = found.values[way]
        if (start, end) == found.keys.get(way):
            continue  # a heading, or a dotted key that makes a table
        assert tomllib.loads(f"x = {text[start:end]}")["x"] == value
    for way, (start, end) in found.keys.items():
        if text[start] != "[":
            assert list(tomllib.loads(f"{text[start:end]} = 1")) == [way[-1]]


def test_awkward_texts() -> None:
    check(AWKWARD)
    check("")
    check("a=1")
    check("a=[]\r\nb = 'x'\r\n[c]\r\n")
    found = places(AWKWARD)
    start, end = found.values["inline", "a", "b", 1, 1, "c"]
    assert AWKWARD[start:end] == "3.5e+3"
    start, end = found.keys["several", 1, "deep", 1, "z"]
    assert AWKWARD[start - len("[[several.deep]]\n") : end] == "[[several.deep]]\nz"
    start, end = found.values["models", 2]
    assert tomllib.loads(f"x = {AWKWARD[start:end]}")["x"] == 'e\n"f" = 1 """ g'


NAMES = st.text("ab_-1", min_size=1, max_size=4)
LEAVES = (
    st.integers(-99, 99)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("C",)), max_size=12)
)
VALUES = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(NAMES, x, max_size=3), max_leaves=8
)


def written(value: Any) -> str:
    """A value in TOML, in one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {written(part)}' for name, part in value.items())} }}"
    if isinstance(value, list):
        return f"[{' , '.join(map(written, value))} ]"
    return json.dumps(value, ensure_ascii=False)


@pytest.mark.dear
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=3))
def test_drawn_texts(top: dict[str, Any], inner: dict[str, Any]) -> None:
    lines = [f"{name} = {written(value)} # {name}" for name, value in top.items()]
    heading = "t" * 5
    for _ in range(2):
        lines += [f"[[{heading}]]", *(f'"{n}" = {written(v)}' for n, v in inner.items())]
    check("\n".join(lines))


@pytest.mark.parametrize(
    "text", ['a = "\\u0041]"\nb = 2', "a = '''x''''\nb = 2", 'a = """""x"""\nb = 2']
)
def test_what_follows_a_text(text: str) -> None:
    start, end = places(text).values["b",]
    assert text[start:end] == "2"
