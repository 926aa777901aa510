"""`convdsl explain`: what a code means."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from convdsl.explanations import every


def test_a_code(convdsl) -> None:
    said = convdsl("explain", "E0501")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("error[E0501]: an operator objects\n\nShapes, types or attributes")
    assert "    y = x -> conv(32, 3x3)\n    x + y\n\nright:" in said.out
    assert convdsl("explain", " e0501") == said
    assert convdsl("explain", "W0201").out.startswith("warning[W0201]: a name that nothing uses\n")


def test_all_of_them(convdsl) -> None:
    listed = convdsl("explain").out
    assert all(code in listed and entry.title in listed for code, entry in every().items())
    rows = json.loads(convdsl("explain", "--format", "json").out)
    assert [row["code"] for row in rows] == list(every())
    assert {row["level"] for row in rows} == {"error", "warning"}


def test_json_and_markdown(convdsl) -> None:
    found = json.loads(convdsl("explain", "E0301", "--format", "json").out)
    assert (found["code"], found["level"]) == ("E0301", "error")
    assert found["wrong"] == "x -> conv(64, 3x3, strides = 2)\n"
    said = convdsl("explain", "E0301", "--format", "md").out
    assert said.startswith("### E0301: an unknown argument\n")
    assert "```cnn\nx -> conv(64, 3x3, stride = 2)\n```" in said


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("E501", "no code E501; did you mean E0501?"),
        ("e05O1", "no code e05O1; did you mean E0501?"),
        ("w05", "no code w05; so begin W0501, W0502"),
        ("E", "no code E; `convdsl explain` lists them"),
        ("relu", "no code relu; of operators `convdsl ops relu` tells"),
    ],
)
def test_what_is_no_code(convdsl, code: str, answer: str) -> None:
    assert convdsl("explain", code) == (2, "", f"error: {answer}\n")


def test_the_language_is_not_loaded_for_it() -> None:
    code = (
        "import sys; from convdsl.cli import main; assert main(['explain', 'E0501']) == 0\n"
        "loaded = ('lark', 'numpy', 'convdsl.syntax', 'convdsl.elaborate', 'convdsl.ops')\n"
        "print([name for name in loaded if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.endswith("\n[]\n")
