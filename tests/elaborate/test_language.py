"""What the language can say, one construct at a time."""

from __future__ import annotations

import numpy as np
import pytest

import convdsl
from elaborate.sources import build, error, errors, layers, model, shape, weights


class TestChains:
    def test_chain(self) -> None:
        made = model("x -> conv(16, 3x3) -> relu -> output y")
        assert shape(made, "y") == "[N, 16, 32, 32]"
        assert layers(made) == ["conv", "relu"]

    def test_the_last_value_is_the_output(self) -> None:
        assert shape(model("x -> conv(16, 3x3)")) == "[N, 16, 32, 32]"

    def test_out_is_the_output(self) -> None:
        assert shape(model("out = x -> conv(16, 3x3)\ny = out -> relu")) == "[N, 16, 32, 32]"

    def test_in_is_the_only_input(self) -> None:
        assert shape(model("conv(16, 3x3) -> relu")) == "[N, 16, 32, 32]"

    def test_chains_bind_loosest(self) -> None:
        made = model("a = x -> relu\nx + a -> conv(4, 1x1)")
        assert [node.op.name for node in made.graph.op_nodes()] == ["relu", "add", "conv"]

    def test_a_line_may_start_with_an_arrow_or_end_with_one(self) -> None:
        made = model("x -> relu\n   # a comment between\n\n  -> relu ->\n  relu")
        assert layers(made) == ["relu", "relu_2", "relu_3"]

    def test_function_form(self) -> None:
        assert shape(model("relu(conv(x, 16, 3x3, stride = 2))")) == "[N, 16, 16, 16]"

    def test_piped_first_then_given(self) -> None:
        made = model("y = x -> conv(4, 1x1)\nx -> concat(y)")
        (node,) = [n for n in made.graph.op_nodes() if n.op.name == "concat"]
        assert [v.name for v in node.data_inputs] == ["x", "conv"]

    def test_list_of_tensors_flows(self) -> None:
        assert shape(model("[x, x, x] -> concat")) == "[N, 24, 32, 32]"

    def test_tensor_arithmetic(self) -> None:
        made = model("y = x -> avgpool(global)\nx * y - x / 2 + 1.5")
        names = [n.op.name for n in sorted(made.graph.op_nodes(), key=lambda n: n.id)]
        assert names == ["avg_pool", "mul", "div", "sub", "add"]

    def test_numbers_become_constants(self) -> None:
        made = model("x * 3")
        assert float(made.graph.states["mul.value"].data.ravel()[0]) == 3.0
        assert made.graph.states["mul.value"].role.value == "constant"


