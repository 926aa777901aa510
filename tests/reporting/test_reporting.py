"""Reports as tables, JSON, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import networks
import pytest
from graphs import Builder

import convdsl
from convdsl.analysis.machine import Machine
from convdsl.analysis.report import Report, analyse
from convdsl.analysis.roofline import roofline
from convdsl.analysis.snapshot import Snapshot, Snapshots, snapshot
from convdsl.diagnostics import InputError
from convdsl.ir.graph import Graph, Value
from convdsl.ir.model import Model
from convdsl.passes import Step, run
from convdsl.reporting import FORMATS, render, render_passes, render_roofline
from convdsl.tensor import symbol


def graph(n=1) -> Graph:
    b = Builder()
    x = b.input("image", n, 3, 8, 8)
    stem = b("conv", x, channels=8, kernel=3, stride=2, bias=False, name="stem.conv")
    stem = b("batch_norm", stem, name="stem.bn")
    body = b("conv", stem, channels=8, kernel=3, name="stage.0.a")
    joined = b("add", body, b("conv", stem, channels=8, kernel=1, name="stage.0.b"), name="sum")
    long = b("relu", joined, name="a_rather_long_name.of_a_layer.in_a.deeply_nested_block.relu")
    return b.output(y=b("avg_pool", long, kernel="global", name="pool"))


def report(n=1, count: str = "all", **bindings: int) -> Report:
    return analyse(Model("net", graph(n)), count, bindings)


def test_table_of_operators() -> None:
    text = render(report())
    lines = text.splitlines()
    assert lines[0] == "model net: image f32[1, 3, 8, 8] -> y f32[1, 8, 1, 1]"
    assert lines[1].startswith("count all: every arithmetic operation")
    assert lines[3] == "params: 888"
    assert lines[9] == "peak_activation_bytes: 1,536 B at stage.0.b"
    assert lines[10] == "receptive field: size/stride/padding, of the model input"
    assert lines[11].split() == [
        "layer",
        "op",
        "output",
        "params",
        "macs",
        "flops",
        "receptive",
        "field",
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines[13:19]}
    assert rows["stem.conv"] == ["conv", "1x8x4x4", "216", "3,456", "6,784", "3/2/1"]
    assert rows["stage.0.a"][-1] == "7/2/3"
    assert "a_rather_long_name.of_a_layer.in_a.deeply_nested_block.relu" in rows
    assert not any(line.endswith(" ") for line in lines)


def test_table_of_blocks() -> None:
    lines = render(report(), depth=1).splitlines()[13:18]
    cells = [line.split() for line in lines]
    assert [c[0] for c in cells] == ["stem", "stage", "sum", "a_rather_long_name", "pool"]
    assert cells[0][1:] == ["2", "operators", "1x8x4x4", "232", "3,456", "7,080", "3/2/1"]
    assert cells[1][4] == f"{8 * 8 * 9 + 8 + 8 * 8 + 8}"


def test_narrow_terminals_leave_columns_out_and_break_no_word() -> None:
    text = render(report(), width=80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "(80 columns: without op, flops, receptive field; --wide shows all)" in text
    words = set(render(report()).split())
    table = text[text.index("layer ") :].splitlines()[2:-1]
    cells = [cell for line in table for cell in line.split()]
    assert all(cell in words or any(cell in word for word in words) for cell in cells)
    first = "".join(line.split()[0] for line in table if not line.startswith(" "))
    assert "a_rather_long_name.of_a_layer.in_a.deeply_nested_block.relu" in first


def test_of_columns_that_are_asked_for_the_last_are_left_out_first() -> None:
    asked = ("macs", "layer", "output", "input", "kernel/stride", "attributes", "flops", "op")
    text = render(report(), width=80, columns=asked)
    assert all(len(line) <= 80 for line in text.splitlines())
    left = text.partition("columns: without ")[2].partition(";")[0].split(", ")
    assert left == list(reversed(asked))[: len(left)] or left == list(asked)[-len(left) :]
    assert 0 < len(left) < len(asked) - 1
    assert "3,456" in text
    assert "columns: without" not in render(report(), columns=asked)


def test_a_report_prints_itself() -> None:
    import convdsl

    made = report()
    assert repr(made) == render(made).rstrip("\n")
    assert repr(convdsl.report("lenet5")).startswith("model lenet5: image f32[N, 1, 32, 32]")


def test_colour_only_on_request() -> None:
    assert "\x1b[" not in render(report())
    assert "\x1b[" in render(report(), color=True)


def test_verbose_says_attributes_and_defaults() -> None:
    text = render(report(), verbose=True)
    assert "channels=8 kernel=3 stride=2 bias=false" in text
    assert "defaults in force" in text
    line = next(x for x in text.splitlines() if x.startswith("conv") and " pad " in x)
    assert "half keeps the size at stride 1" in line


def test_json_is_the_contract() -> None:
    data = json.loads(render(report(symbol("N")), "json"))
    assert data["model"] == "net"
    assert data["count"] == "all"
    assert data["input"] == {"image": {"dtype": "f32", "shape": ["N", 3, 8, 8]}}
    assert data["total"] == {
        "params": 888,
        "macs": "13696*N",
        "flops": "27904*N + 40",
        "weight_bytes": 3616,
        "neurons": 384,
        "activations": "776*N",
        "peak_activation_bytes": "1536*N",
        "arena_bytes": None,
    }
    assert data["layers"][0] == {
        "name": "stem.conv",
        "op": "conv",
        "output_shape": ["N", 8, 4, 4],
        "params": 216,
        "macs": "3456*N",
        "flops": "6784*N",
        "receptive_field": {
            "image": {
                "size": [3, 3],
                "stride": [2, 2],
                "padding": [1, 1],
                "aligned": [True, True],
            }
        },
        "file": None,
        "line": None,
        "weights_of": None,
    }
    assert data["layers"][-1]["receptive_field"]["image"]["size"] == [13, 13]


def test_json_of_fields_that_vary_or_are_unknown() -> None:
    b = Builder()
    x = b.input("x", 1, 1, 12, symbol("W"))
    h = b("conv", x, channels=1, kernel=3)
    y = b("mul", h, b("avg_pool", x, kernel="global"))
    layers = analyse(Model("m", b.output(y=y))).to_json()["layers"]
    assert layers[-1]["receptive_field"]["x"] == {
        "size": [13, None],
        "size_min": [12, None],
        "stride": [None, None],
        "padding": [1, None],
        "aligned": [False, None],
    }
    text = render(analyse(Model("m", b.graph)))
    assert "12..13/-/1 unaligned x ?" in text


def test_fields_of_several_inputs_have_columns_and_a_line_that_explains_them() -> None:
    b = Builder()
    x, z = b.input("x", 1, 1, 24, 24), b.input("z", 1, 1, 12, 12)
    b.input("gain")
    h = b("conv", x, channels=1, kernel=3, name="first")
    wide = b("conv_transpose", z, channels=1, kernel=2, stride=2, name="up")
    joined = b("add", h, wide, name="joined")
    made = analyse(Model("m", b.output(y=joined)))
    lines = render(made).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("layer"))
    assert lines[at].endswith("field of x   field of z")
    rows = {line.split()[0]: line.split()[-2:] for line in lines[at + 2 :]}
    assert rows["first"] == ["3/1/1", "none"]
    assert rows["up"] == ["none", "1/(1/2)/0"]
    assert rows["joined"] == ["3/1/1", "1/(1/2)/0"]
    note = " ".join(line.strip() for line in lines[at - 2 : at])
    assert note == ("receptive field: size/stride/padding, of each model input; "
                    "none: sees nothing of it")  # fmt: skip
    chosen = render(made, columns=["layer", "receptive field"]).splitlines()
    assert chosen[-1].split() == ["joined", "3/1/1", "1/(1/2)/0"]
    narrow = render(made, width=70)
    assert "receptive field" not in narrow
    assert "(70 columns: without field of x, field of z; --wide shows all)" in narrow
    assert "none: sees" not in render(report())


@pytest.mark.parametrize("sign", ["..", " x ", "-", "unaligned", "?"])
def test_every_sign_of_fields_is_explained_where_it_occurs(sign: str) -> None:
    b = Builder()
    x = b.input("x", 1, 1, 12, symbol("W"))
    h = b("conv", x, channels=1, kernel=3)
    odd = analyse(Model("m", b.output(y=b("mul", h, b("avg_pool", x, kernel="global")))))
    explained = {"..": "a..b: from", " x ": "axes of space with x", "-": "-: no single"}
    said = explained.get(sign, f"{sign}: ")
    assert said in " ".join(render(odd).split())
    assert said not in render(report())
    assert said.partition(":")[0] in render(odd, "md").replace("\\", "")


def test_layers_of_shared_weights_say_so() -> None:
    source = """
