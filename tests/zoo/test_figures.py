"""Figures that papers, torchvision and teaching texts state, from the zoo's own pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import convdsl
from convdsl import zoo
from convdsl.analysis.report import Report, analyse, field_to_json
from convdsl.ir.model import Model


def report(model: Model, count: str = "torchvision") -> Report:
    return analyse(model, count, {"N": 1})


def totals(name: str, **parameters: Any) -> dict[str, Any]:
    return report(convdsl.load(name, **parameters)).totals


def text(body: str, given: str = "3, 224, 224", before: str = "") -> Model:
    return convdsl.parse(f"{before}\nmodel m {{\ninput image: f32[N, {given}]\n{body}\n}}\n")


# torchvision 0.29.1; multiply-accumulates of contractions alone


@pytest.mark.dear
@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("alexnet", 61_100_840, 0.714),
        ("vgg16", 138_357_544, 15.470),
        ("vgg16_bn", 138_365_992, 15.470),
        ("vgg19", 143_667_240, 19.632),
        ("vgg19_bn", 143_678_248, 19.632),
        ("googlenet", 6_624_904, 1.498),
        ("resnet18", 11_689_512, 1.814),
        ("resnet34", 21_797_672, 3.664),
        ("resnet50", 25_557_032, 4.089),
        ("resnext50_32x4d", 25_028_904, 4.230),
        ("mobilenet_v2", 3_504_872, 0.301),
        ("shufflenet_v2_x0_5", 1_366_792, 0.040),
        ("shufflenet_v2_x1_0", 2_278_604, 0.145),
        ("squeezenet1_1", 1_235_496, 0.349),
        ("fcn_resnet50", 35_322_218, 152.717),
    ],
)
def test_torchvision(name: str, params: int, gmacs: float) -> None:
    found = totals(name)
    assert found["params"] == params
    assert round(found["macs"] / 1e9, 3) == gmacs


@pytest.mark.dear
@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("vgg16", 15_470_264_320),
        ("vgg16_bn", 15_470_264_320),
        ("resnet50", 4_089_184_256),
        ("fcn_resnet50", 152_716_512_000),
        ("densenet121", 2_834_161_664),
        ("densenet161", 7_727_907_072),
        ("densenet169", 3_359_843_328),
        ("densenet201", 4_291_365_888),
        ("googlenet", 1_498_376_192),
        ("inception_v3", 5_713_216_096),
        ("mobilenet_v3_large", 216_589_760),
        ("mobilenet_v3_small", 56_510_400),
        ("efficientnet_b0", 385_814_752),
        ("efficientnet_b7", 37_745_884_192),
        ("vit_b_32", 4_409_186_304),
        ("convnext_tiny", 4_455_531_264),
        ("convnext_large", 34_361_433_600),
    ],
)
def test_exact_macs(name: str, macs: int) -> None:
    model = convdsl.load(name)
    assert report(model).totals["macs"] == macs
    assert report(model, "all").totals["macs"] == macs


def test_googlenet_transforms_its_input_without_multiply_accumulates() -> None:
    assert totals("googlenet", transform_input=True)["macs"] == totals("googlenet")["macs"]


def test_auxiliary_heads() -> None:
    """torchvision holds 13,004,888 and 27,161,264 parameters, these heads included."""
    assert totals("googlenet", auxiliary=True)["params"] == 13_004_888
    assert totals("inception_v3", auxiliary=True)["params"] == 27_161_264
    assert list(convdsl.load("googlenet", auxiliary=True).outputs) == ["logits", "aux1", "aux2"]


# Papers


@pytest.mark.dear
@pytest.mark.parametrize(
    ("name", "mega_params", "mega_macs"),
    [
        ("mobilenet_v3_large", 5.4, 219),  # arXiv:1905.02244, table 3
        ("mobilenet_v3_small", 2.5, 56),
        ("convnext_tiny", 29, 4500),  # arXiv:2201.03545, table 1
        ("convnext_small", 50, 8700),
        ("convnext_base", 89, 15400),
        ("convnext_large", 198, 34400),
        ("efficientnet_b0", 5.3, 390),  # arXiv:1905.11946, table 2
        ("pyconvresnet50", 24.85, 3880),  # arXiv:2006.11538, table 2; normalisation counted
    ],
)
def test_figures_of_papers(name: str, mega_params: float, mega_macs: float) -> None:
    """To the digits that their tables give, and 2 % where the paper's network differs in detail."""
    found = totals(name)
    assert abs(found["params"] / 1e6 - mega_params) <= 0.02 * mega_params
    assert abs(found["macs"] / 1e6 - mega_macs) <= 0.02 * mega_macs