class TestBlocks:
    def test_defaults_and_keywords(self) -> None:
        block = "block b(width, kernel = 3x3, stride = 1) { conv(width, kernel, stride) }"
        assert shape(model("x -> b(4)", block)) == "[N, 4, 32, 32]"
        assert shape(model("x -> b(4, stride = 2)", block)) == "[N, 4, 16, 16]"
        assert shape(model("x -> b(stride = 4, width = 2 * 4)", block)) == "[N, 8, 8, 8]"

    def test_a_default_may_use_an_earlier_parameter(self) -> None:
        block = "block b(width, hidden = width * 4) { conv(hidden, 1x1) -> conv(width, 1x1) }"
        assert model("x -> b(2)", block).graph.states["b.conv.weight"].type.shape[0] == 8

    def test_blocks_and_operators_as_arguments(self) -> None:
        before = """block inner(w) { conv(w, 1x1) }
        block b(kind, act = relu) { kind(4) -> act }"""
        made = model("x -> b(inner, act = relu6)", before)
        assert layers(made) == ["b.inner.conv", "b.relu6"]

    def test_an_activation_made_from_a_chain(self) -> None:
        made = model("let act = bn -> relu\nx -> act -> conv(4, 1x1)")
        assert layers(made) == ["act.bn", "act.relu", "conv"]

    def test_several_inputs(self) -> None:
        before = "block fuse(w) {\ninput a, b\na + (b -> conv(w, 1x1)) }"
        for call in ("fuse(x, y, 8)", "[x, y] -> fuse(8)", "x -> fuse(y, 8)",
                     "fuse(8, a = x, b = y)", "x -> fuse(8, b = y)"):  # fmt: skip
            made = model(f"y = x -> relu\n{call}", before)
            assert layers(made) == ["relu", "fuse.conv", "fuse.add"]
            (add,) = [n for n in made.graph.op_nodes() if n.op.name == "add"]
            assert add.inputs["a"].name == "x"

    def test_several_results(self) -> None:
        before = """block two {
            in -> conv(4, 1x1) -> output low
            in -> conv(6, 1x1) -> output high
        }"""
        made = model("a, b = x -> two\nr = x -> two\nconcat(a, b, r.high, r.low)", before)
        assert shape(made) == "[N, 20, 32, 32]"

    @pytest.mark.parametrize(
        ("short", "long"),
        [
            ("x -> conv(8, 3x3) + x -> relu", "a = x -> conv(8, 3x3)\na + x -> relu"),
            ("x -> relu * 2 - x ** 2", "a = x -> relu\na * 2 - x ** 2"),
            ("x -> reduce_sum(1) ** 0.5 + 1", "a = x -> reduce_sum(1)\na ** 0.5 + 1"),
            ("x -> repeat 2 { relu } + x", "a = x -> repeat 2 { relu }\na + x"),
            ("x -> { relu + in }".replace("{", "if true {"), "a = x -> relu\na + x"),
            ("x -> relu + x as total -> bn", "a = x -> relu\na + x as total -> bn"),
            ("x -> max(x) + x", "a = max(x, x)\na + x"),
            ("let f = relu -> conv(8, 1x1) + x\nx -> f", "a = x -> relu -> conv(8, 1x1)\na + x"),
        ],
    )
    def test_stages_go_on_with_signs(self, short: str, long: str) -> None:
        def steps(text: str) -> list[tuple[str, list[str]]]:
            graph = model(text).graph
            order = {node.name: str(i) for i, node in enumerate(graph.op_nodes())}
            return [
                (
                    n.op.name,
                    [order.get(v.node.name, v.name.removeprefix("f.")) for v in n.inputs.values()],
                )
                for n in graph.op_nodes()
            ]

        assert steps(short) == steps(long)

    def test_names_are_put_out_under_themselves(self) -> None:
        before = """block two {
            low, high = in -> conv(10, 1x1) -> split([4, 6])
            output low, high
        }"""
        made = model("r = x -> two\ny = concat(r.high, r.low)\noutput y, x\noutput z = y", before)
        assert list(made.graph.outputs) == ["y", "x", "z"]
        assert shape(made, "y") == shape(made, "z") == "[N, 10, 32, 32]"

    def test_a_list_as_result(self) -> None:
        before = "block pyramid { out = [in, in -> maxpool(2)] }"
        made = model("levels = x -> pyramid\nlevels[1] -> output y", before)
        assert shape(made, "y") == "[N, 8, 16, 16]"

    def test_typed_inputs_bind_sizes(self) -> None:
        before = "block b {\ninput t: f32[N, C, H, W]\nt -> conv(2 * C, 1x1) }"
        assert shape(model("x -> b", before)) == "[N, 16, 32, 32]"

    def test_a_model_inside_a_model(self) -> None:
        text = """model inner(w = 4) { input t: f32[N, 8, 32, 32]
            t -> conv(w, 1x1) -> output y }
        model outer { input x: f32[N, 8, 32, 32]
            x -> inner(w = 6) -> relu }"""
        with pytest.raises(Exception, match="holds 2 models"):
            build(text)

    def test_inlined(self) -> None:
        before = "block b(w) { conv(w, 1x1) -> bn }"
        made = model("x -> b(4) as _ -> b(5) as _", before)
        assert layers(made) == ["conv", "bn", "conv_2", "bn_2"]

    def test_a_block_may_use_a_later_one(self) -> None:
        assert layers(model("x -> a", "block a { b }\nblock b { relu }")) == ["a.b.relu"]

    def test_recursion_ends_with_a_condition(self) -> None:
        before = """block unet(depth) {
            if depth == 0 { conv(8, 3x3) }
            else { in + (in -> conv(8, 3x3) -> unet(depth - 1)) }
        }"""
        assert len(layers(model("x -> unet(3)", before))) == 7


