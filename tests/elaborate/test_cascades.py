"""One mistake is told once: wherever an unknown name stands, nothing else is missed for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from convdsl import zoo
from convdsl.diagnostics import CompileError, Diagnostic, SourceFile
from convdsl.elaborate import elaborate
from convdsl.syntax import ast
from convdsl.syntax.parser import parse
from convdsl.syntax.walk import nodes
from elaborate.sources import build

FILES = sorted((Path(__file__).parent / "newcomers").glob("*.cnn"))
PARTS = 6
EXPRESSION = ast.Expression.__args__
BINDS = (ast.Let, ast.Assign, ast.Sink, ast.Output)


def places(tree: ast.File) -> Iterator[ast.Node]:
    """Expressions that bind nothing which others may read."""
    for node in nodes(tree):
        if isinstance(node, EXPRESSION) and not any(isinstance(n, BINDS) for n in nodes(node)):
            yield node


def diagnose(source: SourceFile, model: str | None = None) -> tuple[Diagnostic, ...]:
    try:
        elaborate(source, model=model, root=FILES[0].parent, zoo=zoo.folder())
    except CompileError as error:
        return error.diagnostics
    return ()


@pytest.mark.dear
@pytest.mark.drawn
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_unknown_name_anywhere(path: Path, part: int) -> None:
    text = path.read_text()
    tree = parse(SourceFile(path.name, text))
    models = [item.name.id for item in tree.items if isinstance(item, ast.Model)]
    model = models[part % len(models)] if len(models) > 1 else None
    told = 0
    for node in list(places(tree))[part::PARTS]:
        wrong = f"{text[: node.span.start]}nobody{text[node.span.end :]}"
        found = diagnose(SourceFile(str(path), wrong), model)
        if any(d.message == "unknown name `nobody`" for d in found):
            told += 1
            assert len(found) == 1, (node.span.location, node.span.text, found)
    assert told


@pytest.mark.parametrize(
    "body",
    [
        "y = nobody\nsoftmax(y, 1)",
        "y = nobody\nlinear(y, 10)",
        "y = nobody\nx -> concat(y, x, 1)",
        "for w in nobody { y = x -> conv(w, 1x1) }\ny -> relu",
        "if nobody { y = x } else { y = x -> relu }\ny -> relu",
        "repeat nobody { x -> relu -> output z }",
        "let k = for i in range(nobody) { i }\nx -> conv(k[2], 1x1)",
        "x -> conv(nobody, 1x1) -> conv(nobody, 1x1)",
    ],
)
def test_what_failed_is_not_missed_again(body: str) -> None:
    with pytest.raises(CompileError) as caught:
        build(f"model m {{\ninput x: f32[N, 8, 4, 4]\n{body}\n}}\n")
    assert [d.message for d in caught.value.diagnostics] == ["unknown name `nobody`"]


HEAD = "model m {\n    input x: f32[N, 8, 4, 4]\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD + "    x -> conv(8, 3x3) -> relu\n    3 -> relu -> output y\n}\n", "E0307"),
        (HEAD + "    x -> maxpool -> (3x3) -> output y\n}\n", "E0302"),
        (HEAD + "use\n    x -> relu -> output y\n}\n", "E0101"),
        (HEAD + "use }\n", "E0101"),
        (HEAD + "    x -> relu -> output y\nuse }\nmodel n {\n    input x: f32[N]\n}\n", "E0101"),
        (HEAD + "    let = 3\n    x -> relu\nlet a = [1, 2]\n}\n", "E0101"),
        ("default conv3(bias = false)\n" + (HEAD + "    x -> relu -> output y\n}\n")
         + "model n {\n    input x: f32[N]\n    x -> relu -> output y\n}\n", "E0201"),
    ],
)  # fmt: skip
def test_one_mistake_of_a_word(text: str, code: str) -> None:
    """As found by inserting, doubling and leaving out words of the zoo."""
    with pytest.raises(CompileError) as caught:
        build(text)
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value


def test_a_model_whose_name_is_taken_is_not_missed() -> None:
    """As `check` asks for it, by its name."""
    text = "block m(c) {\n    in -> conv(c, 1x1)\n}\n" + HEAD + "    x -> m(4) -> output y\n}\n"
    with pytest.raises(CompileError) as caught:
        elaborate(SourceFile("taken.cnn", text), model="m")
    assert [d.code for d in caught.value.diagnostics] == ["E0202"]


def test_a_result_that_goes_nowhere_is_told_where_nothing_else_is_wrong() -> None:
    with pytest.raises(CompileError) as caught:
        build(HEAD + "    x -> relu\n    x -> relu6 -> output y\n}\n")
    assert [d.code for d in caught.value.diagnostics] == ["E0409"]