@pytest.mark.parametrize(("name", "depth"), [("densenet121", 121), ("densenet201", 201)])
def test_depth_of_densenet(name: str, depth: int) -> None:
    rows = report(convdsl.load(name)).layers
    assert sum(row.op in ("conv", "linear") for row in rows) == depth


def test_alexnet_of_2012() -> None:
    """Two columns as groups: "60 million parameters and 650,000 neurons", in 8 layers."""
    found = report(convdsl.load("alexnet2012"))
    assert found.totals["params"] == 60_965_224
    assert found.totals["neurons"] == 659_272
    assert sum(row.op in ("conv", "linear") for row in found.layers) == 8


def test_unet() -> None:
    model = convdsl.load("unet")
    assert str(model.inputs["image"]) == "f32[N, 1, 572, 572]"
    assert str(model.outputs["map"]) == "f32[N, 2, 388, 388]"
    assert totals("unet")["params"] == 31_030_658


def test_small_unets() -> None:
    """The same layers, padded; `depth` halvings, the first map of `width` channels."""
    assert totals("unet_small", width=64)["params"] == 31_030_658
    model = convdsl.load("unet_small", width=8, depth=2, size=20, classes=3)
    assert str(model.outputs["map"]) == "f32[N, 3, 20, 20]"
    assert (
        convdsl.load("unet", channels=8, depth=2).graph.states["bottom.conv1.weight"].type.shape[0]
        == 32
    )
    with pytest.raises(convdsl.CompileError, match="cannot be halved"):
        convdsl.load("unet_small", size=100)


@pytest.mark.parametrize(
    ("width", "resolution", "mega_macs", "mega_params"),
    [
        (1.0, 224, 569, 4.2),
        (0.75, 224, 325, 2.6),
        (0.5, 224, 149, 1.3),
        (0.25, 224, 41, 0.5),
        (1.0, 192, 418, 4.2),
        (1.0, 160, 290, 4.2),
        (1.0, 128, 186, 4.2),
    ],
)
def test_mobilenet_v1(width: float, resolution: int, mega_macs: int, mega_params: float) -> None:
    """Tables 6 and 7 of the paper, which cuts some figures (290.7) and rounds others (568.7)."""
    found = totals("mobilenet_v1", width=width, resolution=resolution)
    assert abs(found["macs"] / 1e6 - mega_macs) < 1
    assert round(found["params"] / 1e6, 1) == mega_params


@pytest.mark.parametrize(
    ("groups", "mega_macs"), [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)]
)
def test_shufflenet_v1(groups: int, mega_macs: int) -> None:
    """The last row of table 1 of the paper, which leaves the classifier out."""
    rows = report(convdsl.load("shufflenet_v1", groups=groups)).layers
    assert round(sum(row.cost.macs for row in rows if row.op != "linear") / 1e6) == mega_macs


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("lenet5", 61_706),
        ("xception", 22_855_952),  # Keras: 22,910,480 with 54,528 running statistics
        ("mobilenet_v1", 4_231_976),  # Keras: 4,253,864 with 21,888 running statistics
        ("se_resnet50", 28_088_024),  # 25,557,032 and the gates' 2,530,992
        ("resnet50_v2", 25_549_352),
        ("efficientnet_lite0", 4_652_008),
        ("resnet18_cifar", 11_173_962),
        ("mobilenet_v1_cifar", 3_217_226),  # 4,231,976, with 10 classes for 1,000
        ("pyconvresnet50", 24_847_720),
        ("mnist_cnn", 1_199_882),  # as Keras' and PyTorch's examples
    ],
)
def test_parameters(name: str, params: int) -> None:
    assert totals(name)["params"] == params