class TestCompileTime:
    @pytest.mark.parametrize(
        ("expression", "value"),
        [
            ("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("7 // 2", 3), ("7 % 4", 3), ("-7 // 2", -4),
            ("6 / 3", 2), ("2 ** 3 ** 2", 512), ("-2 ** 2", -4), ("2 ** -1 * 4", 2.0),
            ("10 - 3 - 2", 5), ("min(3, 2, 5)", 2), ("max([3, 4])", 4), ("floor(2.7)", 2),
            ("ceil(2.1)", 3), ("round(2.5)", 3), ("round_to(30, 8)", 32), ("round_to(3, 8)", 8),
            ("round_to(11, 8)", 16), ("round_to(12, 8)", 16), ("abs(-3)", 3), ("len([1, 2])", 2),
            ("sum([1, 2, 3])", 6), ("sum(range(5))", 10), ("range(2, 8, 3)[1]", 5),
            ("len(3x3)", 2), ("(3x5)[1]", 5), ("[1, 2, 3][-1]", 3), ("log2(8)", 3),
            ("if 2 > 1 { 4 } else { 5 }", 4), ("if false { 4 } else if true { 6 } else { 5 }", 6),
            ("sum(for i in range(4) { i * i })", 14), ("sum(repeat 3 { 2 })", 6),
            ("sum(for a, b in [[1, 2], [3, 4]] { a * b })", 14), ("x.channels", 8),
            ("x.height * x.width", 1024), ("x.shape[1]", 8), ("x.rank", 4), ("len(x.space)", 2),
            ("1_000 - 996", 4), ("sqrt(16)", 4.0), ("len(zip([1, 2], [3, 4]))", 2),
            ("enumerate([5, 6])[1][0]", 1), ("reversed([1, 2])[0]", 2), ("--4", 4),
            ('len("abc")', 3), ("sum([1] * 4)", 4), ("sum([1] + [2])", 3),
        ],
    )  # fmt: skip
    def test_value(self, expression: str, value: float) -> None:
        made = model(f"assert {expression} == {value}\nx -> relu")
        assert layers(made) == ["relu"]

    @pytest.mark.parametrize(
        "condition",
        [
            "1 < 2 <= 2", "not 1 > 2", "true and not false", "false or true", "3 in [1, 3]",
            "not 2 in [1, 3]", "\"a\" + \"b\" == \"ab\"", "[1, 2] == [1, 2]", "3x3 == 3x3",
            "true != false", "1 == 1.0", "not not true", "x.batch >= 1", "x.batch * 2 != 0",
            "x.batch + 1 > x.batch", "2 * x.batch == x.batch + x.batch", "1 != true",
        ],
    )  # fmt: skip
    def test_condition(self, condition: str) -> None:
        assert layers(model(f"assert {condition}\nx -> relu")) == ["relu"]

    def test_interpolation(self) -> None:
        found = error('let c = 5\nassert c % 2 == 0, "{c} channels, {x.shape}, \\{\\} {[1, 2.5]}"')
        assert found.message == "5 channels, [N, 8, 32, 32], {} [1, 2.5]"
        assert found.code == "E0406"

    def test_parameters_from_outside(self) -> None:
        text = """model m(width = 1.0, depths = [1, 2], act = relu) {
            input x: f32[N, 3, 8, 8]
            x -> for d in depths { repeat d { conv(round_to(16 * width, 8), 3x3) -> act } }
        }"""
        assert shape(build(text)) == "[N, 16, 8, 8]"
        made = build(text, width=0.5, depths=[4], act="relu6")
        assert shape(made) == "[N, 8, 8, 8]"
        assert layers(made).count("relu6") == 1
        assert len(layers(made)) == 8
        assert made.parameters == {"width": 0.5, "depths": [4], "act": "relu6"}

    def test_variables_are_those_of_the_block(self) -> None:
        made = model("y = x\nfor i in range(3) { y = y -> conv(4 + i, 1x1) }\ny -> relu")
        assert shape(made) == "[N, 6, 32, 32]"

    def test_lists_collect_tensors(self) -> None:
        made = model("""skips = []
        y = x
        for i in range(3) {
            y = y -> conv(4, 1x1)
            skips = skips + [y]
        }
        concat(skips)""")
        assert shape(made) == "[N, 12, 32, 32]"


class TestFlow:
    def test_repeat_makes_new_layers(self) -> None:
        made = model("x -> repeat 3 { conv(8, 3x3) -> relu }")
        assert layers(made) == ["conv", "relu", "conv_2", "relu_2", "conv_3", "relu_3"]

    def test_repeat_nothing(self) -> None:
        assert layers(model("x -> repeat 0 { conv(8, 3x3) } -> relu")) == ["relu"]

    def test_for_folds_in_a_chain(self) -> None:
        made = model("x -> for w in [4, 6] { conv(w, 1x1) }")
        assert shape(made) == "[N, 6, 32, 32]"

    def test_for_collects_as_a_value(self) -> None:
        made = model("concat(for w in [4, 6] { x -> conv(w, 1x1) })")
        assert shape(made) == "[N, 10, 32, 32]"

    def test_densenet(self) -> None:
        made = model("x -> repeat 3 { concat(in, in -> conv(4, 3x3)) }")
        assert shape(made) == "[N, 20, 32, 32]"

    def test_if_in_a_chain(self) -> None:
        for flag, wanted in (("true", ["conv", "relu"]), ("false", ["relu"])):
            assert layers(model(f"x -> if {flag} {{ conv(8, 1x1) }} -> relu")) == wanted

    def test_if_at_the_start_of_a_chain_passes_in_on(self) -> None:
        before = "block b(wide) { if wide { conv(16, 1x1) } -> conv(4, 1x1) }"
        assert len(layers(model("x -> b(true)", before))) == 2
        assert len(layers(model("x -> b(false)", before))) == 1

    def test_if_as_a_value(self) -> None:
        made = model("y = if x.channels == 8 { x } else { x -> conv(8, 1x1) }\ny -> relu")
        assert layers(made) == ["relu"]

    def test_several_outputs_in_a_loop(self) -> None:
        made = model('for i in range(2) { x -> conv(i + 1, 1x1) -> output "p{i}" }')
        assert list(made.outputs) == ["p0", "p1"]

    def test_a_loop_without_rounds_is_no_waste(self) -> None:
        made = model('for i in range(0) { x -> conv(1, 1x1) -> output "p{i}" }\nx -> relu')
        assert layers(made) == ["relu"]

    @pytest.mark.parametrize(
        "body", ["x -> relu\nx -> relu6", "out = x -> relu\nx -> relu6",
                 "x -> relu -> output y\nx -> relu6", "x -> b"],
    )  # fmt: skip
    def test_results_are_used(self, body: str) -> None:
        assert error(body, "block b { out = in -> relu\nin -> relu6 }").code == "E0409"

    def test_output_statement(self) -> None:
        assert list(model("output y = x -> relu\noutput z = x").outputs) == ["y", "z"]


class TestNames:
    def test_as(self) -> None:
        made = model("x -> conv(4, 1x1) as stem -> bn as norm -> conv(4, 1x1)")
        assert layers(made) == ["stem", "norm", "conv"]
        assert "norm.running_mean" in weights(made)

    def test_interpolated(self) -> None:
        made = model('x -> for i in range(2) { conv(4, 1x1) as "layer{i + 1}" }')
        assert layers(made) == ["layer1", "layer2"]

    def test_seq_counts_children(self) -> None:
        made = model("x -> seq features { conv(4, 1x1) -> relu -> conv(4, 1x1) -> maxpool(2) }")
        assert weights(made) == [f"features.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")]

    def test_seq_counts_through_loops(self) -> None:
        made = model("x -> seq f { conv(4, 1x1) -> repeat 2 { relu -> conv(4, 1x1) } }")
        assert layers(made) == ["f.0", "f.1", "f.2", "f.3", "f.4"]

    def test_mobilenet_v2_names(self) -> None:
        before = """block cbr(w, k) { seq { conv(w, k) -> bn -> relu6 } as _ }
        block residual(w) { seq conv { seq { conv(w, 1x1) -> bn } -> conv(8, 1x1) -> bn } }"""
        before = before.replace("block cbr(w, k) { seq { conv(w, k) -> bn -> relu6 } as _ }\n", "")
        made = model("x -> seq features { conv(8, 1x1) -> residual(4) }", before)
        assert "features.1.conv.0.0.weight" in weights(made)
        assert "features.1.conv.2.running_var" in weights(made)

    def test_a_named_child_takes_a_position(self) -> None:
        made = model("x -> seq f { conv(4, 1x1) -> bn as norm -> conv(4, 1x1) }")
        assert layers(made) == ["f.0", "f.norm", "f.2"]

    def test_operators_take_no_position(self) -> None:
        made = model("x -> seq f { in + in -> conv(4, 1x1) }")
        assert layers(made) == ["f.add", "f.0"]

    def test_scope(self) -> None:
        made = model('x -> scope "part{1}" { conv(4, 1x1) -> relu }')
        assert layers(made) == ["part1.conv", "part1.relu"]

    def test_arithmetic_with_a_name(self) -> None:
        assert layers(model("x + x as join")) == ["join"]

    def test_a_taken_name_is_skipped(self) -> None:
        made = model("x -> conv(4, 1x1) as conv_2 -> conv(4, 1x1) -> conv(4, 1x1)")
        assert layers(made) == ["conv_2", "conv", "conv_3"]

    def test_spelling_names_the_layer(self) -> None:
        assert layers(model("x -> batch_norm -> bn -> bn")) == ["batch_norm", "bn", "bn_2"]


