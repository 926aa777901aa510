"""Names with dots, and outputs whose names are read again."""

from __future__ import annotations

import pytest

from elaborate.sources import build, error, layers, model, shape, weights


def test_a_dot_parts_the_name_of_a_layer_as_a_scope_would() -> None:
    dotted = model(
        'x -> conv(8, 3x3) as "features.0" -> relu -> conv(8, 3x3) as "features.2"\n'
        '  -> for i in range(2) { conv(8, 3x3) as "stages.{i}.conv" } -> output y'
    )
    scoped = model(
        'x -> scope features { conv(8, 3x3) as "0" } -> relu\n'
        "  -> scope more { conv(8, 3x3) } -> scope stages {\n"
        '      for i in range(2) { scope "{i}" { conv(8, 3x3) } } } -> output y'
    )
    assert weights(dotted) == [
        f"{layer}.{weight}"
        for layer in ("features.0", "features.2", "stages.0.conv", "stages.1.conv")
        for weight in ("weight", "bias")
    ]
    assert weights(scoped)[4:] == weights(dotted)[4:]
    assert layers(dotted)[0] == layers(scoped)[0] == "features.0"


def test_blocks_and_scopes_have_dotted_names_too() -> None:
    text = """
        block unit { conv(8, 3x3) }
        model m {
            input x: f32[N, 8, 32, 32]
            x -> unit() as "a.1" -> scope "b.c" { conv(8, 3x3) }
              -> seq "b.d" { relu -> unit } -> output y
        }
    """
    assert weights(build(text))[::2] == ["a.1.conv.weight", "b.c.conv.weight", "b.d.1.conv.weight"]


@pytest.mark.parametrize(
    "text",
    [
        'x -> relu as a -> relu as "a.b"',
        'x -> relu as "a.b" -> relu as a',
        'x -> relu as "a.b.c" -> relu as "a.b"',
        'x -> scope a { relu } -> relu as "a.b"',
        'x -> relu as "a.b" -> scope a { relu }',
        'x -> relu as "a.b" -> relu as "a.b"',
        'x -> relu as "x.b"',
    ],
)
def test_no_two_layers_come_to_one_name(text: str) -> None:
    assert error(f"{text} -> output y").code == "E0203"


@pytest.mark.parametrize("text", ["a.", ".a", "a..b", "a b", ""])
def test_what_stands_between_dots_is_a_name(text: str) -> None:
    assert error(f'x -> relu as "{text}" -> output y').code == "E0204"


def test_an_output_is_a_name_below() -> None:
    made = model(
        "x -> conv(4, 3x3) -> output low\n"
        "low -> maxpool(2) -> output small\n"
        "output both = concat(low, upsample(small, 2))"
    )
    assert shape(made, "both") == "[N, 8, 32, 32]"


def test_words_of_the_language_stay_what_they_are() -> None:
    made = model("x -> conv(6, 3x3) -> output tanh\nx -> tanh -> output z")
    assert shape(made, "z") == "[N, 8, 32, 32]"


def test_what_is_bound_stays_what_it_is() -> None:
    bound = "y = x -> conv(4, 3x3)\nx -> conv(6, 3x3) -> output y\n"
    assert shape(model(bound + "y -> relu -> output z"), "z") == "[N, 4, 32, 32]"
    again = "x -> conv(4, 3x3) -> output y\ny = y -> conv(2, 3x3)\ny -> relu -> output z"
    assert shape(model(again), "z") == "[N, 2, 32, 32]"


def test_outputs_are_names_in_their_own_block_alone() -> None:
    text = """
        block two { in -> conv(4, 1x1) -> output low
            low -> relu -> output high }
        model m {
            input x: f32[N, 8, 32, 32]
            a, b = x -> two
            a + b -> output c
        }
    """
    assert shape(build(text), "c") == "[N, 4, 32, 32]"
    before = text[: text.index("model")]
    assert error("a, b = x -> two\na + b + low -> output c", before).code == "E0201"
