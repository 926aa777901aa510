"""The public figures that present operators allow, to the digit."""

from __future__ import annotations

import networks
import pytest
from graphs import Builder

from convdsl.analysis.report import Report, analyse, field_to_json
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.tensor import symbol


def report(graph: Graph, count: str = "torchvision", **bindings: int) -> Report:
    return analyse(Model("m", graph), count, bindings or {"N": 1})


@pytest.mark.parametrize(
    ("graph", "params", "gmacs"),
    [
        (networks.alexnet(), 61_100_840, 0.714),
        (networks.vgg(16), 138_357_544, 15.470),
        (networks.vgg(16, norm=True), 138_365_992, 15.470),
        (networks.vgg(19), 143_667_240, 19.632),
        (networks.vgg(19, norm=True), 143_678_248, 19.632),
        (networks.resnet(18), 11_689_512, 1.814),
        (networks.resnet(34), 21_797_672, 3.664),
        (networks.resnet(50), 25_557_032, 4.089),
    ],
    ids=["alexnet", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "resnet18", "resnet34", "resnet50"],
)
def test_torchvision(graph: Graph, params: int, gmacs: float) -> None:
    totals = report(graph).totals
    assert totals["params"] == params
    assert round(totals["macs"] / 1e9, 3) == gmacs
    assert totals["flops"] == totals["macs"] * 2


def test_exact_macs() -> None:
    assert report(networks.vgg(16)).totals["macs"] == 15_470_264_320
    assert report(networks.resnet(50)).totals["macs"] == 4_089_184_256
    assert report(networks.resnet(50), "all").totals["macs"] == 4_089_184_256


def test_alexnet_of_2012() -> None:
    totals = report(networks.alexnet2012()).totals
    assert totals["params"] == 60_965_224
    assert totals["neurons"] == 659_272
    assert report(networks.alexnet2012(), N=16).totals["neurons"] == 659_272


@pytest.mark.parametrize(
    ("graph", "size", "stride", "padding"),
    [
        (networks.alexnet_slim(), 195, 32, 64),
        (networks.vgg(16), 212, 32, 90),
        (networks.mobilenet(224), 315, 32, 126),
        (networks.resnet50_slim(224), 483, 32, 239),
        (networks.resnet(50), 427, 32, 213),
        (networks.resnet(18), 435, 32, 217),
        (networks.resnet(50, symbol("H")), 427, 32, 213),
    ],
    ids=["alexnet", "vgg16", "mobilenet", "resnet50_slim", "resnet50", "resnet18", "any size"],
)
def test_receptive_fields(graph: Graph, size: int, stride: int, padding: int) -> None:
    features = graph.outputs["features"].name
    (layer,) = [row for row in report(graph).layers if row.name == features]
    assert field_to_json(layer.receptive_field["image"]) == {
        "size": [size] * 2,
        "stride": [stride] * 2,
        "padding": [padding] * 2,
        "aligned": [True] * 2,
    }


@pytest.mark.parametrize(
    ("dilations", "expected"), [((1,), 3), ((1, 1), 5), ((1, 1, 1), 7), ((1, 2), 7), ((2, 1), 7)]
)
def test_stacked_small_filters(dilations: tuple[int, ...], expected: int) -> None:
    b = Builder()
    x = b.input("image", 1, 4, 20, 20)
    for dilation in dilations:
        x = b("conv", x, channels=4, kernel=3, dilation=dilation)
    layer = report(b.output(y=x)).layers[-1]
    field = layer.receptive_field["image"][0]
    assert field is not None
    assert field.size == expected


def params(given: int, **attributes) -> int:
    b = Builder()
    x = b.input("image", 1, given, 20, 20)
    graph = b.output(y=b("conv", x, bias=False, **attributes))
    return report(graph).totals["params"]


def test_worked_examples() -> None:
    assert params(64, channels=256, kernel=(5, 3)) == 256 * 64 * 5 * 3
    assert params(256, channels=256, kernel=3) == 589_824
    assert params(256, channels=256, kernel=3, groups=8) == 73_728
    assert 3 * params(16, channels=16, kernel=3) == 27 * 16**2
    assert params(16, channels=16, kernel=7) == 49 * 16**2
    b = Builder()
    depthwise = b("conv", b.input("image", 1, 16, 9, 9), channels=16, kernel=3, groups=16,
                  bias=False)  # fmt: skip
    graph = b.output(y=b("conv", depthwise, channels=32, kernel=1, bias=False))
    assert report(graph).totals["params"] == 656


def test_unet_of_2015() -> None:
    graph = networks.unet()
    assert graph.outputs["map"].type.shape[2:] == (388, 388)
    found = report(graph)
    assert found.totals["params"] == 31_030_658
    axes = field_to_json(found.layers[-1].receptive_field["image"])
    assert axes is not None
    assert (axes["size"], axes["size_min"], axes["stride"]) == ([204] * 2, [188] * 2, [1] * 2)


def test_a_transposed_filter_spreads_its_input() -> None:
    b = Builder()
    y = b("conv_transpose", b.input("image", 1, 1, 2, 2), channels=1, kernel=3, bias=False)
    assert y.type.shape == (1, 1, 4, 4)
    graph = b.output(y=y)
    assert report(graph).totals["macs"] == 4 * 9  # torchvision counts input positions
    assert report(graph, "all").totals["macs"] == 4 * 9  # and here no product leaves the output
    b = Builder()
    y = b("conv_transpose", b.input("image", 1, 1, 2, 2), channels=1, kernel=3, pad=1, bias=False)
    graph = b.output(y=y)
    assert y.type.shape == (1, 1, 2, 2)
    assert report(graph).totals["macs"] == 36
    assert report(graph, "all").totals["macs"] == 16  # borders excluded