class TestSharing:
    def test_a_layer_used_twice_shares(self) -> None:
        made = model("let f = conv(8, 3x3)\nx -> f -> f")
        assert layers(made) == ["f", "f_2"]
        assert weights(made) == ["f.weight", "f.bias"]

    def test_an_operator_used_twice_does_not(self) -> None:
        made = model("let f = bn\nx -> f -> f")
        assert layers(made) == ["bn", "bn_2"]

    def test_a_block_used_twice_shares(self) -> None:
        before = "block b { conv(8, 3x3) -> bn -> conv(8, 3x3) }"
        made = model("let f = b()\nx -> f -> f", before)
        assert layers(made)[3:] == ["f_2.conv", "f_2.bn", "f_2.conv_2"]
        assert len(weights(made)) == 8

    def test_a_chain_used_twice_shares(self) -> None:
        made = model("let f = conv(8, 3x3) -> bn -> repeat 2 { conv(8, 1x1) }\nx -> f -> f")
        assert len(layers(made)) == 8
        assert len(weights(made)) == 2 + 4 + 4
        assert all(key.startswith("f.") for key in weights(made))

    def test_siamese_heads(self) -> None:
        made = build("""model m { input a, b: f32[N, 3, 8, 8]
            let tower = conv(4, 3x3) -> relu
            concat(tower(a), tower(b)) }""")
        assert list(made.inputs) == ["a", "b"]
        assert weights(made) == ["tower.conv.weight", "tower.conv.bias"]

    def test_shared_weights_must_fit(self) -> None:
        found = error("let f = conv(4, 3x3)\nx -> f -> f")
        assert found.code == "E0501"
        assert "f.weight" in found.message

    def test_a_layer_given_to_a_block_is_called_after_the_parameter(self) -> None:
        before = "block residual(body) { in + (in -> body) }"
        made = model("x -> residual(conv(8, 3x3) -> relu)", before)
        assert weights(made) == ["residual.body.conv.weight", "residual.body.conv.bias"]


