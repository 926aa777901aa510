"""Every published limit, at the limit and one past it (docs/language.md)."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

import pytest

import convdsl
from convdsl.diagnostics import CompileError, SourceFile
from convdsl.elaborate import limits, load_file
from convdsl.elaborate.session import Halt, Session
from convdsl.syntax import limits as syntax_limits
from convdsl.syntax.parser import parse
from elaborate.sources import build, error, errors, layers, model


def codes(text: str) -> list[str]:
    return [diagnostic.code for diagnostic in errors(text)]


class TestSource:
    def filler(self, size: int) -> str:
        body = "let a = 1\n"
        return body + "#" * (size - len(body))

    def test_bytes(self) -> None:
        assert parse(SourceFile("a", self.filler(syntax_limits.SOURCE_BYTES))).items
        with pytest.raises(CompileError, match="larger than 1,048,576 bytes"):
            parse(SourceFile("a", self.filler(syntax_limits.SOURCE_BYTES + 1)))

    def test_bytes_are_not_characters(self) -> None:
        text = "let a = 1\n#" + "é" * (syntax_limits.SOURCE_BYTES // 2)
        with pytest.raises(CompileError, match="larger than"):
            parse(SourceFile("a", text))

    def test_bytes_of_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "big.cnn"
        path.write_text(self.filler(syntax_limits.SOURCE_BYTES + 1))
        with pytest.raises(CompileError, match="larger than"):
            load_file(path)

    @pytest.mark.dear
    def test_words(self) -> None:
        def text(words: int) -> str:
            pairs, odd = divmod(words - 5, 2)
            return "let a = [" + "1," * pairs + "1" * odd + "]"

        assert parse(SourceFile("a", text(syntax_limits.WORDS))).items
        assert codes(text(syntax_limits.WORDS + 1)) == ["E0801"]

    def test_interpolations_count_as_words(self) -> None:
        assert codes('let a = "' + "{1}" * syntax_limits.WORDS + '"') == ["E0801"]

    @pytest.mark.parametrize(("opener", "closer"), ["()", "[]"])
    def test_nesting(self, opener: str, closer: str) -> None:
        def text(depth: int) -> str:
            return f"let a = {opener * depth}1{closer * depth}"

        assert parse(SourceFile("a", text(syntax_limits.NESTING))).items
        assert codes(text(syntax_limits.NESTING + 1)) == ["E0802"]

    def test_nesting_evaluates(self) -> None:
        depth = syntax_limits.NESTING - 1
        nested = "if true { " * depth + "relu" + " }" * depth
        assert layers(model(f"x -> {nested}")) == ["relu"]
        lists = "[" * depth + "1" + "]" * depth
        assert layers(model(f"let a = {lists}\nx -> relu")) == ["relu"]

    @pytest.mark.dear
    @pytest.mark.parametrize("text", ["-" * 10_000 + "1", "not " * 10_000 + "true",
                                      "1" + " + 1" * 10_000, "1" + " ** 1" * 10_000,
                                      "(1)" + ".a" * 10_000])  # fmt: skip
    def test_what_needs_no_brackets_is_not_nested(self, text: str) -> None:
        assert parse(SourceFile("a", f"let a = {text}")).items

    @pytest.mark.dear(share=4)
    def test_long_chains_evaluate(self) -> None:
        assert layers(model(f"assert {'1 + ' * 10_000} 0 == 10000\nx -> relu")) == ["relu"]
        assert layers(model(f"let a = {'-' * 10_001}1\nassert a == -1\nx -> relu")) == ["relu"]

    def test_integers(self) -> None:
        assert parse(SourceFile("a", f"let a = {2**63 - 1}")).items
        assert codes(f"let a = {2**63}") == ["E0106"]
        assert codes("let a = " + "9" * 100_000) == ["E0106"]

    def test_diagnostics(self) -> None:
        many = "\n".join(f"let a{i} = nothing{i}" for i in range(200))
        assert len(errors(many)) == syntax_limits.DIAGNOSTICS


class TestComputed:
    @pytest.mark.parametrize(
        "expression",
        [
            "2 ** 64", "2 ** 2 ** 2 ** 2 ** 2 ** 2", "9223372036854775807 + 1", "3 ** 9999999999",
            "9223372036854775807 * 9223372036854775807", "sum([9223372036854775807, 1])",
        ],
    )  # fmt: skip
    def test_numbers_are_bounded(self, expression: str) -> None:
        assert error(f"let a = {expression}\nx -> relu").code == "E0806"

    def test_a_number_at_the_limit(self) -> None:
        found = error("let a = 2 ** 62 * 2\nx -> relu")
        assert found.code == "E0806"
        assert layers(model("let a = (2 ** 62 - 1) * 2 + 1\nx -> relu")) == ["relu"]

    def test_text(self) -> None:
        double = "\n".join(['let t0 = "aaaaaaaaaa"'] + [f"let t{i + 1} = t{i} + t{i}"
                                                       for i in range(40)])  # fmt: skip
        assert error(f"{double}\nx -> relu").code == "E0806"

    def test_lists(self) -> None:
        at = f"let a = [0] * {limits.ITEMS}\nx -> relu"
        assert layers(model(at)) == ["relu"]
        assert error(f"let a = [0] * {limits.ITEMS + 1}\nx -> relu").code == "E0806"
        assert layers(model(f"let a = range({limits.ITEMS})\nx -> relu")) == ["relu"]
        assert error(f"let a = range({limits.ITEMS + 1})\nx -> relu").code == "E0806"

    def test_lists_of_shared_lists(self) -> None:
        double = "\n".join(["let t0 = [1]"] + [f"let t{i + 1} = [t{i}, t{i}]" for i in range(60)])
        assert error(f"{double}\nx -> relu").code == "E0806"

    def test_symbolic_sizes(self) -> None:
        steps = "\n".join(["let t0 = x.batch + 1"] + [
            f"let t{i + 1} = (t{i} // 3) * (t{i} // 5 + 1)" for i in range(60)
        ])  # fmt: skip
        assert error(f"{steps}\nx -> relu").code == "E0806"

    def test_shapes_that_grow(self) -> None:
        found = error("x -> repeat 200 { concat(in, in, axis = 2) }")
        assert found.code == "E0806"


class TestExpansion:
    def test_rounds(self) -> None:
        assert layers(model(f"repeat {limits.ITERATIONS} {{ }}\nx -> relu")) == ["relu"]
        assert error(f"repeat {limits.ITERATIONS + 1} {{ }}\nx -> relu").code == "E0805"

    def test_steps(self) -> None:
        found = error("repeat 20000 { repeat 20000 { } }\nx -> relu")
        assert found.code == "E0805"

    @pytest.mark.dear
    @pytest.mark.parametrize(
        "body",
        [
            "let b = a == [0] * 20000",
            "let b = a + []",
            "let b = sum(a)",
            'let b = "{t}{t}"',
            "let b = 1 in a",
            "let b = t + t == t",
            "let b = h // 7",
        ],
    )
    def test_long_values_count_as_many_steps(self, body: str) -> None:
        """Loops that handle a long value in every round end as early as others."""
        text = "\n".join(
            [
                "let a = [0] * 19999",
                f'let t = "{"t" * 4000}"',
                f"let h = {' + '.join(f'(x.batch + {i}) // {i + 2}' for i in range(40))}",
                f"repeat 20000 {{ {body} }}",
                "x -> relu",
            ]
        )
        assert error(text).code == "E0805"

    def test_fixed_kernels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "CONSTANTS", 2 * 8 * 8 * 3 * 3)
        fixed = "conv(8, 3x3, weight = 1, bias = false)"
        assert len(layers(model(f"x -> repeat 2 {{ {fixed} }}"))) == 2
        assert error(f"x -> repeat 3 {{ {fixed} }}").code == "E0806"

    def test_a_fixed_kernel_of_613_gigabytes(self) -> None:
        found = error("x -> conv(4096, 99x99) -> conv(4096, 99x99, weight = 1, bias = false)")
        assert found.code == "E0806"

    def test_parts(self) -> None:
        for parts, found in ((256, []), (257, ["E0501"])):
            text = f"model m {{ input i: f32[N, {parts}]\ni -> split({parts}) -> concat }}"
            assert (codes(text) if found else []) == found
            assert found or build(text).outputs

    def test_operands_of_a_concat(self) -> None:
        for operands, found in ((256, []), (257, ["E0501"])):
            text = f"let t = for i in range({operands}) {{ x }}\ny = concat(t)\ny -> relu"
            if found:
                assert error(text).code == found[0]
            else:
                assert layers(model(text)) == ["concat", "relu"]

    @pytest.mark.dear
    def test_many_parts_are_counted_and_compiled_at_once(self) -> None:
        """256 parts take 3 s on a shared Zen 5 core, 100 took 20 s for the report alone."""
        text = "model m { input i: f32[N, 512, 4, 4]\ni -> split(256) -> concat -> output y }"
        made = convdsl.parse(text)
        start = time.process_time()
        figures = convdsl.report(made, batch=1)
        assert len(figures.to_json()["layers"]) == 2
        convdsl.compile(made, "random:0", batch=1, threads=1, cache=False)
        assert time.process_time() - start < 15

    @pytest.mark.dear(share=4)
    def test_many_tensors_count_as_many_steps(self) -> None:
        many = "let t = for i in range(256) { x }\nfor i in range(900) { y = concat(t) }\nx -> relu"
        assert error(many).code == "E0805"
        found = errors("model m { input i: f32[N, 256]\ni -> repeat 999 { split(256) -> concat } }")
        assert [d.code for d in found] == ["E0805"]

    def test_channels_of_an_image(self) -> None:
        for channels, found in (
            (limits.IMAGE_CHANNELS, []),
            (limits.IMAGE_CHANNELS + 1, ["E0901"]),
        ):
            steps = "preprocess i: normalize(mean = 1, std = 1)\n"
            text = f"model m {{ input i: f32[N, {channels}, 8, 8]\n{steps}i -> relu }}"
            assert (codes(text) if found else []) == found
            assert found or build(text).preprocessing is not None

    def test_nodes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "NODES", 300)
        assert len(layers(model("x -> repeat 300 { relu }"))) == 300
        assert error("x -> repeat 301 { relu }").code == "E0803"

    @pytest.mark.dear(share=4)
    def test_the_published_number_of_nodes(self) -> None:
        assert limits.NODES == 5_000
        assert len(layers(model("x -> repeat 5000 { relu }"))) == 5_000
        assert error("x -> repeat 5001 { relu }").code == "E0803"

    def test_blocks_that_double(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "NODES", 1_000)
        blocks = "block b0 { relu }\n" + "\n".join(
            f"block b{i + 1} {{ b{i} -> b{i} }}" for i in range(40)
        )
        text = f"{blocks}\nmodel m {{ input x: f32[N, 3, 8, 8]\nx -> b40 }}"
        assert codes(text) == ["E0803"]

    def test_endless_recursion(self) -> None:
        assert error("x -> b", "block b { relu -> b }").code == "E0802"

    def test_depth(self) -> None:
        block = "block b(n) { if n == 0 { relu } else { b(n - 1) } }"
        assert layers(model("x -> b(100)", block))
        assert error("x -> b(2000)", block).code == "E0802"

    def test_depth_is_counted(self) -> None:
        session = Session()
        span = SourceFile("a", "x").span(0, 1)
        for _ in range(limits.DEPTH):
            session.enter(span, ())
        with pytest.raises(Halt):
            session.enter(span, ())
        assert [d.code for d in session.diagnostics] == ["E0802"]

    def test_python_is_left_as_it_was(self) -> None:
        """The recursion limit and the search for garbage, also after an error."""
        for collects in (True, False):
            (gc.enable if collects else gc.disable)()
            before = sys.getrecursionlimit()
            try:
                model("x -> relu")
                assert error("x -> b", "block b { relu -> b }").code == "E0802"
                assert (sys.getrecursionlimit(), gc.isenabled()) == (before, collects)
            finally:
                gc.enable()

    def test_a_short_text_asks_for_gigabytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "NODES", 1_000)
        assert error("x -> for a in range(9999) { for b in range(9999) { conv(8, 3x3) } }",
                     ).code == "E0803"  # fmt: skip


class TestImports:
    def chain(self, folder: Path, length: int) -> Path:
        """length files, each importing the next."""
        for i in range(length):
            text = f'use "f{i + 1}.cnn": b\n' if i + 1 < length else "block b { relu }\n"
            if i == 0:
                text += "model m { input x: f32[N, 3, 8, 8]\nx -> b }\n"
            (folder / f"f{i}.cnn").write_text(text)
        return folder / "f0.cnn"

    def test_depth(self, tmp_path: Path) -> None:
        at = self.chain(tmp_path, limits.IMPORT_DEPTH)
        assert layers(load_file(at)) == ["b.relu"]

    def test_past_the_depth(self, tmp_path: Path) -> None:
        with pytest.raises(CompileError, match="imports nest deeper than 16"):
            load_file(self.chain(tmp_path, limits.IMPORT_DEPTH + 1))

    @pytest.fixture
    def wide(self, tmp_path: Path) -> Path:
        for i in range(limits.IMPORTED_FILES + 1):
            (tmp_path / f"f{i}.cnn").write_text(f"let a{i} = 1\n")
        return tmp_path

    @pytest.mark.dear(share=4)
    @pytest.mark.parametrize("extra", [0, 1])
    def test_files(self, wide: Path, extra: int) -> None:
        uses = "\n".join(f'use "f{i}.cnn": a{i}' for i in range(limits.IMPORTED_FILES + extra))
        path = wide / "main.cnn"
        path.write_text(f"{uses}\nmodel m {{ input x: f32[N, 3, 8, 8]\nx -> relu }}\n")
        if extra:
            with pytest.raises(CompileError, match="more than 256 files"):
                load_file(path)
        else:
            assert layers(load_file(path)) == ["relu"]


def test_python_limits_are_put_back() -> None:
    import sys

    before = sys.getrecursionlimit()
    build("model m { input x: f32[N, 3, 8, 8]\nx -> relu }")
    assert sys.getrecursionlimit() == before