@pytest.mark.parametrize(
    ("name", "convolutions"), [("resnet50_v2", 50), ("resnet101_v2", 101), ("resnet200_v2", 200)]
)
def test_depth_of_resnet_v2(name: str, convolutions: int) -> None:
    """Depth counts the convolutions off the shortcuts, and the classifier."""
    rows = report(convdsl.load(name)).layers
    on_path = [row for row in rows if row.op in ("conv", "linear") and "downsample" not in row.name]
    assert len(on_path) == convolutions


def test_fcn() -> None:
    """134 M parameters (table 1) before upsampling, which is interpolation to begin with."""
    found = report(convdsl.load("fcn32s"))
    upsampling = sum(row.cost.params for row in found.layers if row.op == "conv_transpose")
    assert round((found.totals["params"] - upsampling) / 1e6) == 134
    for name in ("fcn32s", "fcn16s", "fcn8s"):
        model = convdsl.load(name, height=161, width=203)
        assert str(model.outputs["scores"]) == "f32[N, 21, 161, 203]"


# Receptive fields: Araujo, Norris, Sim 2019 (Distill), TF-Slim's variants

ALEXNET_SLIM = """
image -> conv(64, 11x11, stride = 4, pad = valid) -> maxpool(3x3, stride = 2)
      -> conv(192, 5x5) -> maxpool(3x3, stride = 2)
      -> conv(384, 3x3) -> conv(384, 3x3) -> conv(256, 3x3)
      -> maxpool(3x3, stride = 2) as last
"""
RESNET_SLIM = """
block unit(width, stride) {
    body = in -> conv(width, 1x1) -> relu -> conv(width, 3x3, stride) -> relu
              -> conv(4 * width, 1x1)
    skip = if in.channels != 4 * width { in -> conv(4 * width, 1x1, stride) }
           else if stride > 1 { in -> maxpool(1x1, stride) }
           else { in }
    body + skip -> relu as out
}
"""
RESNET50_SLIM = """
image -> conv(64, 7x7, stride = 2) -> maxpool(3x3, stride = 2, pad = same)
      -> for width, depth, stride in [[64, 3, 2], [128, 4, 2], [256, 6, 2], [512, 3, 1]] {
             repeat (depth - 1) { unit(width, 1) } -> unit(width, stride)
         }
"""


@pytest.mark.parametrize(
    ("model", "layer", "size", "stride", "padding"),
    [
        (lambda: text(ALEXNET_SLIM), "last", 195, 32, 64),
        (lambda: convdsl.load("vgg16"), "features.30", 212, 32, 90),
        (lambda: convdsl.load("mobilenet_v1"), "conv14.relu6_2", 315, 32, 126),
        (lambda: text(RESNET50_SLIM, before=RESNET_SLIM), "unit_16.out", 483, 32, 239),
        (lambda: convdsl.load("resnet50"), "layer4.2.relu_3", 427, 32, 213),
        (lambda: convdsl.load("resnet18"), "layer4.1.relu_2", 435, 32, 217),
    ],
    ids=["alexnet_v2", "vgg16 pool5", "mobilenet_v1", "resnet50_v1", "resnet50", "resnet18"],
)
def test_receptive_fields(model: Any, layer: str, size: int, stride: int, padding: int) -> None:
    (row,) = [row for row in report(model()).layers if row.name == layer]
    assert field_to_json(row.receptive_field["image"]) == {
        "size": [size] * 2,
        "stride": [stride] * 2,
        "padding": [padding] * 2,
        "aligned": [True] * 2,
    }


# Worked examples of teaching texts: examples/gallery/worked_examples.cnn