class TestDefaults:
    def test_file_wide(self) -> None:
        made = model("x -> conv(4, 1x1)", "default conv(bias = false)")
        assert weights(made) == ["conv.weight"]

    def test_an_alias_names_the_same_operator(self) -> None:
        made = model("x -> batch_norm", "default bn(eps = 1e-3)")
        assert made.graph.op_nodes()[0].attributes["eps"] == 1e-3

    def test_the_rest_of_a_body(self) -> None:
        made = model("""y = x -> conv(8, 1x1)
        if true {
            default conv(bias = false)
            y = y -> conv(8, 1x1)
        }
        y -> conv(8, 1x1)""")
        biased = [key for key in weights(made) if key.endswith("bias")]
        assert biased == ["conv.bias", "conv_3.bias"]

    def test_a_block_keeps_its_own(self) -> None:
        before = "block b { conv(4, 1x1) }"
        made = model("default conv(bias = false)\nx -> b -> conv(4, 1x1)", before)
        assert [k for k in weights(made) if k.endswith("bias")] == ["b.conv.bias"]

    def test_a_call_wins(self) -> None:
        made = model("default conv(bias = false)\nx -> conv(4, 1x1, bias = true)")
        assert "conv.bias" in weights(made)


class TestInputs:
    def test_symbols(self) -> None:
        made = model("x -> conv(4, 3x3, stride = 2)", declared="input x: f32[N, 3, H, W]")
        assert shape(made) == "[N, 4, floor((H + 1)/2), floor((W + 1)/2)]"

    def test_constraints(self) -> None:
        made = model(
            "x -> conv(4, 3x3, stride = 2)",
            declared="input x: f32[N, 3, H, W] where H % 32 == 0 and W % 8 == 4, H >= 64",
        )
        assert shape(made) == "[N, 4, H/2, W/2]"
        (_, height, width) = made.symbols
        assert (height.minimum, height.divisor, height.remainder) == (64, 32, 0)
        assert (width.minimum, width.divisor, width.remainder) == (4, 8, 4)

    def test_equal_sides(self) -> None:
        made = model("x -> relu", declared="input x: f32[N, 3, H, W] where H == W")
        assert shape(made) == "[N, 3, H, H]"

    def test_bounds_from_both_sides(self) -> None:
        made = model("x -> relu", declared="input x: f32[N, 3, H, H] where 32 <= H < 64")
        assert (made.symbols[1].minimum, made.symbols[1].maximum) == (32, 63)

    def test_merged_congruences(self) -> None:
        declared = "input x: f32[N, 3, H, H] where H % 4 == 1 and H % 6 == 3"
        symbol = model("x -> relu", declared=declared).symbols[1]
        assert (symbol.divisor, symbol.remainder) == (12, 9)

    def test_symbols_bound_from_outside(self) -> None:
        made = model("x -> relu", declared="input x: f32[N, 3, H, H]", H=48)
        assert shape(made) == "[N, 3, 48, 48]"

    def test_a_skip_needs_a_constraint(self) -> None:
        body = "y = x -> maxpool(2) -> conv(8, 3x3)\nx + (y -> conv(8, 1x1))"
        found = errors(f"model m {{\ninput x: f32[N, 8, H, W]\n{body}\n}}")
        assert [d.code for d in found] == ["E0501"]

    def test_several_types(self) -> None:
        made = build("""model m { input a: f64[N, 4]
            input b: f64[N, 4]
            a + b -> linear(3) }""")
        assert str(made.outputs["out"]) == "f64[N, 3]"

    def test_parameters_in_sizes(self) -> None:
        text = "model m(size = 8) { input x: f32[N, 3, size, 2 * size]\nx -> relu }"
        assert shape(build(text, size=5)) == "[N, 3, 5, 10]"


