"""The catalogue of mistakes: located, in words, with the right suggestion, without cascades."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from convdsl.diagnostics import CompileError, Diagnostic, SourceFile
from convdsl.elaborate import check_definitions, elaborate, load_file, parameter_value
from convdsl.training.judging import disagreements
from elaborate.mistakes import MISTAKES, Mistake

EXAMPLES = Path(__file__).parents[2] / "examples"


def diagnose(text: str, setting: str | None = None) -> tuple[Diagnostic, ...]:
    """What `check` says, and with `--set`."""
    name, _, value = (setting or "").partition("=")
    given = {name: parameter_value(value)} if setting else {}
    try:
        model = elaborate(SourceFile("mistake.cnn", text), parameters=given, zoo=EXAMPLES)
    except CompileError as error:
        return error.diagnostics
    return model.warnings + (disagreements(model) if model.training is not None else ())


@pytest.mark.dear
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake(mistake: Mistake, golden: Callable[[str, str], None]) -> None:
    found = diagnose(mistake.source, mistake.setting)
    rendered = "\n\n".join(diagnostic.render() for diagnostic in found)
    assert [d.code for d in found] == [mistake.code], rendered
    assert found[0].span is not None
    assert found[0].span.text
    assert all(len(line) > 1 for line in found[0].help), rendered
    if mistake.suggestion is not None:
        assert mistake.suggestion in "\n".join(found[0].help), rendered
    golden(f"diagnostics/{mistake.name}.txt", rendered + "\n")
    for line in "\n".join(d.render(width=80) for d in found).split("\n"):
        assert len(line) <= 80 or " " not in line.strip(" =|"), line


def test_the_catalogue_is_large_and_helpful() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 730
    assert sum(mistake.suggestion is not None for mistake in MISTAKES) >= 670


def test_independent_mistakes_come_in_one_go() -> None:
    found = diagnose("""block a(w) { conv(w, 3x3, strid = 2) -> rellu }
block b { in + (in -> conv(3, 1x1)) }
model m {
    input x: f32[N, 8, 32, 32]
    y = x -> a(4) -> conv(16, 3x3, pad = sme)
    z = y -> linear(10) -> nothing
    x -> b -> conv(7, 3x3, groups = 2) -> output out1
    y + z -> output out2
}
""")
    codes = [diagnostic.code for diagnostic in found]
    assert codes == ["E0301", "E0201", "E0305", "E0201", "E0501"]


def test_a_mistake_in_a_block_is_reported_once() -> None:
    found = diagnose("""block a { conv(8, 3x3, groups = 3) }
model m {
    input x: f32[N, 8, 32, 32]
    x -> a -> repeat 5 { a } -> a
}
""")
    assert len(found) == 1
    assert [frame.description for frame in found[0].frames] == ["a"]


def test_names_in_blocks_that_nothing_uses() -> None:
    found = diagnose("""block unused(width, act = rellu) {
    input a: f32[N, C, H, W]
    let twice = 2 * width + C
    for i, w in enumerate([1, 2]) { y = a -> conv(w + i, 3x3, strid = 2, pad = same) }
    preprocess a: resize(8)
    y -> conv(twic, 3x3) -> act -> output z
}
model m { input x: f32[N, 8, 32, 32]
    x -> relu
}
""")
    codes = [(d.code, d.span.text if d.span else "") for d in found]
    assert codes == [("E0301", "strid"), ("E0201", "twic"), ("E0201", "rellu")]


def test_a_file_of_blocks() -> None:
    check_definitions(SourceFile("blocks.cnn", "let w = 4\nblock b { conv(w, 3x3) -> relu }\n"))
    with pytest.raises(CompileError) as caught:
        check_definitions(SourceFile("blocks.cnn", "block b { conv(v, 3x3) }\nlet a = 1 / 0\n"))
    assert [d.code for d in caught.value.diagnostics] == ["E0405", "E0201"]


def test_the_chain_of_instantiations() -> None:
    (mistake,) = [m for m in MISTAKES if m.name == "skip-of-other-channels"]
    (found,) = diagnose(mistake.source)
    assert [f.description for f in found.frames] == [
        "bottleneck(width = 64)", "stage(width = 64)",
    ]  # fmt: skip
    assert [label.span.text for label in found.labels] == ["body", "skip"]
    assert "from `stage.bottleneck.bn_3`" in found.labels[0].text


def test_errors_in_an_imported_file_say_so(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "blocks.cnn").write_text("block b { conv(8, 3x3, groups = 3) }\n")
    (folder / "main.cnn").write_text(
        'use "blocks.cnn": b\nmodel m { input x: f32[N, 8, 4, 4]\nx -> b }\n'
    )
    with pytest.raises(CompileError) as caught:
        load_file(folder / "main.cnn")
    (found,) = caught.value.diagnostics
    assert found.span is not None
    assert found.span.source.path.endswith("blocks.cnn")
    assert found.frames[0].span is not None
    assert found.frames[0].span.source.path.endswith("main.cnn")


@pytest.mark.parametrize(
    ("wanted", "help"),
    [
        ("block.cnn", "did you mean `blocks.cnn`?"),
        ("parts/layrs.cnn", "did you mean `parts/layers.cnn`?"),
        ("layers.cnn", 'did you mean "parts/layers.cnn"?'),
        ("resnet.cnn", 'the zoo has one: "zoo:resnet.cnn"'),
        ("other.cnn", "paths begin at the importing file's own folder, net/"),
    ],
)
def test_a_file_that_is_not_there(tmp_path: Path, wanted: str, help: str) -> None:
    folder = tmp_path / "net"
    (folder / "parts").mkdir(parents=True)
    for name in ("blocks.cnn", "parts/layers.cnn"):
        (folder / name).write_text("block b { conv(8, 3x3) }\n")
    (folder / "main.cnn").write_text(
        f'use "{wanted}": b\nmodel m {{ input x: f32[N, 8, 4, 4]\nx -> b }}\n'
    )
    with pytest.raises(CompileError) as caught:
        load_file(folder / "main.cnn", zoo=EXAMPLES)
    (found,) = caught.value.diagnostics
    assert (found.code, found.help) == ("E0701", (help,))


def test_json() -> None:
    (found,) = diagnose("model m { input x: f32[N, 8]\nx -> rellu }\n")
    data = found.to_json()
    assert (data["file"], data["line"], data["column"]) == ("mistake.cnn", 2, 6)
    assert data["help"] == ["did you mean `relu`?"]
