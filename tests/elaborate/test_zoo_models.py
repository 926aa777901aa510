"""The first models of the zoo: their sizes, and weights called as published checkpoints do."""

from __future__ import annotations

from pathlib import Path

import pytest

from convdsl.diagnostics import CompileError, SourceFile
from convdsl.elaborate import elaborate, load_file
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str, **parameters: object) -> Model:
    file, _, model = name.partition(":")
    return load_file(EXAMPLES / file, model=model or None, parameters=parameters)


def parameters(model: Model) -> object:
    states = model.graph.states.values()
    return sum(s.type.elements for s in states if s.role is Role.PARAMETER)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lenet5.cnn", 61_706),
        ("resnet.cnn:resnet18", 11_689_512),
        ("resnet.cnn:resnet34", 21_797_672),
        ("resnet.cnn:resnet50", 25_557_032),
        ("resnet.cnn:resnet101", 44_549_160),
        ("resnet.cnn:resnet152", 60_192_808),
        ("efficientnet_lite0.cnn", 4_652_008),
    ],
)
def test_parameters(name: str, count: int) -> None:
    assert parameters(load(name)) == count


def norm(key: str) -> list[str]:
    return [f"{key}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]


def torchvision_resnet(depths: list[int], convs: int, projected: set[int]) -> list[str]:
    """The state_dict's keys, in order, without num_batches_tracked."""
    keys = ["conv1.weight", *norm("bn1")]
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            path = f"layer{stage}.{block}"
            for conv in range(1, convs + 1):
                keys += [f"{path}.conv{conv}.weight", *norm(f"{path}.bn{conv}")]
            if block == 0 and stage in projected:
                keys += [f"{path}.downsample.0.weight", *norm(f"{path}.downsample.1")]
    return [*keys, "fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("name", "depths", "convs", "projected"),
    [
        ("resnet18", [2, 2, 2, 2], 2, {2, 3, 4}),
        ("resnet34", [3, 4, 6, 3], 2, {2, 3, 4}),
        ("resnet50", [3, 4, 6, 3], 3, {1, 2, 3, 4}),
    ],
)
def test_resnet_keys(name: str, depths: list[int], convs: int, projected: set[int]) -> None:
    model = load(f"resnet.cnn:{name}")
    assert list(model.graph.states) == torchvision_resnet(depths, convs, projected)


def test_resnet50_strides_stand_in_the_3x3() -> None:
    states = load("resnet.cnn:resnet50").graph
    nodes = {node.name: node for node in states.op_nodes()}
    assert nodes["layer2.0.conv1"].attributes["stride"] == (1, 1)
    assert nodes["layer2.0.conv2"].attributes["stride"] == (2, 2)
    assert nodes["layer2.0.downsample.0"].attributes["stride"] == (2, 2)


def test_efficientnet_lite0_keys() -> None:
    keys = list(load("efficientnet_lite0.cnn").graph.states)
    assert keys[0] == "_conv_stem.weight"
    assert "_blocks.0._expand_conv.weight" not in keys
    assert {"_blocks.0._depthwise_conv.weight", "_blocks.1._expand_conv.weight"} < set(keys)
    assert {"_blocks.15._bn2.running_var", "_conv_head.weight", "_bn1.bias"} < set(keys)
    assert len([k for k in keys if k.endswith("_project_conv.weight")]) == 16
    assert keys[-2:] == ["_fc.weight", "_fc.bias"]


def test_efficientnet_lite0_surroundings() -> None:
    model = load("efficientnet_lite0.cnn")
    assert model.labels is not None
    assert len(model.labels) == 1000
    assert model.preprocessing is not None
    assert [step.name for step in model.preprocessing.steps] == [
        "center_crop", "resize", "normalize",
    ]  # fmt: skip
    assert model.preprocessing.steps[0].arguments == {"fraction": 0.875}
    assert model.preprocessing.steps[2].arguments == {"mean": [127.0] * 3, "std": [128.0] * 3}


def test_classes_change_the_head_and_drop_the_labels() -> None:
    model = load("resnet.cnn:resnet18", classes=10)
    assert str(model.outputs["logits"]) == "f32[N, 10]"
    assert model.labels is None
    assert model.parameters == {"classes": 10, "resolution": 224}


def test_another_size_than_that_of_prepared_images_may_be_looked_at() -> None:
    """As the file says it, an image that does not come out as large as the input is an error."""
    text = "model m(side = 32) {{\ninput x: f32[N, 3, side, side]\nx -> relu -> output y\n}}\n"
    text += "preprocess x: pad({})\n"
    source = SourceFile("m.cnn", text.format(32))
    assert elaborate(source, parameters={"side": 16}).graph.inputs["x"].type.shape[2:] == (16, 16)
    with pytest.raises(CompileError, match="the image comes out as 24x24, and `x` is 32x32"):
        elaborate(SourceFile("m.cnn", text.format(24)))
    prepared = load("yolov8.cnn:yolov8n", side=64).preprocessing
    assert prepared is not None
    assert prepared.steps[0].arguments["size"] == 64