class TestConvolutions:
    def test_one_and_three_dimensions(self) -> None:
        assert shape(model("x -> conv(4, 3)", declared="input x: f32[N, 3, 16]")) == "[N, 4, 16]"
        made = model("x -> conv(4, 3, stride = 2)", declared="input x: f32[N, 3, 16, 16, 16]")
        assert shape(made) == "[N, 4, 8, 8, 8]"

    def test_padding(self) -> None:
        for pad, wanted in (("0", 28), ("valid", 28), ("same", 32), ("half", 32), ("1x2", None),
                            ("[[0, 1], [2, 3]]", None), ("[1, 2]", None)):  # fmt: skip
            made = model(f"x -> conv(4, 5x5, pad = {pad})")
            if wanted is not None:
                assert shape(made) == f"[N, 4, {wanted}, {wanted}]"
        assert shape(model("x -> conv(4, 5x5, pad = [[0, 1], [2, 3]])")) == "[N, 4, 29, 33]"

    def test_computed_kernel(self) -> None:
        made = model("let k = 5\nx -> conv(4, [k, k - 2])")
        assert made.graph.states["conv.weight"].type.shape == (4, 8, 5, 3)

    def test_depthwise(self) -> None:
        made = model("x -> conv(in.channels, 3x3, groups = in.channels)", declared=(
            "input x: f32[N, 8, 32, 32]"))  # fmt: skip
        assert made.graph.states["conv.weight"].type.shape == (8, 1, 3, 3)

    def test_fixed_kernel(self) -> None:
        made = model("""let sobel = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
        x -> conv(8, 3x3, groups = 8, bias = false, weight = sobel, flip = true) as edges""")
        state = made.graph.states["edges.weight"]
        assert state.role.value == "constant"
        assert state.data.shape == (8, 1, 3, 3)
        assert np.array_equal(state.data[3, 0], [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])

    def test_a_list_of_tensors_is_handed_over_by_name(self) -> None:
        before = """block heads(levels, width) {
            out = for i, map in enumerate(levels) { map -> conv(width, 1x1) as "{i}" }
        }"""
        text = "maps = [x, x -> maxpool(2)]\na, b = heads(levels = maps, width = 4) as h"
        made = model(f"{text}\na -> output a\nb -> output b", before)
        assert layers(made)[1:] == ["h.0", "h.1"]
        assert shape(made, "a") == "[N, 4, 32, 32]"

    def test_words_pass_through_parameters(self) -> None:
        before = "block b(padding = same) { conv(4, 3x3, stride = 2, pad = padding) }"
        assert shape(model("x -> b", before)) == "[N, 4, 16, 16]"