@pytest.mark.parametrize(
    ("kernel", "dilations", "size"),
    [
        ([3, 3], [1, 1], 5),
        ([3, 3], [1, 1, 1], 7),
        ([3, 3], [1, 2], 7),
        ([7, 7], [1], 7),
        ([5, 5], [1, 3], 17),
    ],
)
def test_stacked_filters(kernel: list[int], dilations: list[int], size: int) -> None:
    made = report(convdsl.load("stacked", kernel=kernel, dilations=dilations))
    assert field_to_json(made.layers[-1].receptive_field["x"])["size"] == [size] * 2


@pytest.mark.parametrize(
    ("name", "given", "params"),
    [
        ("filters_over_channels", {"kernel": [5, 3]}, 256 * 64 * 5 * 3),
        ("filters_over_channels", {"width": 256}, 589_824),
        ("filters_over_channels", {"width": 256, "groups": 8}, 73_728),
        ("stacked", {"width": 10}, 27 * 10**2),
        ("stacked", {"width": 10, "kernel": [7, 7], "dilations": [1]}, 49 * 10**2),
        ("depthwise_separable", {}, 656),
        ("depthwise_separable", {"width": 24, "made": 40}, 9 * 24 + 24 * 40),
    ],
)
def test_counts(name: str, given: dict[str, Any], params: int) -> None:
    made = report(convdsl.load(name, **given))
    assert made.totals["params"] == params
    assert made.totals["macs"] == params * 28 * 28


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "made"), [(2, 3, 1, 4), (5, 4, 2, 12), (1, 6, 5, 6)]
)
def test_transposed_convolution_enlarges(size: int, kernel: int, stride: int, made: int) -> None:
    model = convdsl.load("transposed", size=size, kernel=[kernel, kernel], stride=stride)
    assert str(model.outputs["y"]) == f"f32[N, 1, {made}, {made}]"


# Length of pages

EXAMPLES = zoo.folder() or Path()


def test_pages_are_short() -> None:
    limits = {"googlenet": 60, "mobilenet_v2": 40, "unet": 40}
    for name, limit in limits.items():
        assert len((EXAMPLES / f"{name}.cnn").read_text().splitlines()) <= limit, name


def test_resnet50_takes_40_lines() -> None:
    """The page without the other depths and their block."""
    page = (EXAMPLES / "resnet.cnn").read_text()
    page = re.sub(r"# ResNet-(?!50)\d+\nmodel .*?\n}\n+", "", page, flags=re.DOTALL)
    page = re.sub(r"block basic.*?\n}\n+", "", page, flags=re.DOTALL)
    assert len(page.splitlines()) <= 40
    alone = convdsl.parse(page.replace('labels "imagenet_classes.txt"\n', ""))
    assert list(alone.graph.states) == list(convdsl.load("resnet50").graph.states)


RESIZED = {
    "vgg16": (96, 138_357_544),
    "alexnet": (96, 61_100_840),
    "resnet18": (96, 11_689_512),
    "squeezenet1_1": (96, 1_235_496),
    "googlenet": (96, 6_624_904),
    "shufflenet_v2_x1_0": (96, 2_278_604),
    "mobilenet_v2": (96, 3_504_872),
    "efficientnet_lite0": (96, 4_652_008),
    "densenet121": (96, 7_978_856),
    "mobilenet_v3_large": (96, 5_483_032),
    "convnext_tiny": (96, 28_589_128),
}
"""Parameters as torchvision states them: those of networks that end in pooling do not depend on the
image's size."""


@pytest.mark.dear
@pytest.mark.parametrize("name", RESIZED)
def test_classifiers_take_their_resolution(name: str) -> None:
    size, params = RESIZED[name]
    model = convdsl.load(name, resolution=size)
    assert report(model).totals["params"] == params
    assert model.inputs["image"].shape[2:] == (size, size)
    steps = {step.name: step.arguments for step in model.preprocessing.steps}
    usual = {step.name: step.arguments for step in convdsl.load(name).preprocessing.steps}
    assert steps.keys() == usual.keys()
    assert str(size) in str(steps)
    assert "224" in str(usual)
    assert "224" not in str(steps)