model twice {
    input x: f32[N, 3, 8, 8]
    input gain: f32[]
    let f = conv(3, 3x3)
    let half = gain * 0.5
    x -> f -> relu -> f -> conv(3, 1x1) -> f * half -> output y
    half -> output z
}
"""
    made = analyse(convdsl.parse(source))
    rows = {line.split()[0]: line.split() for line in render(made).splitlines()}
    assert rows["f"][3] == "84"
    assert rows["f_2"][3] == rows["f_3"][3] == "(shared)"
    assert rows["mul"][2] == "scalar"
    assert "(shared): weights that a layer above has, and counts" in render(made)
    assert "(shared)" not in render(report())
    named = [layer["weights_of"] for layer in made.to_json()["layers"] if layer["op"] == "conv"]
    assert named == [None, "f", None, "f"]
    assert "weights of f" in render(made, verbose=True)
    assert made.totals["params"] == 84 + 12


def test_blocks_of_shared_weights_say_so() -> None:
    b = Builder()
    x, w = b.input("x", 1, 3, 8, 8), b.parameter("w", 3, 3, 1, 1)

    def tied(x: Value, name: str) -> Value:
        return b("conv", x, channels=3, kernel=1, bias=False, states={"weight": w}, name=name)

    y = b("conv", tied(tied(x, "one.a"), "one.b"), channels=3, kernel=1, name="two.own")
    made = analyse(Model("m", b.output(y=tied(tied(y, "two.a"), "three.a"))))
    rows = {line.split()[0]: line.split() for line in render(made, depth=1).splitlines()}
    assert rows["one"][4:6] == ["9", "1,152"]  # twice in one block is nobody else's
    assert rows["two"][4:6] == ["12", "(shared)"]
    assert rows["three"][3] == "(shared)"


def test_markdown_escapes_and_aligns() -> None:
    text = render(report(symbol("N")), "md", verbose=True)
    assert "# net" in text
    row = "| `stem.conv` | conv | Nx8x4x4 | 216 | 3,456\\*N | 6,784\\*N | 3/2/1 | channels=8 "
    assert row in text
    assert "| --- | --- | --- | --: | --: | --: | --- | --- | --- |" in text
    assert "| `stem.bn` | batch\\_norm | " in text
    assert "## Defaults in force" in text


def test_csv_reads_back() -> None:
    lines = list(csv.DictReader(io.StringIO(render(report(symbol("N")), "csv"))))
    assert len(lines) == 7
    assert lines[0]["macs"] == "3456*N"
    assert lines[0]["params"] == "216"
    assert (lines[0]["image.size"], lines[0]["image.aligned"]) == ("3x3", "true")
    assert sum(int(line["params"]) for line in lines) == 888
    blocks = list(csv.DictReader(io.StringIO(render(report(), "csv", depth=1))))
    assert [line["name"] for line in blocks][:2] == ["stem", "stage"]


def test_conventions_show() -> None:
    assert "flops = 2 x macs" in render(report(count="torchvision"))


def snapshots() -> list[Snapshot]:
    found = [snapshot(graph(), "as written")]
    run(
        graph(),
        observer=lambda s: found.append(snapshot(s.graph, s.rewrite.name, s.changes, s.seconds)),
    )
    return found


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v3_small", "swin_stage"])
def test_figures_along_passes_are_those_of_each_graph(name: str) -> None:
    """What a pass left alone is taken over, calls are asked once: nobody can tell."""
    model = convdsl.load(name)
    bound = model.graph.bind({s.name: 1 for s in model.symbols})
    kept, anew = Snapshots(), [snapshot(bound, "as written")]
    kept.begin(bound, "as written")

    def observe(step: Step) -> None:
        given = (step.graph, step.rewrite.name, step.changes, step.seconds)
        kept.after(*given)
        anew.append(snapshot(*given))

    run(bound, observer=observe)
    assert kept.taken == anew
    assert any(shot.changes == 0 for shot in anew)
    assert len({replace(s, label="", changes=None, seconds=None) for s in anew}) > 1


@pytest.mark.parametrize("format", FORMATS)
def test_before_and_after_passes(format: str) -> None:
    shots = snapshots()
    text = render_passes(shots, format)
    for shot in shots:
        assert shot.label in text
    if format == "json":
        data = json.loads(text)
        assert (data[0]["operators"], data[0]["kernels"], data[0]["weight_time"]) == (7, 7, 0)
        assert data[-1]["operators"] == 6
        assert data[-1]["kernels"] == 4
        assert data[-1]["activation_bytes"] < data[0]["activation_bytes"]
    if format == "csv":
        assert len(list(csv.DictReader(io.StringIO(text)))) == len(shots)


@pytest.mark.parametrize("format", FORMATS)
def test_rooflines(format: str) -> None:
    roof = roofline(run(graph()), Machine("toy", 100e9, 10e9, "made up"))
    text = render_roofline(roof, format)
    assert "stem.conv" in text
    if format == "table":
        assert text.startswith("machine toy: 100.0 GFLOP/s, 10.0 GB/s (made up)\nridge: 10.00")
        assert "conv + add + relu" in text
    if format == "json":
        data = json.loads(text)
        assert data["total"]["seconds"] == sum(k["seconds"] for k in data["kernels"])
    if format == "csv":
        assert len(list(csv.DictReader(io.StringIO(text)))) == 4


def test_unknown_formats_are_misuse() -> None:
    with pytest.raises(InputError, match="table, json, md, csv"):
        render_roofline(roofline(graph(), Machine("toy", 1.0, 1.0, "")), "xml")
    with pytest.raises(InputError, match="table, json, md, csv"):
        render(report(), "xml")
    with pytest.raises(InputError, match="table, json, md, csv"):
        render_passes([], "xml")


def test_large_models_render_quickly_enough_to_use() -> None:
    text = render(analyse(Model("resnet50", networks.resnet(50)), bindings={"N": 1}))
    assert "macs: 4,089,184,256 (4.089 G)" in text
    assert "427/32/213" in text