class TestTensorOperators:
    """Functions of numbers that are operators of tensors too, and operators with numbers."""

    @pytest.mark.parametrize(
        ("expression", "ops"),
        [
            ("max(x, x)", ["max"]), ("max(x, 0)", ["max"]), ("sqrt(x)", ["sqrt"]),
            ("x -> sqrt", ["sqrt"]), ("x -> max(0.5)", ["max"]), ("x ** 2", ["pow"]),
            ("2 ** x", ["pow"]), ("-x", ["neg"]), ("(+x)", []), ("less(x, 0.5)", ["less"]),
            ("relu(where(less(x, 0), x, 1))", ["less", "where", "relu"]), ("abs(x) + floor(x)",
                                                            ["abs", "floor", "add"]),
        ],
    )  # fmt: skip
    def test_operators(self, expression: str, ops: list[str]) -> None:
        made = model(f"{expression} -> output y")
        assert [n.op.name for n in sorted(made.graph.op_nodes(), key=lambda n: n.id)] == ops

    def test_numbers_stay_numbers(self) -> None:
        assert layers(model("let a = max(x.channels, 3)\nx -> conv(a, 1x1)")) == ["conv"]

    def test_split_gives_a_list(self) -> None:
        made = model("a, b = x -> split(2)\na + b")
        assert shape(made) == "[N, 4, 32, 32]"
        assert shape(model("parts = x -> split(2)\nparts[1]")) == "[N, 4, 32, 32]"

    def test_several_outputs_by_name(self) -> None:
        made = model("r = x -> topk(3)\nr.values -> output v\nr.positions -> output p")
        assert made.outputs["p"].dtype.value == "i64"

    def test_sums_of_lists_are_what_plus_makes(self) -> None:
        written = model("a, b = x -> split(2)\na + b + 1.5 + a -> output y")
        listed = model("a, b = x -> split(2)\nsum([a, b, 1.5, a]) -> output y")
        assert layers(listed) == layers(written) == ["split", "add", "add_2", "add_3"]
        assert shape(model("sum([x]) -> relu")) == "[N, 8, 32, 32]"
        assert layers(model("sum(for i in range(3) { x -> conv(8, 1x1) }) -> relu"))[-1] == "relu"
        with pytest.raises(convdsl.Error, match="8 is not 4"):
            model("sum([x, x -> conv(4, 1x1)]) -> output y")

    def test_where_on_its_own_line(self) -> None:
        made = model("y = x\nwhere(less(y, 0), y, 1)")
        assert layers(made) == ["less", "where"]
        declared = "input x: f32[N, 3, H, H]\n    where H % 2 == 0"
        assert model("x -> relu", declared=declared).symbols[1].divisor == 2
